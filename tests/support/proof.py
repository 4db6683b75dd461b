"""Holding the books, and the CRM database, against what registers were promised."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import asyncpg
from tallypoint.v1 import journal_pb2

from ledger.entry.model import ADJUSTED, AVAILABLE, CLEARING, DEBT, HELD, ISSUED, PENDING, REDEEMED
from ledger.verify import verify
from server.corrections.merge import MERGE_REASON
from tests.support.crm import caught_up, comparison
from tests.support.snapshots import read_snapshot
from tests.support.tally import Answer, Operation, Slip, Tally, figures_of

_MEMBER_ACCOUNTS: Final = (AVAILABLE, PENDING, HELD, DEBT)
_OF_NOBODY: Final = (journal_pb2.ENTRY_KIND_TIME, journal_pb2.ENTRY_KIND_CLOSE)
"""Entries that no register sent."""
_TABLES_OF_CRM: Final = {
    journal_pb2.ENTRY_KIND_PURCHASE: "receipt",
    journal_pb2.ENTRY_KIND_RETURN: "goods_return",
    journal_pb2.ENTRY_KIND_HOLD: "hold",
    journal_pb2.ENTRY_KIND_ADJUSTMENT: "adjustment",
    journal_pb2.ENTRY_KIND_TRANSFER: "transfer",
}
"""Where the CRM database keeps a row for each entry of a kind."""
MOST_PROBLEMS: Final = 20

# Read every entry, from the journal itself and not from the tables of keys.
READ_ENTRIES = """
SELECT book, number, kind, business_key, message_id, payload FROM ledger.entry ORDER BY book, number
"""

# Count the entries of each kind.
COUNT_KINDS = "SELECT kind, count(*)::integer AS entries FROM ledger.entry GROUP BY kind"

# Count the moments at which a member had less than nothing, from the postings and not from the balances. Debt is
# what a member gave and did not have.
COUNT_OVERDRAFTS = """
SELECT count(*) FROM (
    SELECT sum(CASE WHEN account = $2 THEN -points_minor ELSE points_minor END)
           OVER (PARTITION BY book, member_id, unit, account ORDER BY number, ordinal) AS points_minor
    FROM ledger.posting_side WHERE account = ANY ($1::smallint[])
) AS running WHERE points_minor < 0
"""

# Read who was merged into whom.
READ_MERGED = "SELECT member_id, merged_into FROM server.member WHERE merged_into IS NOT NULL"

# Add up what members have now, what all other accounts have, and both sides of issue and redemption.
READ_TOTALS = """
SELECT (SELECT coalesce(sum(available_minor + pending_minor + held_minor - debt_minor), 0) FROM ledger.balance)::bigint
           AS members,
       coalesce(sum(credit_minor - debit_minor) FILTER (WHERE NOT account = ANY ($1::smallint[])), 0)::bigint AS others,
       coalesce(sum(debit_minor) FILTER (WHERE account = $2), 0)::bigint AS issued,
       coalesce(sum(credit_minor) FILTER (WHERE account = $2), 0)::bigint AS taken_back,
       coalesce(sum(credit_minor) FILTER (WHERE account = $3), 0)::bigint AS redeemed,
       coalesce(sum(debit_minor) FILTER (WHERE account = $3), 0)::bigint AS given_back,
       coalesce(sum(debit_minor - credit_minor) FILTER (WHERE account = $4), 0)::bigint AS adjusted
