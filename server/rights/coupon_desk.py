"""Loading, generating, showing and blocking coupons, for the back office."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import rights_pb2

from ledger.reading.coupons import read_issued_codes
from server.base.database import Raced, connection, in_transaction
from server.base.errors import Refused, invalid_request
from server.edge.validation import check
from server.members.identifiers import KeyedHash
from server.rights.codes import ALPHABET, CODE_LENGTH, MAX_CODE_LENGTH, code_of, is_own_code, normal_code
from server.rights.coupons import CouponRecord, find_coupons, read_coupons
from server.rights.people import MemberFinder
from server.rights.rows import Days, read_days

if TYPE_CHECKING:
    from server.base.database import Connection, Pool

# Store coupons, in the order of their codes; those returned are new.
INSERT_COUPONS: Final = """
INSERT INTO server.coupon (code, series, member_id, uses, valid_from, valid_until)
SELECT n.code, $1, n.member_id, n.uses, n.valid_from, n.valid_until
FROM unnest($2::text[], $3::uuid[], $4::smallint[], $5::date[], $6::date[])
     AS n (code, member_id, uses, valid_from, valid_until)
ORDER BY n.code COLLATE "C"
ON CONFLICT DO NOTHING
RETURNING code
"""

# Note a request that generates coupons; no row if it was noted before.
CLAIM_GENERATION: Final = """
INSERT INTO server.coupon_generation (request_id, content_hash, attempt, generated_by, generated_at)
VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING request_id
"""

# A request that generated coupons.
READ_GENERATION: Final = "SELECT content_hash, attempt FROM server.coupon_generation WHERE request_id = $1"

# Block codes, in their order.
BLOCK_CODES: Final = """
INSERT INTO server.coupon_block (code, blocked_by, blocked_at)
SELECT n.code, $2, $3 FROM unnest($1::text[]) AS n (code) ORDER BY n.code COLLATE "C" ON CONFLICT DO NOTHING
"""

# Make blocked codes good again.
UNBLOCK_CODES: Final = "DELETE FROM server.coupon_block WHERE code = ANY ($1::text[])"

# Block a series.
BLOCK_SERIES: Final = """
INSERT INTO server.coupon_series_block (series, blocked_by, blocked_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING
"""

# Make a blocked series good again.
UNBLOCK_SERIES: Final = "DELETE FROM server.coupon_series_block WHERE series = $1"

ATTEMPTS: Final = 5
"""How often codes are drawn anew because one of them was there already."""
_PURPOSE: Final = "coupon"


class NewCoupon(NamedTuple):
    """A coupon to be stored, but for its series; the code is in its normal form."""

    code: str
    member_id: UUID | None
    uses: int
    days: Days


class Loaded(NamedTuple):
    """What became of the rows of a batch."""

    added: int
    unchanged: int
    refused: Mapping[int, Refused]


class CouponDesk:
    """Writes the coupons of one ledger."""

    def __init__(self, pool: Pool, finder: MemberFinder, hashes: KeyedHash) -> None:
        """Work over a pool whose connections have the writer's role."""
        self._pool = pool
        self._finder = finder
        self._hashes = hashes

    async def load(self, series: str, rows: Sequence[rights_pb2.CouponRow]) -> Loaded:
        """Store the coupons of a batch, each row by itself; what is there already with the same terms is unchanged.

        Raises:
            Refused: LEDGER_UNAVAILABLE, OVERLOADED; sending all again is safe.
        """
        drafts, refused = _drafts(rows)

        async def work(conn: Connection) -> Loaded:
            wanted = {index: rows[index].member for index in drafts if rows[index].HasField("member")}
            people, unknown = await self._finder.find(conn, wanted) if wanted else ({}, {})
            coupons = {
                index: draft._replace(member_id=people[index].member_id) if index in people else draft
                for index, draft in drafts.items()
                if index not in unknown
            }
            issued = await read_issued_codes(conn, [coupon.code for coupon in coupons.values()])
            added = await _store(conn, series, [coupon for coupon in coupons.values() if coupon.code not in issued])
            there = {index: coupon for index, coupon in coupons.items() if coupon.code not in added}
            differing = await self._differing(conn, series, there)
            return Loaded(len(added), len(there) - len(differing), {**refused, **unknown, **differing})

        return await in_transaction(self._pool, work)

    async def generate(
        self, request_id: UUID, request: rights_pb2.GenerateCouponsRequest, by: str, now: datetime
    ) -> list[str]:
        """Make, store and return codes; the same request again has the same codes. `by` is who asks.

        Raises:
            Refused: NOT_FOUND for the member, INVALID_REQUEST for the days, MESSAGE_ID_REUSED.
        """
        days = read_days(request.valid_from, request.valid_until)
        content = self._hashes.of_message(request.DESCRIPTOR.full_name, request.SerializeToString(deterministic=True))

        async def work(conn: Connection) -> list[str]:
            earlier = await conn.fetchrow(READ_GENERATION, request_id)
            if earlier is not None:
                if earlier["content_hash"] != content:
                    raise _reused(request_id)
                return self._codes(request_id, earlier["attempt"], request.count)
            has_member = request.HasField("member")
            person = await self._finder.find_one(conn, request.member, "member") if has_member else None
            for attempt in range(ATTEMPTS):
                codes = self._codes(request_id, attempt, request.count)
                if len(set(codes)) == len(codes) and not await _any_known(conn, codes):
                    break
            else:
                raise AssertionError(f"random codes were known {ATTEMPTS} times in a row")
            if not await conn.fetchrow(CLAIM_GENERATION, request_id, content, attempt, by, now):
                raise Raced
            member_id = person.member_id if person else None
            coupons = [NewCoupon(code, member_id, request.uses or 1, days) for code in codes]
            if len(await _store(conn, request.series, coupons)) != len(codes):
                raise Raced
            return codes

        return await in_transaction(self._pool, work)

    async def block(self, codes: Sequence[str], by: str, now: datetime) -> tuple[int, dict[int, Refused]]:
        """Block codes; return how many were not blocked yet, and the refusals of unknown ones by their place."""

        async def work(conn: Connection) -> tuple[int, dict[int, Refused]]:
            known, refused = await _codes_that_exist(conn, codes)
            return _count(await conn.execute(BLOCK_CODES, known, by, now)), refused

        return await in_transaction(self._pool, work)

    async def unblock(self, codes: Sequence[str]) -> tuple[int, dict[int, Refused]]:
        """Make codes good again; return how many were blocked, and the refusals of unknown ones by their place."""

        async def work(conn: Connection) -> tuple[int, dict[int, Refused]]:
            known, refused = await _codes_that_exist(conn, codes)
            return _count(await conn.execute(UNBLOCK_CODES, known)), refused

        return await in_transaction(self._pool, work)

    async def block_series(self, series: str, by: str, now: datetime) -> int:
        """Block a series; return 1 if it was not blocked yet."""
        async with connection(self._pool) as conn:
            return _count(await conn.execute(BLOCK_SERIES, series, by, now))

    async def unblock_series(self, series: str) -> int:
        """Make a series good again; return 1 if it was blocked."""
        async with connection(self._pool) as conn:
            return _count(await conn.execute(UNBLOCK_SERIES, series))

    async def _differing(self, conn: Connection, series: str, coupons: Mapping[int, NewCoupon]) -> dict[int, Refused]:
        """Return refusals of those coupons whose code stands for another one."""
        present = await read_coupons(conn, [coupon.code for coupon in coupons.values()]) if coupons else {}
        differing = {
            index: present[coupon.code]
            for index, coupon in coupons.items()
            if present[coupon.code][:6] != (coupon.code, series, coupon.member_id, coupon.uses, *coupon.days)
        }
        # Somebody who was merged since is another member, with the same coupon.
        owners = {i: api.Identifier(member_id=str(one.member_id)) for i, one in differing.items() if one.member_id}
        people, _ = await self._finder.find(conn, owners) if owners else ({}, {})
        return {
            index: _code_taken(record)
            for index, record in differing.items()
            if index not in people
            or (series, coupons[index][1:3], coupons[index].days)
            != (record.series, (people[index].member_id, record.uses), (record.valid_from, record.valid_until))
        }

    def _codes(self, request_id: UUID, attempt: int, count: int) -> list[str]:
        """Return codes that nobody can foretell without the service's secret, and that are the same every time."""
        texts = (f"{request_id}/{attempt}/{number}" for number in range(count))
        return [code_of(int.from_bytes(self._hashes.of_text(_PURPOSE, text), "big")) for text in texts]


def coupon_unknown(code: str, field: str) -> Refused:
    """Return the refusal of a code that no coupon has; one of our form with a wrong check character was mistyped."""
    hint = ""
    if len(code) == CODE_LENGTH and not is_own_code(code) and set(code) <= set(ALPHABET):
        hint = ": it was misread or mistyped, its last character does not fit the others"
    return Refused(
        api.REFUSAL_REASON_COUPON_UNKNOWN,
        f"no coupon has this code{hint}",
        violations=[(field, f"is no coupon's code{hint}")],
    )


def _drafts(rows: Sequence[rights_pb2.CouponRow]) -> tuple[dict[int, NewCoupon], dict[int, Refused]]:
    drafts: dict[int, NewCoupon] = {}
    refused: dict[int, Refused] = {}
    first_index: dict[str, int] = {}
    for index, row in enumerate(rows):
        try:
            check(row)
            code = _stored_code(row.code)
            draft = NewCoupon(code, None, row.uses or 1, read_days(row.valid_from, row.valid_until))
        except Refused as refusal:
            refused[index] = refusal
            continue
        earlier = first_index.setdefault(code, index)
        if earlier == index:
            drafts[index] = draft
        else:
            fault = f"is the same as in row {earlier} of this batch: leave one of them out"
            refused[index] = invalid_request([("code", fault)])
    return drafts, refused


def _stored_code(text: str) -> str:
    code = normal_code(text)
    if not code or not code.isprintable() or len(code) > MAX_CODE_LENGTH:
        raise invalid_request([("code", f"must be 1 to {MAX_CODE_LENGTH} printable characters")])
    return code


async def _store(conn: Connection, series: str, coupons: Sequence[NewCoupon]) -> set[str]:
    """Store coupons whose codes are new; return the codes of those."""
    rows = await conn.fetch(
        INSERT_COUPONS,
        series,
        [coupon.code for coupon in coupons],
        [coupon.member_id for coupon in coupons],
        [coupon.uses for coupon in coupons],
        [coupon.days.first for coupon in coupons],
        [coupon.days.last for coupon in coupons],
    )
    return {row["code"] for row in rows}


def _code_taken(coupon: CouponRecord) -> Refused:
    return Refused(
        api.REFUSAL_REASON_ALREADY_EXISTS,
        f"a coupon of series {coupon.series} has this code, with other terms",
        violations=[("code", f"is that of a coupon of series {coupon.series} with other terms: give out another code")],
    )


async def _any_known(conn: Connection, codes: Sequence[str]) -> bool:
    return bool(await read_coupons(conn, codes))


async def _codes_that_exist(conn: Connection, codes: Sequence[str]) -> tuple[list[str], dict[int, Refused]]:
    """Return those codes that coupons have, as they are kept, and the refusals of the others by their place."""
    normal = [normal_code(code) for code in codes]
    present = await find_coupons(conn, codes)
    refused = {
        index: coupon_unknown(code, f"codes[{index}]") for index, code in enumerate(normal) if code not in present
    }
    return sorted(coupon.code for coupon in present.values()), refused


def _count(status: str) -> int:
    return int(status.rsplit(maxsplit=1)[-1])


def _reused(request_id: UUID) -> Refused:
    return Refused(
        api.REFUSAL_REASON_MESSAGE_ID_REUSED,
        f"request_id {request_id} was used for another request: make a new id for a new request",
        violations=[("request_id", "was used for a request with other content")],
    )
