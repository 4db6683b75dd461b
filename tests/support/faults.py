"""Faults under load: registers that sell and send again, what strikes meanwhile, and the count of what was promised.

A `Shop` is the load: lanes that sell receipts and behave as registers do (3 s to read, then the same receipt key
again, mostly under a new message id). Everything that was sent and answered is counted in a `Tally`, and `prove`
holds the books against it. The faults themselves are small functions at the end, and `CuttingProxy`.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg
import grpc
from tallypoint.v1 import checkout_pb2, checkout_pb2_grpc, journal_pb2

from ledger.keys import business_key, message_key
from ledger.model import AVAILABLE, DEBT, HELD, ISSUED, PENDING, REDEEMED
from ledger.verify import verify
from server.postgres import EmbeddedPostgres
from server.storage import CRM_DATABASE, LEDGER_DATABASE
from tests.support.crm import caught_up, comparison, eventually
from tests.support.server_process import RunningServer
from tests.support.till import Answer as Refusal
from tests.support.till import Till, answer_of, card, open_till, set_up_store

LANES: Final = 8
MEMBERS: Final = 12
READ_TIMEOUT_SECONDS: Final = 3.0
"""What lanes are set to; then they send the receipt again."""
SCAN_SECONDS: Final = (0.0, 0.03)
"""What a lane needs for the next receipt, so that a machine of two cores has something left for those who recover."""
PATIENCE_SECONDS: Final = 90.0
"""The longest that a receipt may need to its answer, and the shop to the next receipts: PostgreSQL may recover."""
RESEND_PAUSE_SECONDS: Final = (0.02, 0.2)
SAME_MESSAGE_SHARE: Final = 0.2
"""Of all sendings after the first: as the same message; the others as a new message with the same receipt key."""
JOURNAL_CHUNK: Final = 100

_WORTH_SENDING_AGAIN: Final = frozenset(
    (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,  # gRPC says so to a call that arrives in the moment in which a process stops
    )
)
_CHANNEL_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),  # a connection a lane, so that the kernel spreads them over the workers
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_MEMBER_ACCOUNTS: Final = (AVAILABLE, PENDING, HELD, DEBT)

# Read every receipt that is booked, from the journal itself and not from the table of keys.
READ_RECEIPTS = """
SELECT business_key, message_id, book, number, payload FROM ledger.entry WHERE business_key IS NOT NULL
"""

# Count the moments at which a member had less than nothing, from the postings and not from the balances.
COUNT_OVERDRAFTS = """
SELECT count(*) FROM (
    SELECT sum(points_minor) OVER (PARTITION BY book, member_id, unit, account ORDER BY number, ordinal) AS points_minor
    FROM ledger.posting_side WHERE account = ANY ($1::smallint[])
) AS running WHERE points_minor < 0
"""

# Add up what members have now, what was ever issued, and what was ever redeemed, each from its own cache.
READ_TOTALS = """
SELECT (SELECT coalesce(sum(available_minor + pending_minor + held_minor - debt_minor), 0) FROM ledger.balance)::bigint,
       coalesce(sum(debit_minor) FILTER (WHERE account = $1), 0)::bigint,
       coalesce(sum(credit_minor) FILTER (WHERE account = $2), 0)::bigint,
       (SELECT coalesce(sum(points_minor), 0) FROM ledger.posting_side)::bigint
FROM ledger.account_total
"""

# End some of the clients' connections to this server, whatever they are doing.
END_BACKENDS = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM unnest($1::integer[]) AS victim (pid)"

# Find the service's own connections.
READ_BACKENDS = """
SELECT pid FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name LIKE 'tallypoint%' ORDER BY pid
"""

# Count the service's commits that wait for a lock.
COUNT_WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'tallypoint%'
"""


# --- what was promised --------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What a register was told: the entry, and its settlement as bytes."""

    book: int
    number: int
    settlement: bytes


@dataclass(slots=True)
class Slip:
    """One receipt as its register remembers it."""

    message_ids: list[bytes] = field(default_factory=list)
    unstored: set[bytes] = field(default_factory=set)
    """Messages of which the register was told that nothing was stored."""
    answer: Answer | None = None
    answered_message: bytes = b""
    """The message that was answered first."""


