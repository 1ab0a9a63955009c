"""A certificate authority for tests, and a certificate of it for 127.0.0.1, made by openssl.

With what RFC 5280 asks for, which Python checks since 3.13.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


class Certificates(NamedTuple):
    """PEM files."""

    authority: Path
    certificate: Path
    key: Path


def make(directory: Path) -> Certificates:
    """Make them in ``directory``."""
    assert shutil.which("openssl"), "openssl makes the certificates: install Debian's package openssl"
    authority, authority_key = directory / "ca.pem", directory / "ca.key"
    certificate, key, request = directory / "server.pem", directory / "server.key", directory / "server.csr"
    names = directory / "names.cnf"
    names.write_text(
        "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    signs = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    signed_by = ("-CA", authority, "-CAkey", authority_key, "-CAcreateserial")
    for command in (
        (
            "req",
            "-x509",
            *_CURVE,
            *signs,
            "-subj",
            "/CN=authority",
            "-keyout",
            authority_key,
            "-out",
            authority,
        ),
        ("req", *_CURVE, "-subj", "/CN=collector", "-keyout", key, "-out", request),
        ("x509", "-req", "-days", "2", "-in", request, "-extfile", names, "-out", certificate, *signed_by),
    ):
        done = subprocess.run(["openssl", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return Certificates(authority, certificate, key)
