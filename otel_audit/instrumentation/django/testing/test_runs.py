"""Django's tests: what runs in them is not what somebody did, and does not reach the sink.

A test run is what Django calls a test environment (``manage.py test`` and pytest-django both make one), and
the life of a test database made without one (``manage.py testserver``).
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any, Final

import wrapt

from otel_audit.pipeline import provider

_logger = logging.getLogger(__name__)

_UTILS: Final = "django.test.utils"
_ENVIRONMENT: Final = "Django's test environment"
_DATABASE: Final = "a test database"


class TestRuns:
    """Hold the pipeline back while tests run. ``record_tests = true`` leaves this part out."""

    __test__ = False  # pytest: nothing to collect

    def __init__(self) -> None:
        self._active = False
        self._told = False
        self._holding: list[str] = []

    def start(self) -> None:
        """Watch for test environments; one may be there already."""
        self._active = True
        # Importing Django's test tools at each start would cost every process for the sake of a few.
        wrapt.register_post_import_hook(self._wrap_environment, _UTILS)
        if hasattr(getattr(sys.modules.get(_UTILS), "_TestState", None), "saved_data"):
            self._begin(_ENVIRONMENT)

    def stop(self) -> None:
        """Stop watching; what is held back goes on."""
        self._active = False
        while self._holding:
            self._end(self._holding[-1])

    def create_test_db(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``BaseDatabaseCreation.create_test_db``."""

        @functools.wraps(original)
        def create_test_db(*args: Any, **kwargs: Any) -> Any:
            self._begin(_DATABASE)
            try:
                return original(*args, **kwargs)
            except BaseException:
                self._end(_DATABASE)
                raise

        return create_test_db

    def destroy_test_db(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``BaseDatabaseCreation.destroy_test_db``."""

        @functools.wraps(original)
        def destroy_test_db(*args: Any, **kwargs: Any) -> Any:
            try:
                return original(*args, **kwargs)
            finally:
                self._end(_DATABASE)

        return destroy_test_db

    def _wrap_environment(self, utils: Any) -> None:
        if not self._active:  # the hook cannot be taken back
            return
        set_up, tear_down = utils.setup_test_environment, utils.teardown_test_environment

        @functools.wraps(set_up)
        def setup_test_environment(*args: Any, **kwargs: Any) -> Any:
            result = set_up(*args, **kwargs)
            self._begin(_ENVIRONMENT)
            return result

        @functools.wraps(tear_down)
        def teardown_test_environment(*args: Any, **kwargs: Any) -> Any:
            try:
                return tear_down(*args, **kwargs)
            finally:
                self._end(_ENVIRONMENT)

        wrapped = {"setup_test_environment": set_up, "teardown_test_environment": tear_down}
        for module in (utils, sys.modules.get("django.test.runner")):
            for ours in (setup_test_environment, teardown_test_environment):
                name = ours.__name__
                if getattr(module, name, None) is wrapped[name]:
                    setattr(module, name, ours)

    def _begin(self, what: str) -> None:
        if not self._active:
            return
        self._holding.append(what)
        provider.hold(f"{what} is in use, and record_tests is false")
        if not self._told and provider.configured() is not None:
            self._told = True
            _logger.warning(
                "Nothing is audited while tests run (%s): use otel_audit.testing.capture_audit() or pytest's "
                "fixture `audited`, or set record_tests = true",
                what,
            )

    def _end(self, what: str) -> None:
        if what in self._holding:
            self._holding.remove(what)
            provider.release()
