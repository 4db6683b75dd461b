"""Seals: signed statements of where every book ended, kept outside the ledger's database.

A hash chain shows that nothing inside a book was changed, but whoever can write the whole database can cut off a tail,
or write a book anew from its first entry. A seal names the newest entry of every book by number and hash, is signed
with a key that the database never sees, and names the seal before it by hash. What it says of an entry can be held
against the ledger for ever, since entries never change.

The document is canonical JSON: UTF-8, keys in alphabetical order, no spaces. The Ed25519 signature is over its bytes.
A seal file is a JSON object with ``document`` (as text, byte for byte what was signed), ``signature`` and
``public_key`` (both in hexadecimal).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ledger.reading.journal import read_heads, read_ledger_id

FORMAT = "tallypoint-seal-1"
_PRIVATE_MODE = 0o600
_PUBLIC_MODE = 0o644

# Read the hashes of some entries, to hold them against what was sealed.
READ_HASHES = """
SELECT e.book, e.number, e.hash FROM unnest($1::integer[], $2::bigint[]) AS s (book, number)
JOIN ledger.entry e ON e.book = s.book AND e.number = s.number
"""


class SealError(Exception):
    """A key or a seal cannot be used; the message says why and what to do."""


class SealedHead(NamedTuple):
    """The newest entry of a book when the seal was made; number 0 and the genesis hash for an empty book."""

    number: int
    hash: bytes


class Finding(NamedTuple):
    """Something that does not fit a seal. ``book`` is None when it is about the seals themselves.

    ``number`` is the first entry of ``book`` of which the seal shows that it is wrong or missing.
    """

    book: int | None
    number: int
    what: str

    def __str__(self) -> str:
        """Return a sentence for people."""
        return self.what if self.book is None else f"book {self.book}, entry {self.number}: {self.what}"


@dataclass(frozen=True, slots=True)
class Seal:
    """A signed document. ``signature`` has 64 bytes, ``public_key`` the 32 bytes of an Ed25519 key."""

    document: str
    signature: bytes
    public_key: bytes

    @property
    def sha256(self) -> bytes:
        """The hash under which the next seal names this one."""
        return hashlib.sha256(self.document.encode()).digest()

    def read(self) -> Statement:
        """Return what the document says, after checking the signature with the seal's own key.

        Raises:
            SealError: if the signature is not of this document and key, or the document is not of this format.
        """
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(self.signature, self.document.encode())
        except (InvalidSignature, ValueError):
            raise SealError("the signature does not belong to this document and key: one of them was changed") from None
        return _read_document(self.document)

    def to_json(self) -> str:
        """Return the contents of a seal file."""
        fields = {"document": self.document, "signature": self.signature.hex(), "public_key": self.public_key.hex()}
        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str) -> Seal:
        """Read the contents of a seal file.

        Raises:
            SealError: if it is not a seal file.
        """
        try:
            fields = json.loads(text)
            return Seal(
                str(fields["document"]), bytes.fromhex(fields["signature"]), bytes.fromhex(fields["public_key"])
            )
        except (ValueError, KeyError, TypeError) as error:
            raise SealError(f"this is not a seal file: {type(error).__name__}: {error}") from None


@dataclass(frozen=True, slots=True)
class Statement:
    """What a seal states: at ``sealed_at`` the books of this ledger ended with these entries.

    ``number`` counts seals from 1; ``previous_sha256`` is empty in the first.
    """

    ledger_id: uuid.UUID
    number: int
    sealed_at: datetime
    books: Mapping[int, SealedHead]
    previous_sha256: bytes

    def to_document(self) -> str:
        """Return the canonical JSON text."""
        content = {
            "books": [
                {"book": book, "hash": head.hash.hex(), "number": head.number}
                for book, head in sorted(self.books.items())
            ],
            "format": FORMAT,
            "ledger_id": str(self.ledger_id),
            "number": self.number,
            "previous_sha256": self.previous_sha256.hex(),
            "sealed_at": self.sealed_at.isoformat(timespec="microseconds"),
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _read_document(document: str) -> Statement:
    try:
        content: Any = json.loads(document)
        if content["format"] != FORMAT:
            raise SealError(f"its format is {content['format']!r}, and this version reads {FORMAT!r}")
        return Statement(
            uuid.UUID(content["ledger_id"]),
            int(content["number"]),
            datetime.fromisoformat(content["sealed_at"]),
            {int(b["book"]): SealedHead(int(b["number"]), bytes.fromhex(b["hash"])) for b in content["books"]},
            bytes.fromhex(content["previous_sha256"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise SealError(f"its document cannot be read: {type(error).__name__}: {error}") from None


# --- keys ---------------------------------------------------------------------------------------------------------


def create_key(path: Path) -> bytes:
    """Write a new private key to ``path`` (PEM, readable by its owner only) and its public key to ``path``.pub.

    Returns:
        The public key's 32 bytes.

    Raises:
        SealError: if one of the files exists already, or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    public_path = path.with_name(path.name + ".pub")
    if public_path.exists():
        raise SealError(f"{public_path} exists already: give the new key another name, and keep the old public key")
    write_new_file(path, secret, _PRIVATE_MODE)
    write_new_file(public_path, public, _PUBLIC_MODE)
    return raw_public_key(key.public_key())


