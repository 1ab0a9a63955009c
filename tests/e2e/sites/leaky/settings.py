"""The shop's settings, with the page that leaks."""

from shop.settings import *  # noqa: F403

ROOT_URLCONF = "leaky.urls"
