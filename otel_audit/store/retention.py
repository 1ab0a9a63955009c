"""How long each log is kept, and when it moves to slower disks: the engine deletes and moves itself (TTL).

Only what was asked for: a log that nobody named is kept for ever, whatever is done to the others. A record
that was sent to the landing table of another log lies in ``other_events``, and is kept as long as those of
its own log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from otel_audit.config.model import StoreConfig
from otel_audit.errors import ConfigurationError
from otel_audit.store import schema
from otel_audit.store.layout import Layout
from otel_audit.store.tables import METRICS_KEPT

FOREVER: Final = "forever"
SPANS: Final = "traces"
ORDINARY: Final = "logs"
MEASURED: Final = "metrics"
"""What else can be given a time, beside the logs: spans, logs that are no audit records, and our metrics."""
COLD_VOLUME: Final = "cold"

_AGE: Final = re.compile(r"([1-9]\d{0,5})\s*(h|d|w|mo|y)")
_UNITS: Final = {"h": "HOUR", "d": "DAY", "w": "WEEK", "mo": "MONTH", "y": "YEAR"}
_POLICY: Final = re.compile(r"[A-Za-z_]\w*")


class Retention(msgspec.Struct, frozen=True):
    """By log, the age at which records are deleted, and at which they move to the volume ``cold``.

    An age is ``90d``, ``18mo``, ``7y``, also ``h`` and ``w``; ``forever`` takes a former one back.
    """

    delete: dict[str, str] = {}
    cold: dict[str, str] = {}
    policy: str = ""

    @classmethod
    def parse(
        cls, delete: Mapping[str, str], cold: Mapping[str, str] | None = None, policy: str = ""
    ) -> Retention:
        """Check what a user wrote.

        Raises:
            ConfigurationError: an unknown log or an age that is none; says what is valid.
        """
        if policy and not _POLICY.fullmatch(policy):
            raise ConfigurationError(
                f"storage policy {policy!r} is not a valid name; use letters, digits and _"
            )
        if cold and not policy:
            raise ConfigurationError(
                "cold storage needs a storage policy with a volume named cold: set its name with "
                "--storage-policy or `storage_policy` in [store]"
            )
        return cls(
            {_log(name): _age(name, age) for name, age in delete.items()},
            {_log(name): _age(name, age) for name, age in (cold or {}).items()},
            policy,
        )

    @classmethod
    def configured(cls, config: StoreConfig) -> Retention:
        """Take what the ``store`` section of a configuration says.

        Raises:
            ConfigurationError: it names a log that does not exist.
        """
        return cls.parse(config.retention, config.cold_after, config.storage_policy)

    @classmethod
    def noted(cls, journal: Mapping[str, Mapping[str, str]]) -> Retention:
        """Read what was applied before, from the journal by kind and name."""
        return cls(
            dict(journal.get("retention", {})),
            dict(journal.get("cold", {})),
            journal.get("storage", {}).get("policy", ""),
        )

    def notes(self) -> Iterator[tuple[str, str, str]]:
        """Return what the journal keeps: kind, name and value."""
        yield from (("retention", name, age) for name, age in self.delete.items())
        yield from (("cold", name, age) for name, age in self.cold.items())
        if self.policy:
            yield "storage", "policy", self.policy

    def overlaid(self, other: Retention) -> Retention:
        """Return this one, with what the other one names instead."""
        return Retention(self.delete | other.delete, self.cold | other.cold, other.policy or self.policy)

    def statements(self, before: Retention, layout: Layout, there: frozenset[str]) -> list[str]:
        """Return what has to be run where ``before`` is applied to the tables that are ``there``."""
        found: list[str] = []
        old, new = before.clauses(), self.clauses()
        for table, clause in new.items():
            stored = layout.stored(table)
            name = f"ALTER TABLE {layout.name(stored)}{layout.on_cluster}"
            made = NOTHING.clauses()[table]
            applied, policy = (old[table], before.policy) if stored in there else (made, "")
            if self.policy != policy:
                found.append(f"{name} MODIFY SETTING storage_policy = '{self.policy}'")
            if clause != applied:
                found.append(f"{name} MODIFY TTL {clause}" if clause else f"{name} REMOVE TTL")
        return found

    def clauses(self) -> dict[str, str]:
        """Return the TTL of every table, empty where all is kept."""
        own = {log.name for log in schema.LOGS if log.name != schema.OTHER_LOG}
        # DateTime64 as it is: made a DateTime, the time of a clock that is far ahead would wrap into the
        # past, and the record be deleted at once.
        tables = {
            schema.events(name): list(self._rules(name, "timestamp")) for name in (*own, schema.OTHER_LOG)
        }
        others = ", ".join(f"'{name}'" for name in sorted(own))
        tables[schema.events(schema.OTHER_LOG)] = [
            *self._rules(schema.OTHER_LOG, "timestamp", f"log NOT IN ({others})"),
            *(
                rule
                for name in sorted(own)
                for rule in self._rules(name, "timestamp", f"log = '{name}'", moves=False)
            ),
        ]
        tables[schema.LOGS_TABLE] = list(self._rules(ORDINARY, "Timestamp"))
        tables[schema.TRACES] = list(self._rules(SPANS, "Timestamp"))
        tables[schema.TRACE_TIMES] = list(self._rules(SPANS, "Start"))
        tables[schema.METRICS] = list(self._rules(MEASURED, "Timestamp"))
        return {table: ", ".join(tables[table]) for table in sorted(tables)}

    def _rules(self, name: str, column: str, which: str = "", *, moves: bool = True) -> Iterator[str]:
        # A move is of whole parts, so it has no condition.
        unless_told = METRICS_KEPT if name == MEASURED else FOREVER
        cold, delete = self.cold.get(name, FOREVER), self.delete.get(name, unless_told)
        if moves and cold != FOREVER:
            yield f"{column} + {_interval(cold)} TO VOLUME '{COLD_VOLUME}'"
        if delete != FOREVER:
            yield f"{column} + {_interval(delete)} DELETE" + (f" WHERE {which}" if which else "")

    def __str__(self) -> str:
        parts = [f"{name} {age}" for name, age in self.delete.items()]
        parts += [f"{name} cold after {age}" for name, age in self.cold.items()]
        parts += [f"storage policy {self.policy}"] if self.policy else []
        return ", ".join(parts)


NOTHING: Final = Retention()


def pairs(option: str, given: Iterable[str]) -> dict[str, str]:
    """Take ``LOG=AGE`` texts apart.

    Raises:
        ConfigurationError: one has no ``=``.
    """
    found = {}
    for each in given:
        name, equals, age = each.partition("=")
        if not equals:
            raise ConfigurationError(f"{option} {each!r} is not valid; write LOG=AGE, such as activity=90d")
        found[name.strip()] = age.strip()
    return found


def _log(name: str) -> str:
    valid = [*(log.name for log in schema.LOGS), SPANS, ORDINARY, MEASURED]
    if name not in valid:
        raise ConfigurationError(f"there is no log {name!r}; valid logs are {', '.join(valid)}")
    return name


def _age(name: str, text: str) -> str:
    lowered = text.strip().lower()
    if lowered == FOREVER:
        return FOREVER
    found = _AGE.fullmatch(lowered)
    if not found:
        raise ConfigurationError(
            f"the age {text!r} of {name} is not valid; write a number of h, d, w, mo or y, such as 90d "
            f"or 7y, or {FOREVER}"
        )
    return f"{found.group(1)}{found.group(2)}"


def _interval(age: str) -> str:
    found = _AGE.fullmatch(age)
    assert found is not None
    return f"INTERVAL {found.group(1)} {_UNITS[found.group(2)]}"
