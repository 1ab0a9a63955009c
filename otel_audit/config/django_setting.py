"""Django's OTEL_AUDIT setting as a source of configuration; Django is imported only where it has settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from otel_audit.config.sources import DJANGO_SETTING
from otel_audit.errors import ConfigurationError


def is_configured() -> bool:
    """Say whether Django's settings are in use already."""
    conf = sys.modules.get("django.conf")
    return conf is not None and bool(conf.settings.configured)


def has_settings() -> bool:
    """Say whether Django has its settings, by ``settings.configure()``, or knows where they are."""
    return is_configured() or bool(
        os.environ.get("DJANGO_SETTINGS_MODULE") and find_spec("django") is not None
    )


def read_setting() -> Mapping[str, Any] | None:
    """Read the setting; ``None`` if it is not there, or there are no settings to read it from.

    Raises:
        ConfigurationError: the settings cannot be read.
    """
    if not has_settings():
        return None
    settings = import_module("django.conf").settings
    try:
        return getattr(settings, DJANGO_SETTING, None)
    except Exception as error:  # the project's own settings module may do anything
        module = os.environ.get("DJANGO_SETTINGS_MODULE", "settings.configure()")
        raise ConfigurationError(f"Django's settings ({module}) cannot be read: {error}") from error
