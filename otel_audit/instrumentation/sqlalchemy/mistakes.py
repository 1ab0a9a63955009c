"""What ``[sqlalchemy]`` names in vain, without a key or on an untried database: said once, with its place.

What names nothing is said when the first statement writes something. By then most applications have imported
their models; a pattern whose models come later is said too early.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Final

from sqlalchemy.schema import Table

from otel_audit.capture.table_policy import ModelPattern, Subject, TableRule, naming_patterns
from otel_audit.config.loader import load
from otel_audit.config.model import CaptureSection, SQLAlchemyConfig
from otel_audit.instrumentation.sqlalchemy.mappings import Mappings
from otel_audit.interruptions import faults

_logger = logging.getLogger(__name__)
_WILD: Final = frozenset("*?[")


def say_what_matches_nothing(section: SQLAlchemyConfig, tables: Iterable[Table]) -> None:
    """Warn of each pattern that matches no mapped class and no table so far."""
    mappings = Mappings()
    subjects = [mappings.subject(table) for table in tables if table.name]
    for setting, key, pattern in naming_patterns(section):
        if not pattern or any(map(ModelPattern(pattern).matches, subjects)):
            continue
        only_text = setting == "models" and _WILD.isdisjoint(pattern) and "." not in pattern
        _logger.warning(
            "%s has the pattern %r, which matches no mapped class and no table that was there at the first "
            "write; %s%s",
            _place(section, setting, key),
            pattern,
            _hint(pattern, subjects),
            "; statements as text that name such a table are recorded" if only_text else "",
        )


def say_that_it_has_no_key(table: Table, section: CaptureSection, rules: Mapping[str, TableRule]) -> None:
    """Warn of a table whose rows nothing tells apart; ``rules`` have decided that it is recorded."""
    rule = rules.get("changes") or rules.get("reads")
    if rule is None:
        place = ""
    elif rule.key:
        place = f"{_place(section, rule.key[0], rule.key[1])}: "
    else:
        place = f"{rule.place}: {rule.text}: " if rule.place else f"{rule.text}: "
    _logger.warning(
        "%s%s has neither a primary key nor foreign keys: its rows are recorded by their number only; "
        "declare a primary key, in the class by `primary_key` of __mapper_args__, or exclude it: %r",
        place,
        table.fullname,
        f"!{table.fullname}",
    )


def say_that_it_is_untried(dialect: str, section: CaptureSection) -> None:
    """Warn of an engine whose dialect the tests do not cover."""
    _logger.warning(
        "%s: otel-audit is not tested with the dialect %r: what is written is recorded, with old values that "
        "a SELECT reads before the statement, and no statement fails for it; to record nothing there, "
        "exclude its tables: '!name'",
        _place(section, "models", "0"),
        dialect,
    )


def _place(section: CaptureSection, setting: str, key: str) -> str:
    """Return the setting, with the file and line that it was read from as far as that is known."""
    name = f"sqlalchemy.{setting}"
    try:
        loaded = load()
        place = loaded.where("sqlalchemy", setting, key) if loaded.config.sqlalchemy == section else ""
    except faults():  # the file is another one by now
        place = ""
    return f"{place}: {name}" if place else name


def _hint(pattern: str, subjects: Iterable[Subject]) -> str:
    dotted = pattern.count(".") > 1
    names = dict.fromkeys(
        name
        for subject in subjects
        for name in ((subject.path,) if dotted else (subject.label, *subject.tables))
        if name
    )
    near = get_close_matches(pattern, list(names), n=1, cutoff=0.5)
    if near:
        return f"write {near[0]!r} if that is meant"
    return "write package.Class as in shop.Order, the path of a class, or the name of a table, with * and ?"
