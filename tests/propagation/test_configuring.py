"""Hosts and keys as they are written: what is wrong is told, no secret is shown, and keys can be rotated."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
from hypothesis import given, strategies

from otel_audit.config.context_keys import read_keys
from otel_audit.config.host_patterns import Hosts, address_of, host_problem
from otel_audit.config.loader import load
from otel_audit.config.model import AuditConfig, ContextConfig
from otel_audit.errors import ConfigurationError
from otel_audit.propagation import acceptance
from otel_audit.propagation.outgoing import Destination, Outgoing

SECRET = "c2VjcmV0LW9mLXRoZS1zaG9wLWFuZC1mdWxmaWxtZW50"
NEXT = SECRET[::-1]


@pytest.mark.parametrize(
    ("entry", "host", "port", "included"),
    [
        ("fulfilment", "fulfilment", 80, True),
        ("fulfilment", "FULFILMENT.", 443, True),
        ("fulfilment", "fulfilment.internal", 80, False),
        ("fulfilment", "xfulfilment", 80, False),
        ("fulfilment:8001", "fulfilment", 8001, True),
        ("fulfilment:8001", "fulfilment", 80, False),
        ("Fulfilment.Internal", "fulfilment.internal", 80, True),
        ("*.internal", "a.internal", 80, True),
        ("*.internal", "a.b.internal", 80, True),
        ("*.internal", "internal", 80, False),
        ("*.internal", "ainternal", 80, False),
        ("*.internal", "a.internal.evil.example", 80, False),
        ("*.internal:8001", "a.internal", 8001, True),
        ("*.internal:8001", "a.internal", 8002, False),
        ("10.0.0.7", "10.0.0.7", 80, True),
        ("10.0.0.7", "10.0.0.70", 80, False),
        ("[::1]:8001", "::1", 8001, True),
        ("[::1]:8001", "[0:0::1]", 8001, True),
        ("::1", "::1", 1, True),
        ("müller.example", "xn--mller-kva.example", 80, True),
        ("müller.example", "müller.example", 80, True),
    ],
)
def test_an_entry_means_a_host_a_port_of_it_or_all_below_a_domain(
    entry: str, host: str, port: int, included: bool
) -> None:
    assert host_problem(entry) == ""
    assert Hosts([entry]).includes(host, port) is included
    assert Hosts([entry]).includes_address(address_of(host, port)) is included


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("https://fulfilment", "without scheme and path"),
        ("fulfilment/api", "without scheme and path"),
        ("user:hunter2@fulfilment", "without user and password"),
        ("*", "names no host"),
        ("", "names no host"),
        ("*.com", "every host below .com"),
        ("api.*", "only at the beginning"),
        ("*fulfilment", "only at the beginning"),
        ("*.*.internal", "only at the beginning"),
        ("fulfilment:", "port is not a number"),
        ("fulfilment:http", "port is not a number"),
        ("fulfilment:0", "port is not a number"),
        ("fulfilment:65536", "port is not a number"),
        ("a b", "is not a host"),
        ("a..b", "is not a host"),
        ("[::1", "is not a host"),
        ("1:2:3", "is not a host"),
        ("*.::1", "is not a host"),
        ("-a", "is not a host"),
    ],
)
@pytest.mark.parametrize("key", ["propagate_to", "audience"])
def test_an_entry_that_is_no_host_is_told_with_its_place(
    tmp_path: Path, key: str, entry: str, told: str
) -> None:
    file = tmp_path / "otel-audit.toml"
    file.write_text(f'[context]\n{key} = ["fulfilment", "{entry}"]\n')
    with pytest.raises(ConfigurationError) as refused:
        load(file, environ={})
    assert told in str(refused.value)
    assert f"otel-audit.toml:2: context.{key}" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@given(strategies.text())
def test_any_text_is_an_entry_or_told_to_be_none(entry: str) -> None:
    hosts = Hosts([entry])
    assert bool(hosts) == (host_problem(entry) == "")
    assert not hosts.includes("third-party.example", 443) or "third-party.example" in entry.lower()
    hosts.includes(entry, 80)
    hosts.includes_address(entry)


def configured(tmp_path: Path, text: str, **environ: str) -> ContextConfig:
    file = tmp_path / "otel-audit.toml"
    file.write_text(text)
    return load(file, environ=environ).config.context


def test_keys_come_from_variables_and_from_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"# of November\nk1 = {SECRET}\n\nk2={NEXT}=\n")
    context = configured(
        tmp_path,
        '[context]\nkeys_file = "keys"\nsigning_key = "k3"\n',
        OTEL_AUDIT_CONTEXT_KEYS=f"k3={SECRET}==,k4={NEXT}",
    )
    keys = read_keys(context)
    assert keys.secrets == {"k1": SECRET, "k2": f"{NEXT}=", "k3": f"{SECRET}==", "k4": NEXT}
    assert (keys.signing, keys.problems) == ("k3", ())


@pytest.mark.parametrize(
    ("context", "told"),
    [
        ({"keys_file": "/nonexistent/keys"}, "/nonexistent/keys' cannot be read: No such file"),
        ({"keys_file": "{}/binary"}, "not UTF-8"),
        ({"keys_file": "{}/wrong"}, "wrong:2: write id=secret"),
        ({"keys_file": "{}/short"}, "'k1' has 9 characters; at least 32"),
        ({"keys_file": "{}/huge"}, "larger than"),
        ({"keys": {"k1": SECRET}, "signing_key": "k2"}, "'k2', and there is no such key"),
        ({"keys": {"k1": SECRET, "k2": NEXT}, "propagate_to": ["a"]}, "set context.signing_key"),
        ({"keys": {"k1": NEXT}, "keys_file": "{}/good"}, "set twice with different values"),
        ({"keys": {SECRET: "k1"}}, "key number 1 has no valid id"),
    ],
)
def test_what_is_wrong_with_keys_is_told_without_showing_one(
    tmp_path: Path, context: dict[str, object], told: str
) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "wrong").write_text(f"k1={SECRET}\n{SECRET}\n")
    (tmp_path / "short").write_text("k1=too short\n")
    (tmp_path / "huge").write_text("#" * 100_000)
    (tmp_path / "good").write_text(f"k1={SECRET}\n")
    options = {
        name: value.format(tmp_path) if isinstance(value, str) else value for name, value in context.items()
    }
    keys = read_keys(ContextConfig(**options))  # type: ignore[arg-type]
    assert told in "\n".join(keys.problems)
    assert SECRET not in str(keys.problems)
    assert "too short" not in str(keys.problems)
    assert SECRET not in repr(keys)


@pytest.mark.parametrize("text", [f'k1 = "{SECRET[:20]}"', f'"{SECRET}" = "k1"'])
def test_a_wrong_key_in_the_configuration_is_an_error_that_shows_no_secret(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"otel-audit.toml:.*context.keys") as refused:
        configured(tmp_path, f"[context.keys]\n{text}\n")
    assert SECRET[:20] not in str(refused.value)


def test_keys_are_rotated_without_a_call_that_is_not_accepted() -> None:
    """Add the new key to both, sign with it, remove the old one, as docs/propagation.md says."""
    old, both, new = {"k1": SECRET}, {"k1": SECRET, "k2": NEXT}, {"k2": NEXT}
    import otel_audit

    def call(shop: ContextConfig, fulfilment: dict[str, str]) -> bool:
        outgoing = Outgoing.of(AuditConfig(context=shop))
        accepts = acceptance(AuditConfig(context=ContextConfig(keys=fulfilment, audience=["fulfilment"])))
        assert outgoing is not None
        assert accepts is not None
        with otel_audit.context(actor="7"):
            header = outgoing.header(Destination("http", "fulfilment", 80))
        return accepts.accepted(header or "") is not None

    to = ["fulfilment"]
    assert call(ContextConfig(keys=old, propagate_to=to), old)
    assert call(ContextConfig(keys=old, propagate_to=to), both)
    assert call(ContextConfig(keys=both, signing_key="k1", propagate_to=to), both)
    assert call(ContextConfig(keys=both, signing_key="k2", propagate_to=to), both)
    assert call(ContextConfig(keys=new, propagate_to=to), both)
    assert call(ContextConfig(keys=new, propagate_to=to), new)
    assert not call(ContextConfig(keys=new, propagate_to=to), old), "in another order a call would be refused"


def test_a_context_is_signed_anew_for_each_call_and_expires() -> None:
    import otel_audit

    context = ContextConfig(keys={"k1": SECRET}, propagate_to=["fulfilment"], audience=["fulfilment"])
    outgoing, accepts = Outgoing.of(AuditConfig(context=context)), acceptance(AuditConfig(context=context))
    assert outgoing is not None
    assert accepts is not None
    with otel_audit.context(actor="7"):
        outgoing._now = lambda: time.time() - 3600
        header = outgoing.header(Destination("http", "fulfilment", 80))
    assert header
    assert accepts.accepted(header) is None


def test_propagate_is_still_read_and_said_to_have_no_effect(tmp_path: Path) -> None:
    file = tmp_path / "otel-audit.toml"
    file.write_text("[context]\npropagate = true\n")
    [note] = [each for each in load(file, environ={}).notes if "has no effect" in each]
    assert "otel-audit.toml:2" in note
    assert "propagate_to" in note
    file.write_text("[context]\npropagate = false\n")
    assert not [each for each in load(file, environ={}).notes if "has no effect" in each]


@pytest.mark.parametrize(
    ("context", "told"),
    [
        ({"propagate_to": ["fulfilment"]}, "No outgoing call says who acts"),
        ({"audience": ["fulfilment"]}, "No signed context is accepted"),
    ],
)
def test_a_start_without_a_key_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, context: dict[str, list[str]], told: str
) -> None:
    import otel_audit
    from otel_audit.config.model import SinkConfig, SpoolConfig

    config = AuditConfig(
        context=ContextConfig(**context),  # type: ignore[arg-type]
        spool=SpoolConfig(directory=str(tmp_path)),
        sink=SinkConfig(endpoint="http://127.0.0.1:1/v1/audit", shutdown_timeout=0),
    )
    with caplog.at_level(logging.WARNING):
        otel_audit.setup(config)
        otel_audit.shutdown()
    assert told in caplog.text