def write_new_file(path: Path, content: bytes, mode: int = _PUBLIC_MODE) -> None:
    """Write a file that must not exist, durably.

    Raises:
        SealError: if it exists, or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise SealError(f"{path} exists already, and is not overwritten: choose another name") from None
    except OSError as error:
        raise SealError(f"{path} cannot be written: {error.strerror}") from None


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read the key with which seals are signed.

    Raises:
        SealError: if it cannot be read, others than its owner may read it, or it is not an Ed25519 key.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise SealError(f"others may read {path}: run `chmod 600 {path}`, or make a new key if they have")
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise SealError(f"{path} cannot be read: {error.strerror}; `tallypoint ledger seal-key` makes a key") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SealError(f"{path} is not an unencrypted private key in PEM form") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SealError(f"{path} is not an Ed25519 key; `tallypoint ledger seal-key` makes one")
    return key


def read_public_key(path: Path) -> bytes:
    """Return the 32 bytes of the public key in a PEM file.

    Raises:
        SealError: if it cannot be read or is not an Ed25519 public key.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise SealError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise SealError(f"{path} is not a public key in PEM form") from None
    if not isinstance(key, Ed25519PublicKey):
        raise SealError(f"{path} is not an Ed25519 key")
    return raw_public_key(key)


def raw_public_key(key: Ed25519PublicKey) -> bytes:
    """Return the 32 bytes of a public key."""
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def fingerprint(public_key: bytes) -> str:
    """Return what people compare keys by: the first 16 bytes of the key's SHA-256, in groups."""
    digest = hashlib.sha256(public_key).hexdigest()[:32]
    return " ".join(digest[start : start + 4] for start in range(0, len(digest), 4))


# --- sealing and checking -----------------------------------------------------------------------------------------


async def make_seal(
    conn: asyncpg.Connection, key: Ed25519PrivateKey, sealed_at: datetime, previous: Seal | None
) -> Seal:
    """Sign the heads of all books, read in one statement. ``previous`` is the newest seal that there is.

    Raises:
        SealError: if the ledger does not fit the previous seal, or a head names no entry: a seal on top would hide it.
    """
    statement = None if previous is None else previous.read()
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        heads = {book: SealedHead(head.number, head.hash) for book, head in (await read_heads(conn)).items()}
        made = Statement(
            await read_ledger_id(conn),
            1 if statement is None else statement.number + 1,
            sealed_at,
            heads,
            b"" if previous is None else previous.sha256,
        )
        for earlier in (made,) if statement is None else (statement, made):
            findings = await _check_statement(conn, earlier)
            if findings:
                raise SealError(f"not sealed: {findings[0]}. Run `tallypoint ledger verify`")
    document = made.to_document()
    return Seal(document, key.sign(document.encode()), raw_public_key(key.public_key()))