@dataclass
class Tally:
    """Counts what was sent, what went wrong, and what was acknowledged."""

    slips: dict[bytes, Slip] = field(default_factory=dict)
    acknowledged: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """Sendings without an answer, by the name of what came instead."""

    def sent(self, key: bytes, message_id: bytes) -> None:
        """Count a sending of the receipt with this business key."""
        slip = self.slips.setdefault(key, Slip())
        slip.message_ids.append(message_id)
        slip.unstored.discard(message_id)

    def failed(self, key: bytes, error: str, *, stored_nothing: bool) -> None:
        """Count a sending that got no answer, and remember whether the receipt's last message is promised unstored."""
        self.errors[error] += 1
        if stored_nothing:
            self.slips[key].unstored.add(self.slips[key].message_ids[-1])

    def answered(self, key: bytes, answer: Answer) -> None:
        """Count an acknowledgement; a receipt that has one already must get the same again."""
        slip = self.slips[key]
        if slip.answer is None:
            slip.answer, slip.answered_message = answer, slip.message_ids[-1]
            self.acknowledged += 1
        assert slip.answer == answer, f"receipt {key.hex()} was told {slip.answer}, and now {answer}"

    def __str__(self) -> str:
        """Say it in one line."""
        sendings = sum(len(slip.message_ids) for slip in self.slips.values())
        return (
            f"{len(self.slips)} receipts in {sendings} sendings, {self.acknowledged} acknowledged, "
            f"errors {dict(self.errors)}"
        )


class Proof(NamedTuple):
    """What `prove` counted."""

    booked: int
    """Receipts in the ledger."""
    answers_lost: int
    """Receipts that an earlier sending had booked than the one that was answered: its answer never arrived."""
    unacknowledged: int
    """Receipts in the ledger that no register was told of."""


async def prove(ledger_dsn: str, tally: Tally, crm_dsn: str | None = None) -> Proof:
    """Hold the books, and the CRM database once it has caught up, against what registers were told.

    Raises:
        AssertionError: Something acknowledged is missing, doubled or different, or the books are not sound.
    """
    conn = await asyncpg.connect(ledger_dsn)
    try:
        rows = await conn.fetch(READ_RECEIPTS)
        problems = [*_broken_promises(rows, tally), *await _unsound_books(conn, rows)]
    finally:
        await conn.close()
    if crm_dsn is not None:
        await caught_up(ledger_dsn, crm_dsn)
        compared = await comparison(ledger_dsn, crm_dsn)
        problems += [f"the CRM database differs: {difference}" for difference in compared.differences]
        if compared.receipts != len(rows):
            problems.append(f"the CRM database has {compared.receipts} receipts of {len(rows)}")
    assert not problems, f"{len(problems)} problems after {tally}: {problems[:10]}"
    booked = {row["business_key"]: row["message_id"] for row in rows}
    slips = tally.slips
    return Proof(
        booked=len(rows),
        answers_lost=sum(
            slips[key].answer is not None and slips[key].answered_message != m for key, m in booked.items()
        ),
        unacknowledged=sum(slips[key].answer is None for key in booked),
    )


def _broken_promises(rows: Iterable[asyncpg.Record], tally: Tally) -> list[str]:
    """Compare the booked receipts with the registers' slips, one by one."""
    problems = []
    booked: dict[bytes, Answer] = {}
    for row in rows:
        key = row["business_key"]
        if key in booked:
            problems.append(f"receipt {key.hex()} is booked twice")
        if key not in tally.slips:
            problems.append(f"receipt {key.hex()} is booked, but nobody sent it")
        elif row["message_id"] not in tally.slips[key].message_ids:
            problems.append(f"receipt {key.hex()} is booked under a message that nobody sent")
        elif row["message_id"] in tally.slips[key].unstored:
            problems.append(f"receipt {key.hex()} is booked by a message that was told that nothing was stored")
        booked[key] = Answer(row["book"], row["number"], settlement_of(row["payload"]))
    for key, slip in tally.slips.items():
        if slip.answer is None:
            continue
        if key not in booked:
            problems.append(f"receipt {key.hex()} was acknowledged and is lost")
        elif booked[key] != slip.answer:
            problems.append(f"receipt {key.hex()} was told {slip.answer}, and the books say {booked[key]}")
    return problems


