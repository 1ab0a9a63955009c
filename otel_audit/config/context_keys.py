"""The keys of signed contexts, from the configuration and from a file beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from otel_audit.config.model import ContextConfig
from otel_audit.named_tuples import NamedTuple

_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}").fullmatch
_SHORTEST: Final = 32
_LARGEST_FILE: Final = 64 * 1024


class Keys(NamedTuple):
    """Secrets by key id, the id of the key that signs, and what is wrong with the others.

    No problem names a secret.
    """

    secrets: dict[str, str]
    signing: str
    problems: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Keys({sorted(self.secrets)}, signing={self.signing!r}, problems={self.problems!r})"


def read_keys(config: ContextConfig) -> Keys:
    """Read the keys of a configuration; what cannot be used is left out and said."""
    secrets = dict(config.keys)
    problems: list[str] = []
    if config.keys_file:
        for name, secret in _in_file(Path(config.keys_file), problems):
            if name in secrets and secrets[name] != secret:
                problems.append(
                    f"the key {name!r} is set twice with different values, in context.keys and in "
                    f"{config.keys_file}: the one of context.keys is used"
                )
            secrets.setdefault(name, secret)
    accepted: dict[str, str] = {}
    for number, (name, secret) in enumerate(secrets.items(), 1):
        problem = key_problem(name, secret, number)
        if problem:
            problems.append(problem)
        else:
            accepted[name] = secret
    signing = _signing(config, accepted, problems)
    return Keys(accepted, signing, tuple(problems))


def key_problem(name: str, secret: str, number: int) -> str:
    """Say what is wrong with a key, by its number if its id is not one; empty if nothing is."""
    if _ID(name) is None:  # not shown: whoever has the two the wrong way round wrote a secret
        return (
            f"key number {number} has no valid id: write id=secret, with an id of 1 to 32 letters, digits "
            "and the characters . _ -"
        )
    if len(secret) < _SHORTEST:
        return (
            f"the secret of the key {name!r} has {len(secret)} characters; at least {_SHORTEST} are required "
            "(openssl rand -base64 32)"
        )
    return ""


def _signing(config: ContextConfig, accepted: dict[str, str], problems: list[str]) -> str:
    if config.signing_key:
        if config.signing_key not in accepted:
            problems.append(f"context.signing_key is {config.signing_key!r}, and there is no such key")
        return config.signing_key if config.signing_key in accepted else ""
    if len(accepted) == 1:
        return next(iter(accepted))
    if accepted and (config.propagate_to or config.queues):
        problems.append(
            f"there are {len(accepted)} keys: set context.signing_key to the id of the one that signs "
            f"({', '.join(sorted(accepted))})"
        )
    return ""


def _in_file(path: Path, problems: list[str]) -> Iterator[tuple[str, str]]:
    """Read ``id=secret`` line by line; ``#`` begins a comment on a line of its own."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_FILE + 1).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        problems.append(f"context.keys_file {str(path)!r} cannot be read: {reason}")
        return
    if len(text) > _LARGEST_FILE:
        problems.append(f"context.keys_file {str(path)!r} is larger than {_LARGEST_FILE} bytes")
        return
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, secret = line.partition("=")
        if not equals:
            problems.append(f"{path}:{number}: write id=secret")
            continue
        yield name.strip(), secret.strip()
