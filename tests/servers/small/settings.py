"""Settings of the smallest site: groups in SQLite, nothing else."""

from __future__ import annotations

import os

SECRET_KEY = "small"
ALLOWED_HOSTS = ["*"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["SMALL_DATABASE"],
        "OPTIONS": {"timeout": 30},
    }
}
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth"]
ROOT_URLCONF = "tests.servers.small.urls"
USE_TZ = True