async def check_seals(
    conn: asyncpg.Connection, seals: Sequence[Seal], trusted_keys: Sequence[bytes], *, complete: bool = False
) -> list[Finding]:
    """Hold seals against each other and against the ledger; return what does not fit, oldest seal first.

    With ``trusted_keys`` (32 bytes each) every seal must be signed by one of them. With ``complete`` the seals must be
    all there ever were: numbers from 1 without a gap. The same seal may come several times, from several places.
    """
    findings: list[Finding] = []
    by_number: dict[int, tuple[Seal, Statement]] = {}
    for seal in seals:
        try:
            statement = seal.read()
        except SealError as error:
            findings.append(Finding(None, 0, f"a seal is not genuine: {error}"))
            continue
        if trusted_keys and seal.public_key not in trusted_keys:
            signer = fingerprint(seal.public_key)
            findings.append(Finding(None, 0, f"seal {statement.number} is signed by another key ({signer})"))
            continue
        known = by_number.setdefault(statement.number, (seal, statement))
        if known[0].document != seal.document:
            findings.append(Finding(None, 0, f"there are two different seals with number {statement.number}"))
    ordered = [by_number[number] for number in sorted(by_number)]
    findings += _check_chain(ordered, complete=complete)
    for _, statement in ordered:
        findings += await _check_statement(conn, statement)
    return findings


def _check_chain(seals: Sequence[tuple[Seal, Statement]], *, complete: bool) -> list[Finding]:
    """Check that each seal names the one before it, and that no book ever went back."""
    findings = []
    numbers = [statement.number for _, statement in seals]
    if complete and numbers != list(range(1, len(numbers) + 1)):
        missing = min(set(range(1, numbers[-1])) - set(numbers), default=numbers[-1])
        findings.append(Finding(None, 0, f"seal {missing} is missing"))
    if seals and numbers[0] == 1 and seals[0][1].previous_sha256:
        findings.append(Finding(None, 0, "seal 1 names a seal before it, and there is none"))
    for (before, earlier), (_, later) in itertools.pairwise(seals):
        if later.number == earlier.number + 1 and later.previous_sha256 != before.sha256:
            findings.append(Finding(None, 0, f"seal {later.number} does not follow seal {earlier.number}"))
        for book, head in sorted(earlier.books.items()):
            if book in later.books and later.books[book].number < head.number:
                what = f"seal {later.number} has fewer entries than seal {earlier.number}"
                findings.append(Finding(book, later.books[book].number + 1, what))
    return findings


async def _check_statement(conn: asyncpg.Connection, statement: Statement) -> list[Finding]:
    """Check that every sealed entry still stands in the ledger with the sealed hash."""
    ledger_id = await read_ledger_id(conn)
    place = f"seal {statement.number} of {statement.sealed_at:%Y-%m-%d %H:%M:%S} UTC"
    if statement.ledger_id != ledger_id:
        return [Finding(None, 0, f"{place} is of ledger {statement.ledger_id}, and this is ledger {ledger_id}")]
    heads = await read_heads(conn)
    sealed = {book: head for book, head in statement.books.items() if head.number > 0}
    rows = await conn.fetch(READ_HASHES, list(sealed), [head.number for head in sealed.values()])
    hashes = {row["book"]: row["hash"] for row in rows}
    findings = []
    for book, head in sorted(statement.books.items()):
        ends = heads[book].number if book in heads else 0
        if book not in heads:
            findings.append(Finding(book, 1, f"the book is lost; {place} saw {head.number} entries in it"))
        elif ends < head.number:
            what = f"the tail is cut off: the book ends at entry {ends}, and {place} saw {head.number}"
            findings.append(Finding(book, ends + 1, what))
        elif head.number and book not in hashes:
            findings.append(Finding(book, head.number, f"the entry is missing; {place} saw it"))
        elif head.number and hashes[book] != head.hash:
            what = f"this entry, or one before it, was written anew: its hash is not the one in {place}"
            findings.append(Finding(book, head.number, what))
    return findings