async def _unsound_books(conn: asyncpg.Connection[asyncpg.Record], receipts: Iterable[asyncpg.Record]) -> list[str]:
    """Verify the books, and add them up once more by other ways than `verify` does."""
    problems = [str(report.problem) for report in await verify(conn) if report.problem is not None]
    overdrafts = await conn.fetchval(COUNT_OVERDRAFTS, _MEMBER_ACCOUNTS)
    if overdrafts:
        problems.append(f"members had less than nothing {overdrafts} times")
    outstanding, issued, redeemed, sides = tuple(await conn.fetchrow(READ_TOTALS, ISSUED, REDEEMED) or ())
    if sides != 0:
        problems.append(f"all sides of all postings sum to {sides}")
    if outstanding != issued - redeemed:
        problems.append(f"members have {outstanding}, but {issued} were issued and {redeemed} redeemed")
    settlements = [journal_pb2.Event.FromString(receipt["payload"]).settlement for receipt in receipts]
    told = (sum(s.accrual_points_minor for s in settlements), sum(s.spent_points_minor for s in settlements))
    if told != (issued, redeemed):
        problems.append(f"receipts tell of {told}, but {issued} were issued and {redeemed} redeemed")
    return problems


def settlement_of(payload: bytes) -> bytes:
    """Return the settlement in an entry's payload, as comparable bytes."""
    return journal_pb2.Event.FromString(payload).settlement.SerializeToString(deterministic=True)


# --- the load -----------------------------------------------------------------------------------------------------


class Shop:
    """Lanes that sell as fast as they are answered."""

    def __init__(self, till: Till, cards: list[str], read_timeout_seconds: float) -> None:
        """Sell to the members of these cards, and to strangers. `open_shop` makes shops."""
        self.tally = Tally()
        self.journal: list[checkout_pb2.CommitRequest] = []
        """Every receipt, as it was sent last."""
        self._till = till
        self._cards = cards
        self._read_timeout_seconds = read_timeout_seconds
        self.abandon_when_refused = False
        """The service goes for good: a lane that gets no answer leaves its receipt, and the shop."""
        self._closed = False

    async def sell(self, receipts: int) -> None:
        """Wait until this many more receipts are acknowledged."""
        loop = asyncio.get_running_loop()
        wanted, deadline = self.tally.acknowledged + receipts, loop.time() + PATIENCE_SECONDS
        while self.tally.acknowledged < wanted:
            assert loop.time() < deadline, f"no {receipts} receipts in {PATIENCE_SECONDS} s: {self.tally}"
            await asyncio.sleep(0.005)

    def close(self) -> None:
        """Let every lane finish its receipt and begin no other."""
        self._closed = True

    async def lane(self, dice: random.Random) -> None:
        """Sell until the shop closes."""
        async with grpc.aio.insecure_channel(self._till.server.pos_address, options=_CHANNEL_OPTIONS) as channel:
            stub = checkout_pb2_grpc.CheckoutServiceStub(channel)
            while not self._closed:
                if not await self._sell_one(stub, self._next_receipt(dice), dice):
                    return
                await asyncio.sleep(dice.uniform(*SCAN_SECONDS))

    def _next_receipt(self, dice: random.Random) -> checkout_pb2.CommitRequest:
        basket = [(dice.choice(("milk", "bread", "brie")), dice.randint(500, 20000)) for _ in range(dice.randint(1, 5))]
        if dice.random() < 0.1:
            return self._till.commit_request(basket)
        spend = dice.randint(1, 300) if dice.random() < 0.4 else 0
        return self._till.commit_request(basket, card(dice.choice(self._cards)), spend=spend)

    async def _sell_one(
        self, stub: checkout_pb2_grpc.CheckoutServiceAsyncStub, request: checkout_pb2.CommitRequest, dice: random.Random
    ) -> bool:
        """Send a receipt until it is acknowledged; return False if the lane gave it up."""
        self.journal.append(request)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS
        while True:
            self._note_sending(request)
            try:
                response = await stub.Commit(request, metadata=self._till.auth, timeout=self._read_timeout_seconds)
            except grpc.aio.AioRpcError as error:
                told = answer_of(error)
                self._note_failure(request, told)
                assert told.code in _WORTH_SENDING_AGAIN, told
                if self.abandon_when_refused:
                    return False
                assert loop.time() < deadline, f"no answer in {PATIENCE_SECONDS} s, at last {told}"
                await asyncio.sleep(dice.uniform(*RESEND_PAUSE_SECONDS))
                if dice.random() >= SAME_MESSAGE_SHARE:
                    request.message_id = str(uuid.UUID(int=dice.getrandbits(128), version=4))
            else:
                self._note_answer(request, response)
                return True

    async def send_journal_again(self, till: Till, receipts: int, dice: random.Random) -> None:
        """Send some of all receipts again as a register sends its journal; each must get the answer it had."""
        chosen = dice.sample(self.journal, min(receipts, len(self.journal)))
        for start in range(0, len(chosen), JOURNAL_CHUNK):
            chunk = chosen[start : start + JOURNAL_CHUNK]
            for request in chunk:
                request.message_id = str(uuid.UUID(int=dice.getrandbits(128), version=4))
                self._note_sending(request)
            batch = checkout_pb2.CommitBatchRequest(commits=chunk)
            answer = await till.pos.CommitBatch(batch, metadata=till.auth, timeout=PATIENCE_SECONDS)
            for request, result in zip(chunk, answer.results, strict=True):
                assert result.HasField("committed"), result.refusal
                self._note_answer(request, result.committed)

    def _note_sending(self, request: checkout_pb2.CommitRequest) -> None:
        self.tally.sent(business_key(request.receipt_key), message_key(request.message_id))

    def _note_failure(self, request: checkout_pb2.CommitRequest, told: Refusal) -> None:
        name = told.reason or told.code.name  # without a reason it is gRPC that speaks, and not the service
        stored_nothing = told.reason in ("OVERLOADED", "DEADLINE_PASSED")
        self.tally.failed(business_key(request.receipt_key), name, stored_nothing=stored_nothing)

    def _note_answer(self, request: checkout_pb2.CommitRequest, response: checkout_pb2.CommitResponse) -> None:
        settlement = response.settlement.SerializeToString(deterministic=True)
        answer = Answer(response.entry.book, response.entry.number, settlement)
        self.tally.answered(business_key(request.receipt_key), answer)