FROM ledger.account_total
"""


class Proof(NamedTuple):
    """What `prove` counted."""

    booked: int
    """Receipts in the ledger."""
    answers_lost: int
    """Operations that an earlier sending had booked than the one that was answered: its answer never arrived."""
    unacknowledged: int
    """Operations in the ledger that no register was told of."""
    entries: int = 0
    """Entries of all kinds."""


class BrokenPromise(AssertionError):
    """The books do not hold what registers were promised, or are not sound.

    ``lost`` counts what was acknowledged and is missing or different, ``doubled`` what was booked more than once.
    """

    def __init__(self, problems: Iterable[str], tally: Tally, lost: int, doubled: int) -> None:
        self.problems = list(problems)
        self.lost = lost
        self.doubled = doubled
        super().__init__(f"{len(self.problems)} problems after {tally}: {self.problems[:MOST_PROBLEMS]}")


async def prove(ledger_dsn: str, tally: Tally, crm_dsn: str | None = None) -> Proof:
    """Hold the books, and the CRM database once it has caught up, against what registers were told.

    Raises:
        BrokenPromise: Something acknowledged is missing, doubled or different, or the books are not sound.
    """
    conn = await asyncpg.connect(ledger_dsn)
    try:
        reading = _Reading(tally)
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            async for row in conn.cursor(READ_ENTRIES, prefetch=1000):
                reading.entry(row)
        reading.slips()
        reading.merges({str(row["member_id"]): str(row["merged_into"]) for row in await conn.fetch(READ_MERGED)})
        reading.problems += await _unsound_books(conn, reading)
    finally:
        await conn.close()
    if crm_dsn is not None:
        await caught_up(ledger_dsn, crm_dsn)
        compared = await comparison(ledger_dsn, crm_dsn)
        reading.problems += [f"the CRM database differs: {difference}" for difference in compared.differences]
        now = await _kinds(ledger_dsn)
        reading.problems += [
            f"the CRM database has {compared.rows[table]} rows in {table} of {reading.kinds[kind]} to {now[kind]}"
            for kind, table in _TABLES_OF_CRM.items()
            if not reading.kinds[kind] <= compared.rows[table] <= now[kind]
        ]
    if reading.problems:
        raise BrokenPromise(reading.problems, tally, reading.lost, reading.doubled)
    return reading.proof()


async def _kinds(ledger_dsn: str) -> Counter[int]:
    """Return how many entries of each kind there are now: the service itself goes on, and settles merged members."""
    conn = await asyncpg.connect(ledger_dsn)
    try:
        return Counter({row["kind"]: row["entries"] for row in await conn.fetch(COUNT_KINDS)})
    finally:
        await conn.close()


@dataclass
class _Reading:
    """One pass over the journal, entry by entry, beside the registers' slips."""

    tally: Tally
    problems: list[str] = field(default_factory=list)
    booked: dict[bytes, tuple[Answer, bytes]] = field(default_factory=dict)
    """By key: what the entry says, and the message that booked it."""
    holds: dict[tuple[int, int], int] = field(default_factory=dict)
    """By the entry of a hold: the points that it keeps, of those that it kept."""
    hold_ends: set[tuple[int, int]] = field(default_factory=set)
    """The entries that ended holds: a cancel may be answered with any of them."""
    enrolled: Counter[bytes] = field(default_factory=Counter)
    """By member, how often the first version of the record was booked."""
    transfers: dict[bytes, Counter[str]] = field(default_factory=dict)
    """By transfer: how often points left and arrived, and how many of each."""
    told: Counter[str] = field(default_factory=Counter)
    """Sums of what all settlements say."""
    kinds: Counter[int] = field(default_factory=Counter)
    """Entries by kind."""
    lost: int = 0
    doubled: int = 0

    def entry(self, row: asyncpg.Record) -> None:
        """Look at one entry."""
        self.kinds[row["kind"]] += 1
        event = journal_pb2.Event.FromString(row["payload"])
        self._hold(row, event)
        self._add_up(row["kind"], event)
        if row["kind"] == journal_pb2.ENTRY_KIND_MEMBER_CHANGE:
            self.enrolled[event.member_change.member_id.encode()] += event.member_change.version == 1
            return
        key, message = row["business_key"] or row["message_id"], row["message_id"]
        if row["kind"] == journal_pb2.ENTRY_KIND_TRANSFER:
            key = message = self._transfer(event)
            if not event.transfer.outgoing or event.transfer.reason_code == MERGE_REASON:
                return
        if key is None:
            if row["kind"] not in _OF_NOBODY:
                self.problems.append(f"entry {row['book']}/{row['number']} has no key")
            return
        slip = self.tally.slips.get(key)
        name = f"{slip.operation if slip else 'entry'} {key.hex()}"
        if key in self.booked:
            self.doubled += 1
            self.problems.append(f"{name} is booked twice")
        if slip is None:
            self.problems.append(f"{name} is booked, but nobody sent it")
        else:
            self.problems += _broken_promises(slip, name, message)
        self.booked[key] = (Answer(row["book"], row["number"], figures_of(row["kind"], event)), message)

    def _add_up(self, kind: int, event: journal_pb2.Event) -> None:
        settlement = event.settlement
        if kind == journal_pb2.ENTRY_KIND_PURCHASE:
            self.told["issued"] += settlement.accrual_points_minor
            self.told["redeemed"] += settlement.spent_points_minor
        elif kind == journal_pb2.ENTRY_KIND_RETURN:
            self.told["taken_back"] += settlement.clawback_points_minor + settlement.clawback_debt_points_minor
            self.told["given_back"] += settlement.refund_points_minor
        elif kind == journal_pb2.ENTRY_KIND_ADJUSTMENT:
            self.told["adjusted"] += event.adjustment.points_minor

    def _hold(self, row: asyncpg.Record, event: journal_pb2.Event) -> None:
        """Follow holds to their ends. Entries of a book come in order, so a hold comes before its end."""
        if event.HasField("hold"):
            self.holds[(row["book"], row["number"])] = event.settlement.held_points_minor
        for end in event.hold_ends:
            self.hold_ends.add((row["book"], row["number"]))
            held = self.holds.pop((row["book"], end.hold_number), None)
            ended = end.captured_points_minor + end.released_points_minor
            if held is None:
                self.doubled += 1
                self.problems.append(f"hold {row['book']}/{end.hold_number} ended twice")
            elif ended != held:
                self.problems.append(f"hold {row['book']}/{end.hold_number} kept {held} points, and {ended} were ended")

    def _transfer(self, event: journal_pb2.Event) -> bytes:
        """Count one side of a transfer, and return its key."""
        key = uuid.UUID(event.transfer.transfer_id).bytes
        side = "left" if event.transfer.outgoing else "arrived"
        moved = sum(posting.points_minor for posting in event.postings if CLEARING in (posting.debit, posting.credit))
        self.transfers.setdefault(key, Counter()).update({side: 1, f"points {side}": moved})
        return key

    @property
    def entries(self) -> int:
        """All entries."""
        return self.kinds.total()

    @property
    def receipts(self) -> int:
        """Receipts of purchases and of returns."""
        return self.kinds[journal_pb2.ENTRY_KIND_PURCHASE] + self.kinds[journal_pb2.ENTRY_KIND_RETURN]

    def slips(self) -> None:
        """Look for every slip's answer in what was booked."""
        for key, slip in self.tally.slips.items():
            if slip.answer is None:
                continue
            name = f"{slip.operation} {key.hex()}"
            problem = self._difference(key, slip, slip.answer)
            if problem:
                self.lost += 1
                self.problems.append(f"{name} {problem}")
        self._members()
        for key, sides in self.transfers.items():
            if sides["left"] > 1 or sides["arrived"] > 1:
                self.doubled += 1
            if sides["left"] != 1 or sides["points left"] != sides["points arrived"]:
                self.problems.append(f"transfer {key.hex()} has the sides {dict(sides)}")

    def _members(self) -> None:
        """Hold the members that were enrolled against those that were promised."""
        promised = [slip for slip in self.tally.slips.values() if slip.operation is Operation.ENROLMENT]
        for member, times in self.enrolled.items():
            if times > 1:
                self.doubled += 1
                self.problems.append(f"member {member.decode()} was enrolled {times} times")
        if promised and len(self.enrolled) > len(promised):
            self.doubled += 1
            self.problems.append(f"there are {len(self.enrolled)} members, and {len(promised)} were asked for")

    def merges(self, merged: Mapping[str, str]) -> None:
        """Hold the merges that were done, as duplicate and survivor, against those that were promised."""
        promised = [slip for slip in self.tally.slips.values() if slip.operation is Operation.MERGE]
        for slip in promised:
            if slip.answer is None:
                continue
            duplicate, survivor = slip.answer.figures.decode().split()
            if merged.get(duplicate) != survivor:
                self.lost += 1
                self.problems.append(f"the merge of {duplicate} into {survivor} was acknowledged and is lost")
        if len(merged) > len(promised):
            self.problems.append(f"{len(merged)} members were merged, and {len(promised)} merges were asked for")

    def _difference(self, key: bytes, slip: Slip, answer: Answer) -> str:
        """Say how an acknowledged operation differs from the books; empty if it does not."""
        if slip.operation is Operation.MERGE:
            return ""  # the members' own records say so: see `merges`
        if slip.operation is Operation.ENROLMENT:
            return "" if self.enrolled[answer.figures] else "was acknowledged and is lost"
        if key in self.booked:
            stored = self.booked[key][0]
            return "" if stored == answer else f"was told {answer}, and the books say {stored}"
        if slip.operation is Operation.CANCEL and (answer.book, answer.number) in self.hold_ends:
            return ""  # the hold was over before: the answer is the entry that ended it
        return "was acknowledged and is lost"

    def proof(self) -> Proof:
        """Count what was proved."""
        slips = self.tally.slips
        answered = {key: slips[key] for key in self.booked if slips[key].answer is not None}
        return Proof(
            booked=self.receipts,
            answers_lost=sum(slip.answered_message != self.booked[key][1] for key, slip in answered.items()),
            unacknowledged=len(self.booked) - len(answered),
            entries=self.entries,
        )


