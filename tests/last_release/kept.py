"""What was kept of release 0.4: two databases, and all that their service was asked and answered."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import lzma
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import asyncpg
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message
from pydantic import SecretStr
from tallypoint.v1 import checkout_pb2, common_pb2

from proto.generate import RELEASED
from server.base.settings import Settings
from server.base.storage import Dsns
from server.process.opening import bring_up_to_date
from tests.support.database import DatabaseFactory

HERE: Final = Path(__file__).parent
BOOKS: Final = 3

# The roles of the service. They belong to a server and not to a database, so no dump has them.
MAKE_ROLE: Final = """
DO $$ BEGIN
    CREATE ROLE {0} NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$
"""
ROLES: Final = ("tallypoint_owner", "tallypoint_writer", "tallypoint_reader")


@dataclass(frozen=True)
class Call:
    """A call of a register: its name in `history`, what was asked, and the bytes of the answer, None if refused."""

    name: str
    method: str
    store: str
    at: datetime
    request: Any
    answer: bytes | None
    refused: str

    def response(self) -> Any:
        """Return the answer as a message."""
        assert self.answer is not None, self.name
        return getattr(checkout_pb2, f"{self.method}Response").FromString(self.answer)

    @property
    def answer_as_booked(self) -> bytes:
        """The bytes of the answer, but for what is computed anew when a message is sent again."""
        return as_then(self.response())


@cache
def _released_api() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in FileDescriptorSet.FromString(gzip.decompress(RELEASED.read_bytes())).file:
        pool.Add(file)
    return pool


def as_then(answer: Message) -> bytes:
    """Return the bytes of an answer as registers of that release read it: without the fields that they do not know.

    What is judged anew each time is left out: the quote that goes with a hold, and what is refused of a journal.
    """
    then: Any = message_factory.GetMessageClass(_released_api().FindMessageTypeByName(answer.DESCRIPTOR.full_name))()
    then.ParseFromString(answer.SerializeToString())
    then.DiscardUnknownFields()
    name = answer.DESCRIPTOR.name
    if name == "HoldResponse":
        then.ClearField("quote")
    elif name == "CommitBatchResponse":
        _keep(then.results, lambda result: result.HasField("committed"))
    return bytes(then.SerializeToString(deterministic=True))


def _keep(messages: Any, wanted: Callable[[Any], bool]) -> None:
    kept_ones = list(filter(wanted, messages))
    del messages[:]
    messages.extend(kept_ones)


@dataclass(frozen=True)
class Kept:
    """What `make` noted beside the databases."""

    secret_key: str
    until: datetime
    """The last evening."""
    terminal_keys: Mapping[str, str]
    keys: Mapping[str, str]
    """The keys of the back office by role."""
    verdict: str
    """What `ledger verify` of that release printed."""
    seal: str
    seal_public_key: str
    reports: Mapping[str, Mapping[str, str]]
    """Finance's reports as CSV by their names, by the number of the close as of which they are."""
    calls: tuple[Call, ...]

    def call(self, name: str, method: str = "Commit") -> Call:
        """Return a call by its name."""
        (found,) = (call for call in self.calls if (call.name, call.method) == (name, method))
        return found

    def key(self, name: str) -> common_pb2.ReceiptKey:
        """Return the key of a receipt that was sold."""
        key: common_pb2.ReceiptKey = self.call(name).request.receipt_key
        return key

    def settings(self, dsns: Dsns) -> Settings:
        """Return the settings with which today's service opens these databases."""
        return Settings(
            ledger_dsn=SecretStr(dsns.ledger),
            crm_dsn=SecretStr(dsns.crm),
            secret_key=SecretStr(self.secret_key),
            books=BOOKS,
        )


@cache
def kept() -> Kept:
    """Return what was noted."""
    data = json.loads(lzma.decompress((HERE / "made.json.xz").read_bytes()))
    calls = tuple(_call(note) for note in data.pop("calls"))
    return Kept(**{**data, "until": datetime.fromisoformat(data["until"])}, calls=calls)


def _call(note: Mapping[str, str]) -> Call:
    request: Message = getattr(checkout_pb2, f"{note['call']}Request").FromString(base64.b64decode(note["request"]))
    answer = base64.b64decode(note["answer"]) if "answer" in note else None
    at = datetime.fromisoformat(note["at"])
    return Call(note["name"], note["call"], note["store"], at, request, answer, note.get("refused", ""))


@contextmanager
def old_databases(databases: DatabaseFactory) -> Iterator[Dsns]:
    """Restore both databases as that release left them."""
    with databases.fresh() as ledger, databases.fresh() as crm:
        dsns = Dsns(ledger, crm)
        _run(_restore(dsns))
        yield dsns


@contextmanager
def migrated_databases(databases: DatabaseFactory) -> Iterator[Dsns]:
    """Restore both databases and bring them up to date."""
    with old_databases(databases) as dsns:
        _run(bring_up_to_date(dsns, kept().settings(dsns)))
        yield dsns


async def _restore(dsns: Dsns) -> None:
    for name, dsn in (("ledger", dsns.ledger), ("crm", dsns.crm)):
        conn = await asyncpg.connect(dsn)
        try:
            for role in ROLES:
                await conn.execute(MAKE_ROLE.format(role))
            await conn.execute(lzma.decompress((HERE / f"{name}.sql.xz").read_bytes()).decode())
        finally:
            await conn.close()


def _run(work: Any) -> None:
    with ThreadPoolExecutor(1) as thread:  # a test's own event loop may be running in this one
        thread.submit(asyncio.run, work).result()