@asynccontextmanager
async def open_shop(
    server: RunningServer, dice: random.Random, *, read_timeout_seconds: float = READ_TIMEOUT_SECONDS
) -> AsyncIterator[Shop]:
    """Set up a store with members and let its lanes sell; at the end every receipt begun is acknowledged."""
    key = await set_up_store(server, "shop")
    async with open_till(server, "shop", key) as till:
        members = [await till.enrol() for _ in range(MEMBERS)]
        shop = Shop(till, [member.cards[0].card_number for member in members], read_timeout_seconds)
        try:
            async with asyncio.TaskGroup() as lanes:
                for _ in range(LANES):
                    lanes.create_task(shop.lane(random.Random(dice.getrandbits(64))))
                yield shop
                shop.close()
        finally:  # shown if the test fails
            print(shop.tally, *(event for event in server.log if event.get("level") == "error"), sep="\n")


async def prove_shop(shop: Shop, server: RunningServer, dice: random.Random) -> Proof:
    """Send a part of the journal again, and hold both databases of a server against all answers."""
    async with open_till(server, shop._till.store_id, shop._till.key) as till:
        await shop.send_journal_again(till, 300, dice)
    return await prove(dsn_of(server, LEDGER_DATABASE), shop.tally, dsn_of(server, CRM_DATABASE))


# --- faults -------------------------------------------------------------------------------------------------------


def postgres_of(server: RunningServer) -> EmbeddedPostgres:
    """Return a server's embedded PostgreSQL, to harm it."""
    return EmbeddedPostgres(server.data_dir / "postgres")


def restart_postgres(server: RunningServer, mode: str) -> None:
    """Restart a server's embedded PostgreSQL: `fast`, or `immediate` as after a crash.

    This goes through a process of its own, for a fork of this one beside gRPC's threads at work may crash.
    """
    code = (
        "import pathlib, sys; from server.postgres import EmbeddedPostgres; "
        "EmbeddedPostgres(pathlib.Path(sys.argv[1])).restart(sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, str(server.data_dir / "postgres"), mode], check=True)


def dsn_of(server: RunningServer, database: str) -> str:
    """Return the connection string of a database of a server's embedded PostgreSQL."""
    return postgres_of(server).dsn(database)


async def end_backends(conn: asyncpg.Connection[asyncpg.Record], dice: random.Random, most: int) -> int:
    """End up to `most` of the service's connections, chosen at random; return how many were ended."""
    pids = [row["pid"] for row in await conn.fetch(READ_BACKENDS)]
    victims = dice.sample(pids, min(most, len(pids)))
    return int(await conn.fetchval(END_BACKENDS, victims))


@asynccontextmanager
async def database_away(conn: asyncpg.Connection[asyncpg.Record], database: str) -> AsyncIterator[None]:
    """Close a database to everybody, end its connections, and open it again after the block."""
    await conn.execute(f'ALTER DATABASE "{database}" WITH ALLOW_CONNECTIONS false')
    await conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database)
    try:
        yield
    finally:
        await conn.execute(f'ALTER DATABASE "{database}" WITH ALLOW_CONNECTIONS true')