def _broken_promises(slip: Slip, name: str, message: bytes) -> list[str]:
    """Compare one booked entry with what its register was told."""
    problems = []
    if message not in slip.message_ids:
        problems.append(f"{name} is booked under a message that nobody sent")
    elif message in slip.unstored:
        problems.append(f"{name} is booked by a message that was told that nothing was stored")
    if slip.refusal:
        problems.append(f"{name} is booked, though it was refused: {slip.refusal}")
    return problems


async def _unsound_books(conn: asyncpg.Connection[asyncpg.Record], reading: _Reading) -> list[str]:
    """Verify the books, and add them up once more by other ways than `verify` does."""
    problems = [str(report.problem) for report in await verify(conn) if report.problem is not None]
    overdrafts = await conn.fetchval(COUNT_OVERDRAFTS, _MEMBER_ACCOUNTS, DEBT)
    if overdrafts:
        problems.append(f"members had less than nothing {overdrafts} times")
    totals = await conn.fetchrow(READ_TOTALS, _MEMBER_ACCOUNTS, ISSUED, REDEEMED, ADJUSTED)
    assert totals is not None
    if totals["members"] + totals["others"] != 0:
        problems.append(f"members have {totals['members']}, and all other accounts {totals['others']}")
    problems += [
        f"answers tell of {reading.told[name]} points {name}, and the books of {totals[name]}"
        for name in ("issued", "redeemed", "taken_back", "given_back", "adjusted")
        if totals[name] != reading.told[name]
    ]
    return problems + (await read_snapshot(conn)).problems()
