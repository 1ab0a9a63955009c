"""Settings of the test project; the databases are in a directory the test session makes."""

from __future__ import annotations

import os

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.path.join(os.environ["CLINIC_TEST_DIRECTORY"], "clinic.sqlite3"),
    },
}
SECRET_KEY = "clinic"
DEBUG = False
ALLOWED_HOSTS = ["testserver", "clinic.example"]
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "hijack",
    "impersonate",
    "tests.instrumentation.django.clinic",
    "rest_framework.authtoken",
    "tests.instrumentation.django.vault",
    "tests.instrumentation.django.warehouse",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
ROOT_URLCONF = "tests.instrumentation.django.clinic.urls"
LOGIN_URL = "/login/"
LOGIN_REDIRECT_URL = "/noop/"
LOGOUT_REDIRECT_URL = "/login/"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
