"""Settings of the measured project. The database comes from the environment, as JSON."""

from __future__ import annotations

import json
import os

SECRET_KEY = "benchmarks only"
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "benchmarks.bench.urls"
WSGI_APPLICATION = "benchmarks.bench.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
DATABASES = {"default": json.loads(os.environ["BENCH_DATABASE"]) | {"CONN_MAX_AGE": 600}}
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "benchmarks.bench",
]
PEERS = bool(os.environ.get("BENCH_PEERS"))
POSTGRESQL = DATABASES["default"]["ENGINE"].endswith("postgresql")
if PEERS:
    INSTALLED_APPS += ["auditlog", "simple_history"]
    if POSTGRESQL:
        INSTALLED_APPS += ["pgtrigger", "pghistory"]
        PGHISTORY_INSTALL_CONTEXT_FUNC_ON_MIGRATE = True  # a migration of its own would, and there is none
# All tables in one go: an application without migrations cannot refer to one that has them.
MIGRATION_MODULES = {name.rpartition(".")[2]: None for name in INSTALLED_APPS}
# As startproject writes it.
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
LOGGING_CONFIG = None
