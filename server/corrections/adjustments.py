"""Adjustments by hand: within a person's limit a day they are booked at once, above it by a second person.

The request's row and the ledger's entry are written in one transaction, so there is never the one without the other:
after a lost connection the request is simply sent again, and finds what was done or does it. The request id is also
the id of the message that the ledger books.

Locks are taken in one order: the person, the request, the member, the head of the book.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import correction_pb2, journal_pb2

from ledger.booking.append import append_locked, lock_books
from ledger.entry.keys import content_hash
from ledger.entry.model import Adjust, Booked, Declined, Grant, Unit
from ledger.reading.books import read_units
from server.base.database import Raced, connection, in_transaction
from server.base.errors import Refused
from server.corrections.common import chain_zone, check_reason, unit_of
from server.members.identifiers import KeyedHash
from server.members.records import all_ids, lock_present
from server.members.registry import AdminMessage
from server.promotions import LotGrant, lot_terms
from server.rules.book import RulesBook
from server.rules.grants import grants_of

if TYPE_CHECKING:
    from server.base.database import Connection, Pool

WAITING: Final = correction_pb2.ADJUSTMENT_STATE_WAITING
BOOKED: Final = correction_pb2.ADJUSTMENT_STATE_BOOKED
REJECTED: Final = correction_pb2.ADJUSTMENT_STATE_REJECTED

_LOCK_SPACE: Final = 0x7461_6C6C_7961_646A
"""Sets our advisory locks apart from others."""

# Let one person's requests come one after the other, so that two at once do not both fit under the limit.
LOCK_PERSON: Final = "SELECT pg_advisory_xact_lock(hashtextextended($1, $2))"

_COLUMNS: Final = """
request_id, content_hash, book, member_id, unit, points_minor, reason_code, note, expires_on, state, requested_by,
requested_at, limit_points_minor, used_points_minor, decided_by, decided_at, decision_note, entry_number, booked_at
FROM server.adjustment_request
"""

# One request.
READ_REQUEST: Final = f"SELECT {_COLUMNS} WHERE request_id = $1"

# One request, kept from being decided by others until the transaction ends.
LOCK_REQUEST: Final = f"{READ_REQUEST} FOR UPDATE"

# A page of requests, oldest first; NULL chooses all.
LIST_REQUESTS: Final = f"""
SELECT {_COLUMNS}
WHERE ($1::smallint IS NULL OR state = $1) AND ($2::uuid[] IS NULL OR member_id = ANY ($2))
  AND ($3::timestamptz IS NULL OR requested_at >= $3) AND ($4::timestamptz IS NULL OR requested_at < $4)
  AND ($5::timestamptz IS NULL OR (requested_at, request_id) > ($5, $6))
ORDER BY requested_at, request_id LIMIT $7
"""

# What a person has booked alone of one unit within a time.
READ_USED: Final = """
SELECT coalesce(sum(abs(points_minor)), 0)::bigint FROM server.adjustment_request
WHERE requested_by = $1 AND unit = $2 AND requested_at >= $3 AND requested_at < $4 AND state = 2 AND decided_by = ''
"""

# Keep a request, which waits.
INSERT_REQUEST: Final = """
INSERT INTO server.adjustment_request (request_id, content_hash, book, member_id, unit, points_minor, reason_code, note,
                                       expires_on, state, requested_by, requested_at, limit_points_minor,
                                       used_points_minor)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1, $10, $11, $12, $13)
