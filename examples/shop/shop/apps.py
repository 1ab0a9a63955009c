"""The shop as a Django app."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """The app the models live in: their label is ``shop``."""

    name = "shop"
    verbose_name = "Kettle & Leaf"
