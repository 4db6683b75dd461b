"""Seals by themselves: one canonical text, a signature that breaks with any change, keys that nobody overwrites."""

from __future__ import annotations

import json
import stat
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.seal import (
    Seal,
    SealedHead,
    SealError,
    Statement,
    create_key,
    fingerprint,
    raw_public_key,
    read_private_key,
    read_public_key,
    write_new_file,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STATEMENT = Statement(
    uuid.UUID(int=7),
    1,
    datetime(2026, 3, 1, 9, 30, tzinfo=UTC),
    {1: SealedHead(12, b"\x01" * 32), 0: SealedHead(0, b"\x02" * 32)},
    b"",
)


def sign(statement: Statement) -> Seal:
    document = statement.to_document()
    return Seal(document, KEY.sign(document.encode()), raw_public_key(KEY.public_key()))


def test_the_document_is_canonical_json() -> None:
    """Keys in order, no spaces, books in order: whoever writes the same statement writes the same bytes."""
    assert STATEMENT.to_document() == (
        '{"books":[{"book":0,"hash":"' + "02" * 32 + '","number":0},{"book":1,"hash":"' + "01" * 32 + '","number":12}],'
        '"format":"tallypoint-seal-1","ledger_id":"00000000-0000-0000-0000-000000000007","number":1,'
        '"previous_sha256":"","sealed_at":"2026-03-01T09:30:00.000000+00:00"}'
    )


def test_a_seal_reads_back_what_was_stated() -> None:
    assert Seal.from_json(sign(STATEMENT).to_json()).read() == STATEMENT


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda s: replace(s, document=s.document.replace(":12}", ":11}")), id="document"),
        pytest.param(lambda s: replace(s, signature=bytes((s.signature[0] ^ 1,)) + s.signature[1:]), id="signature"),
        pytest.param(lambda s: replace(s, signature=b""), id="no signature"),
        pytest.param(lambda s: replace(s, public_key=bytes(32)), id="key"),
        pytest.param(lambda s: replace(s, public_key=b"short"), id="no key"),
    ],
)
def test_a_changed_seal_is_refused(change: Callable[[Seal], Seal]) -> None:
    with pytest.raises(SealError, match="signature does not belong"):
        change(sign(STATEMENT)).read()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"document": "x", "signature": "zz", "public_key": ""}', '{"document": "x", "signature": ""}'],
)
def test_what_is_no_seal_file_is_refused(text: str) -> None:
    with pytest.raises(SealError, match="not a seal file"):
        Seal.from_json(text)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param({"format": "tallypoint-seal-9"}, "tallypoint-seal-9", id="a later format"),
        pytest.param({"format": "tallypoint-seal-1"}, "cannot be read", id="fields missing"),
    ],
)
def test_a_signed_document_of_another_format_is_refused(content: dict[str, str], words: str) -> None:
    document = json.dumps(content)
    with pytest.raises(SealError, match=words):
        Seal(document, KEY.sign(document.encode()), raw_public_key(KEY.public_key())).read()


def test_a_new_key_is_for_its_owner_only_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "seal.pem"
    public_key = create_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_public_key(tmp_path / "seal.pem.pub") == public_key
    assert raw_public_key(read_private_key(path).public_key()) == public_key
    before = path.read_bytes()
    with pytest.raises(SealError, match="exists already"):
        create_key(path)
    (tmp_path / "seal.pem.pub").unlink()
    with pytest.raises(SealError, match="exists already"):
        create_key(path)
    assert path.read_bytes() == before


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "seal.pem"
    create_key(path)
    path.chmod(0o640)
    with pytest.raises(SealError, match="chmod 600"):
        read_private_key(path)


@pytest.mark.parametrize("read", [read_private_key, read_public_key])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(None, "cannot be read", id="missing"),
        pytest.param(b"nonsense", "PEM", id="not PEM"),
        pytest.param("elliptic", "Ed25519", id="another algorithm"),
    ],
)
def test_what_is_no_key_is_refused(
    tmp_path: Path, read: Callable[[Path], object], content: bytes | str | None, words: str
) -> None:
    path = tmp_path / "key.pem"
    if content == "elliptic":
        other = ec.generate_private_key(ec.SECP256R1())
        content = other.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        if read is read_private_key:
            content = other.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
    if isinstance(content, bytes):
        write_new_file(path, content, 0o600)
    with pytest.raises(SealError, match=words):
        read(path)


def test_fingerprints_tell_keys_apart() -> None:
    assert fingerprint(bytes(32)) != fingerprint(b"\x01" + bytes(31))
    assert len(fingerprint(bytes(32)).split()) == 8