ON CONFLICT DO NOTHING RETURNING request_id
"""

# Note that a request is booked, and who approved it, if somebody had to.
SET_BOOKED: Final = """
UPDATE server.adjustment_request
SET state = 2, entry_number = $2, booked_at = $3, decided_by = $4, decided_at = $5, decision_note = $6
WHERE request_id = $1
"""

# Note that a request is rejected.
SET_REJECTED: Final = """
UPDATE server.adjustment_request SET state = 3, decided_by = $2, decided_at = $3, decision_note = $4
WHERE request_id = $1
"""


class AdjustmentOrder(NamedTuple):
    """What a person asks for; `unit` may be empty. Negative points are to be taken."""

    member_id: UUID
    points_minor: int
    unit: str
    reason_code: str
    note: str
    expires_on: date | None


class Decided(NamedTuple):
    """Who approved or rejected a request, when, and in which words; `by` is empty if nobody had to."""

    by: str
    at: datetime
    note: str


class Filter(NamedTuple):
    """Which requests to list; None chooses all. `after` is the time and id of the last one of the page before."""

    state: int | None = None
    member_id: UUID | None = None
    requested_from: datetime | None = None
    requested_before: datetime | None = None
    after: tuple[datetime, UUID] | None = None


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A row of `server.adjustment_request`, with its unit."""

    request_id: UUID
    content_hash: bytes
    book: int
    member_id: UUID
    unit: Unit
    points_minor: int
    reason_code: str
    note: str
    expires_on: date | None
    state: correction_pb2.AdjustmentState
    requested_by: str
    requested_at: datetime
    limit_points_minor: int
    used_points_minor: int
    decided_by: str
    decided_at: datetime | None
    decision_note: str
    entry_number: int | None
    booked_at: datetime | None

    @property
    def is_within_limit(self) -> bool:
        """Whether the person might book it alone when it was requested."""
        return self.used_points_minor + abs(self.points_minor) <= self.limit_points_minor


