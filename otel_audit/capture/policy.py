"""Which tables or models are audited, and how: the configured patterns, decided once per label."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import translate
from typing import Literal, NamedTuple

from otel_audit.config.model import CaptureSection


class TableSettings(NamedTuple):
    """What the configuration says about one table or model.

    ``strategies`` maps field names to redaction strategies, ``ignore`` are patterns of the names of fields
    whose changes do not count; the last that matches decides. ``snapshot``: updates have the whole row.
    """

    audited: bool
    reads: bool
    old_values: Literal["as_loaded", "exact", "off"]
    strategies: Mapping[str, str]
    ignore: tuple[str, ...] = ()
    snapshot: bool = False

    def ignores(self, field: str) -> bool:
        """Say whether a change of this field alone makes no record."""
        return bool(self.ignore) and bool(_Patterns(self.ignore).decide(field))


class KeyStrategies(NamedTuple):
    """How the key of a table is redacted, part by part (empty: by the rules), and fields that hold a key."""

    key: tuple[str, ...] = ()
    fields: Mapping[str, str] = {}


class _Patterns:
    """Patterns over labels; the last one that matches decides, a leading ``!`` says no."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._rules = [
            (re.compile(translate(pattern.removeprefix("!").lower())).match, not pattern.startswith("!"))
            for pattern in patterns
        ]

    def decide(self, label: str) -> bool | None:
        """Say yes or no for ``app_label.Model``, ``None`` where no pattern matches."""
        label = label.lower()
        for match, verdict in reversed(self._rules):
            if match(label):
                return verdict
        return None


class Policy:
    """What the configuration says of every table or model, by label."""

    def __init__(self, config: CaptureSection) -> None:
        self.config = config
        self._models = _Patterns(config.models)
        self._reads = _Patterns(config.reads)
        self._single = [(_Patterns([pattern]), settings) for pattern, settings in config.model.items()]
        self._decided: dict[str, TableSettings] = {}

    @property
    def reads(self) -> bool:
        """Whether the reads of any table are to be recorded."""
        return bool(self.config.reads) or any(single.reads for single in self.config.model.values())

    def known(self, label: str) -> TableSettings | None:
        """Return the settings of ``label`` if they were decided before."""
        return self._decided.get(label)

    def settings(self, label: str, owner: str | None = None) -> TableSettings:
        """Return the settings of ``label``; those of ``owner`` hold where no pattern names it itself."""
        decided = self._decided.get(label)
        if decided is None:
            decided = self._decided[label] = self._decide(label, owner)
        return decided

    def _decide(self, label: str, owner: str | None) -> TableSettings:
        def verdict(patterns: _Patterns) -> bool | None:
            found = patterns.decide(label)
            return patterns.decide(owner) if found is None and owner else found

        reads = verdict(self._reads)
        old_values = self.config.old_values
        strategies: dict[str, str] = {}
        ignore = [*self.config.ignore]
        snapshot = False
        for patterns, single in self._single:
            if not verdict(patterns):
                continue
            reads = single.reads if single.reads is not None else reads
            old_values = single.old_values or old_values
            strategies.update(single.fields)
            ignore += single.ignore
            snapshot = snapshot if single.snapshot is None else single.snapshot
        return TableSettings(
            bool(verdict(self._models)), bool(reads), old_values, strategies, tuple(ignore), snapshot
        )