@asynccontextmanager
async def books_locked(ledger_dsn: str) -> AsyncIterator[None]:
    """Hold the heads of all books, so that commits wait; the block begins when some do."""
    conn, watcher = await asyncpg.connect(ledger_dsn), await asyncpg.connect(ledger_dsn)
    try:
        async with conn.transaction():
            await conn.execute("SELECT FROM ledger.book_head FOR UPDATE")

            async def commits_wait() -> bool:
                return bool(await watcher.fetchval(COUNT_WAITING))

            await eventually(commits_wait, "commits wait for the books")
            yield
    finally:
        await watcher.close()
        await conn.close()


async def until_refused(address: str) -> None:
    """Wait until nobody listens at an address any more."""
    host, port = address.rsplit(":", 1)

    async def refused() -> bool:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except ConnectionRefusedError:
            return True
        writer.close()
        return False

    await eventually(refused, f"{address} refuses connections")


async def batch_retries(server: RunningServer, reason: str) -> int:
    """Return how many batches the workers ran again for a reason: ``connection``, ``race`` or ``bisect``."""

    def read() -> str:
        with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    name = f'tallypoint_batch_retries_total{{reason="{reason}"}}'
    lines = [line for line in (await asyncio.to_thread(read)).splitlines() if line.startswith(name)]
    return int(float(lines[0].split()[-1])) if lines else 0


@dataclass(slots=True)
class _Cut:
    """Where to cut one connection: after so many requests, when so many bytes of the last one's answer came."""

    requests_left: int
    bytes_left: int

    @property
    def now(self) -> bool:
        """Whether the last request went through."""
        return self.requests_left < 0


class CuttingProxy:
    """Stands between a client and PostgreSQL on Unix sockets, and cuts every connection sooner or later.

    The last request of a connection reaches PostgreSQL, which carries it out in full; of its answer the client gets
    the first few bytes or none. If that request is a COMMIT, this is the moment of which a client can never tell on
    which side of it the connection was lost.

    Args:
        upstream: The socket directory of the real server.
        dice: Chooses where to cut.
        most_requests: Every connection is cut after at most so many requests, those of its start among them.
        most_bytes: So much of the last answer comes through at most; the answer to a COMMIT has some 40 bytes.
    """

    def __init__(self, upstream: Path, dice: random.Random, most_requests: int = 24, most_bytes: int = 50) -> None:
        self.cuts = 0
        self._upstream = upstream / ".s.PGSQL.5432"
        self._dice = dice
        self._most_requests = most_requests
        self._most_bytes = most_bytes
        self._calls: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Listen on a socket of its own; yield the directory that stands for the host in a connection string."""
        with tempfile.TemporaryDirectory(prefix="cutting-") as folder:
            server = await asyncio.start_unix_server(self._serve, Path(folder) / ".s.PGSQL.5432")
            async with server:
                yield folder
            await asyncio.gather(*self._calls)

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        cut = _Cut(self._dice.randint(0, self._most_requests), self._dice.randint(0, self._most_bytes))
        try:
            from_server, to_server = await asyncio.open_unix_connection(self._upstream)
            ways = [
                asyncio.ensure_future(self._requests(from_client, to_server, cut)),
                asyncio.ensure_future(self._answers(from_server, to_client, cut)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            to_client.close()
            self.cuts += cut.now
            to_server.write_eof()  # PostgreSQL finishes what it was sent, answers into the void, and sees the end
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            while await from_server.read(65536):
                pass
            to_server.close()
        except OSError:
            to_client.close()
        finally:
            self._calls.discard(task)

    async def _requests(self, from_client: asyncio.StreamReader, to_server: asyncio.StreamWriter, cut: _Cut) -> None:
        while chunk := await from_client.read(65536):
            cut.requests_left -= 1
            to_server.write(chunk)
            await to_server.drain()
            if cut.now and cut.bytes_left == 0:
                return

    async def _answers(self, from_server: asyncio.StreamReader, to_client: asyncio.StreamWriter, cut: _Cut) -> None:
        while chunk := await from_server.read(65536):
            if not cut.now:
                to_client.write(chunk)
                await to_client.drain()
                continue
            to_client.write(chunk[: cut.bytes_left])
            cut.bytes_left -= len(chunk)
            if cut.bytes_left <= 0:
                return