class AdjustmentDesk:
    """Takes requests, books them, and lists them. All times are given, all refusals named."""

    def __init__(
        self,
        pool: Pool,
        rules: RulesBook,
        hashes: KeyedHash,
        books: int,
        *,
        reasons: tuple[str, ...],
        limit_points: int,
    ) -> None:
        """Work over a pool whose connections have the writer's role.

        `limit_points` are the whole points of each unit that a person may book alone in a day. Days are those of the
        chain's calendar, see `chain_zone`.
        """
        self._pool = pool
        self._rules = rules
        self._hashes = hashes
        self._books = books
        self._reasons = reasons
        self._limit_points = limit_points

    async def request(self, message: AdminMessage, order: AdjustmentOrder, by: str, now: datetime) -> Adjustment:
        """Book an adjustment, or keep it for a second person; the same message again has the same answer.

        Raises:
            Refused: NOT_FOUND, MEMBER_MERGED, POINTS_INSUFFICIENT, INVALID_REQUEST, MESSAGE_ID_REUSED.
        """
        check_reason(order.reason_code, self._reasons, "adjustment_reasons")
        digest = self._hashes.of_message(message.method, message.content)

        async def work(conn: Connection) -> Adjustment:
            await conn.execute(LOCK_PERSON, by, _LOCK_SPACE)
            known = await _find(conn, READ_REQUEST, message.message_id)
            if known is not None:
                return _repeated_request(known, digest)
            adjustment = await self._keep(conn, message.message_id, digest, order, by, now)
            if adjustment.is_within_limit:
                await self._book(conn, adjustment, Decided("", now, ""), now)
            return await _read(conn, message.message_id)

        return await in_transaction(self._pool, work)

    async def approve(self, request_id: UUID, by: str, note: str, now: datetime) -> Adjustment:
        """Book an adjustment that waits; one that is booked already stays as it is.

        Raises:
            Refused: NOT_FOUND, APPROVAL_NEEDED for one's own request, ALREADY_EXISTS if it was rejected,
                MEMBER_MERGED, POINTS_INSUFFICIENT.
        """

        async def work(conn: Connection) -> Adjustment:
            adjustment = await _locked(conn, request_id)
            if adjustment.state == BOOKED:
                return adjustment
            if adjustment.state == REJECTED:
                raise _is_over(adjustment, "was rejected", "request it anew")
            if adjustment.requested_by == by:
                raise Refused(
                    api.REFUSAL_REASON_APPROVAL_NEEDED,
                    f"{by} requested this adjustment: a second person with the role finance or admin must approve it",
                )
            await lock_present(conn, adjustment.member_id, self._books)
            await self._book(conn, adjustment, Decided(by, now, note), now)
            return await _read(conn, request_id)

        return await in_transaction(self._pool, work)

    async def reject(self, request_id: UUID, by: str, note: str, now: datetime) -> Adjustment:
        """End an adjustment that waits; one that is rejected already stays as it is.

        Raises:
            Refused: NOT_FOUND, ALREADY_EXISTS if it is booked.
        """

        async def work(conn: Connection) -> Adjustment:
            adjustment = await _locked(conn, request_id)
            if adjustment.state == REJECTED:
                return adjustment
            if adjustment.state == BOOKED:
                raise _is_over(adjustment, "is booked", "request the opposite")
            await conn.execute(SET_REJECTED, request_id, by, now, note)
            return await _read(conn, request_id)

        return await in_transaction(self._pool, work)

    async def list(self, chosen: Filter, limit: int) -> list[Adjustment]:
        """Return up to `limit` requests, oldest first; those of a member with all who were merged into them."""
        after_at, after_id = chosen.after or (None, None)
        async with connection(self._pool) as conn:
            ids = None if chosen.member_id is None else await all_ids(conn, chosen.member_id, self._books)
            requested = chosen.requested_from, chosen.requested_before
            rows = await conn.fetch(LIST_REQUESTS, chosen.state, ids, *requested, after_at, after_id, limit)
            units = await read_units(conn)
        return [_adjustment(row, units) for row in rows]

    async def _keep(
        self, conn: Connection, request_id: UUID, digest: bytes, order: AdjustmentOrder, by: str, now: datetime
    ) -> Adjustment:
        """Check an order and keep it as a request that waits, judged by the person's limit."""
        local_at = now.astimezone(await chain_zone(conn))
        unit = await unit_of(conn, self._rules, order.unit, local_at)
        self._check_expiry(order.points_minor, order.expires_on, unit, local_at)
        member = await lock_present(conn, order.member_id, self._books)
        today, tomorrow = (
            datetime.combine(day, time(), local_at.tzinfo)
            for day in (local_at.date(), local_at.date() + timedelta(days=1))
        )
        used = await conn.fetchval(READ_USED, by, unit.code, today, tomorrow)
        limit_minor = self._limit_points * 10**unit.precision
        kept = await conn.fetchval(
            INSERT_REQUEST,
            request_id,
            digest,
            member.book,
            member.member_id,
            unit.code,
            order.points_minor,
            order.reason_code,
            order.note,
            order.expires_on,
            by,
            now,
            limit_minor,
            used,
        )
        if kept is None:
            raise Raced
        return await _read(conn, request_id)

    async def _book(self, conn: Connection, adjustment: Adjustment, decided: Decided, now: datetime) -> None:
        """Append the entry and note it. The request and the member are locked."""
        zone = await chain_zone(conn)
        await lock_books(conn, [adjustment.book])
        command = self._command(adjustment, decided, now, zone)
        (verdict,) = (await append_locked(conn, adjustment.book, [command], now)).verdicts
        if isinstance(verdict, Declined):
            raise Refused(verdict.reason, verdict.message, violations=[("points_minor", verdict.message)])
        assert isinstance(verdict, Booked), f"a request that waits is not in the books: {verdict}"
        signed = (decided.by, decided.at, decided.note) if decided.by else ("", None, "")
        await conn.execute(SET_BOOKED, adjustment.request_id, verdict.number, verdict.booked_at, *signed)

    def _command(self, adjustment: Adjustment, decided: Decided, now: datetime, zone: ZoneInfo) -> Adjust:
        points_minor, unit, local_at = adjustment.points_minor, adjustment.unit, now.astimezone(zone)
        rules = self._rules.at(local_at)
        programme_code = rules.programme.code if rules and rules.programme.point.unit == unit.code else ""
        event = journal_pb2.Event(
            adjustment=journal_pb2.Adjustment(
                member_id=str(adjustment.member_id),
                points_minor=points_minor,
                reason_code=adjustment.reason_code,
                note=adjustment.note,
                requested_by=adjustment.requested_by,
                approved_by=decided.by,
                request_id=str(adjustment.request_id),
                programme_code=programme_code,
                time_zone=zone.key,
            )
        )
        return Adjust(
            book=adjustment.book,
            message_id=adjustment.request_id.bytes,
            content_hash=content_hash(adjustment.member_id, adjustment.content_hash),
            event_at=now,
            member_id=adjustment.member_id,
            event=event.SerializeToString(),
            unit=unit,
            grant=self._grant(adjustment, local_at, zone) if points_minor > 0 else None,
            deduct_points_minor=max(0, -points_minor),
        )

    def _grant(self, adjustment: Adjustment, local_at: datetime, zone: ZoneInfo) -> Grant:
        """Return the lot: active at once, good until the end of its last day on the chain's calendar."""
        self._check_expiry(adjustment.points_minor, adjustment.expires_on, adjustment.unit, local_at)
        last_day = adjustment.expires_on
        rules = self._rules.at(local_at)
        if last_day is None and rules is not None:
            last_day = lot_terms(rules, local_at.date()).expires_on
        return grants_of([LotGrant(adjustment.points_minor, None, last_day, ())], zone, self._rules)[0]

    def _check_expiry(self, points_minor: int, expires_on: date | None, unit: Unit, local_at: datetime) -> None:
        """Refuse an expiry that makes no sense: INVALID_REQUEST."""
        rules = self._rules.at(local_at)
        what = ""
        if points_minor < 0:
            what = "must be empty where points are taken" if expires_on else ""
        elif expires_on is not None and expires_on < local_at.date():
            what = "is over: the points would lapse at once"
        elif expires_on is None and (rules is None or rules.programme.point.unit != unit.code):
            what = f"must be given: {unit.code} is not the unit of the programme in effect"
        if what:
            raise Refused(api.REFUSAL_REASON_INVALID_REQUEST, f"expires_on {what}", violations=[("expires_on", what)])


async def _read(conn: Connection, request_id: UUID) -> Adjustment:
    adjustment = await _find(conn, READ_REQUEST, request_id)
    assert adjustment is not None, "a request that was kept is there"
    return adjustment


async def _locked(conn: Connection, request_id: UUID) -> Adjustment:
    adjustment = await _find(conn, LOCK_REQUEST, request_id)
    if adjustment is None:
        raise Refused(
            api.REFUSAL_REASON_NOT_FOUND,
            f"no adjustment was requested as {request_id}",
            violations=[("request_id", "is not the id of a request")],
        )
    return adjustment


async def _find(conn: Connection, statement: str, request_id: UUID | bytes) -> Adjustment | None:
    row = await conn.fetchrow(statement, request_id)
    return None if row is None else _adjustment(row, await read_units(conn))


def _adjustment(row: asyncpg.Record, units: Mapping[str, Unit]) -> Adjustment:
    values: dict[str, object] = dict(row)
    return Adjustment(**values | {"unit": units[row["unit"]]})  # type: ignore[arg-type]  # the columns of the table


def _repeated_request(known: Adjustment, digest: bytes) -> Adjustment:
    if known.content_hash != digest:
        raise Refused(
            api.REFUSAL_REASON_MESSAGE_ID_REUSED,
            f"request_id {known.request_id} was used for another request: make a new id for a new request",
            violations=[("request_id", "was used for a request with another body")],
        )
    return known


def _is_over(adjustment: Adjustment, what: str, instead: str) -> Refused:
    who = f" by {adjustment.decided_by}" if adjustment.decided_by else ""
    return Refused(
        api.REFUSAL_REASON_ALREADY_EXISTS,
        f"adjustment {adjustment.request_id} {what}{who}: {instead}",
        violations=[("request_id", f"{what} already")],
    )
