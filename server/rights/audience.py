"""Segments and personal offers: which members are in which, in one row a member.

A segment stands in the row with the load that last put the member there, so a replacement needs no list of its own: at
its end, whoever carries another load's id is taken out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar
from uuid import UUID

from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import rights_pb2

from server.base.database import connection, in_transaction
from server.base.errors import Refused
from server.edge.validation import check
from server.members.found import OfferRow
from server.rights.people import MemberFinder, Person
from server.rights.rows import read_days, too_many
from server.shop.stores import RAISE_VERSION

if TYPE_CHECKING:
    from server.base.database import Connection, Pool

T = TypeVar("T")

TOPIC: Final = "audience"
"""The topic in `server.config_version` that every write here raises."""
MOST_SEGMENTS: Final = 500
MOST_OFFERS: Final = 500
"""How many a member may have: every checkout reads them all."""
OFFERS_KEPT: Final = timedelta(days=31)
"""For how long offers that ended are kept, so that the hotline can say what there was."""
MEMBERS_PER_FINISH: Final = 20_000
"""How many members one call of a replacement's end looks at."""
NO_LOAD: Final = ""

# What members have who would have too much with so many more, of what the column names.
_READ_CROWDED: Final = """
SELECT n.member_id, ARRAY(SELECT jsonb_object_keys(a.{column})) AS names
FROM unnest($1::integer[], $2::uuid[], $3::integer[]) AS n (book, member_id, more)
LEFT JOIN server.member_audience a ON a.book = n.book AND a.member_id = n.member_id
WHERE n.more + coalesce((SELECT count(*) FROM jsonb_object_keys(a.{column})), 0) > $4
"""
READ_CROWDED_SEGMENTS: Final = _READ_CROWDED.format(column="segments")
READ_CROWDED_OFFERS: Final = _READ_CROWDED.format(column="offers")

# Put members into a segment; those who are in it keep the load that put them there.
ADD_TO_SEGMENT: Final = """
INSERT INTO server.member_audience AS a (book, member_id, segments)
SELECT n.book, n.member_id, jsonb_build_object($3::text, $4::text)
FROM unnest($1::integer[], $2::uuid[]) AS n (book, member_id) ORDER BY n.book, n.member_id
ON CONFLICT (book, member_id) DO UPDATE SET segments = a.segments || excluded.segments
WHERE NOT a.segments ? $3::text
RETURNING 1
"""

# Put members into a segment, and note by which load.
LOAD_INTO_SEGMENT: Final = """
WITH before AS MATERIALIZED (
    SELECT a.member_id FROM unnest($1::integer[], $2::uuid[]) AS n (book, member_id)
    JOIN server.member_audience a ON a.book = n.book AND a.member_id = n.member_id WHERE a.segments ? $3::text
), written AS (
    INSERT INTO server.member_audience AS a (book, member_id, segments)
    SELECT n.book, n.member_id, jsonb_build_object($3::text, $4::text)
    FROM unnest($1::integer[], $2::uuid[]) AS n (book, member_id) ORDER BY n.book, n.member_id
    ON CONFLICT (book, member_id) DO UPDATE SET segments = a.segments || excluded.segments
    WHERE NOT a.segments @> excluded.segments
    RETURNING member_id
)
SELECT 1 FROM written WHERE member_id NOT IN (SELECT member_id FROM before)
"""

# Take members out of a segment.
REMOVE_FROM_SEGMENT: Final = """
UPDATE server.member_audience AS a SET segments = a.segments - $3::text
FROM unnest($1::integer[], $2::uuid[]) AS n (book, member_id)
WHERE a.book = n.book AND a.member_id = n.member_id AND a.segments ? $3::text
RETURNING 1
"""

# The next members by book and id, whoever they are: where a stretch of a replacement's end stops.
READ_STRETCH: Final = """
SELECT book, member_id FROM server.member_audience WHERE (book, member_id) > ($1, $2)
ORDER BY book, member_id OFFSET $3 LIMIT 1
"""

# Take out of a segment whom another load put there, in a stretch of members; the last part is open-ended for null.
FINISH_SEGMENT: Final = """
UPDATE server.member_audience SET segments = segments - $1::text
WHERE (book, member_id) > ($3, $4) AND ($5::integer IS NULL OR (book, member_id) <= ($5, $6))
  AND segments ? $1::text AND segments ->> $1::text <> $2::text
"""

# How many members each segment has.
COUNT_SEGMENTS: Final = """
SELECT k.segment, count(*) AS members FROM server.member_audience, jsonb_object_keys(segments) AS k (segment)
GROUP BY k.segment ORDER BY k.segment COLLATE "C"
"""

# Make members offers, given as an object for each; those that ended before a day are forgotten.
ADD_OFFERS: Final = """
INSERT INTO server.member_audience AS a (book, member_id, offers)
SELECT n.book, n.member_id, n.offers
FROM unnest($1::integer[], $2::uuid[], $3::jsonb[]) AS n (book, member_id, offers) ORDER BY n.book, n.member_id
ON CONFLICT (book, member_id) DO UPDATE SET offers = excluded.offers || (
    SELECT coalesce(jsonb_object_agg(o.key, o.value), '{}')
    FROM jsonb_each(a.offers) AS o
    WHERE NOT excluded.offers ? o.key AND coalesce((o.value ->> 1)::date >= $4, true)
)
WHERE NOT a.offers @> excluded.offers
RETURNING 1
"""

# Take offers away, given as the promotions of each member joined by line breaks.
REMOVE_OFFERS: Final = """
UPDATE server.member_audience AS a SET offers = a.offers - string_to_array(n.promotions, E'\\n')
FROM unnest($1::integer[], $2::uuid[], $3::text[]) AS n (book, member_id, promotions)
WHERE a.book = n.book AND a.member_id = n.member_id AND a.offers ?| string_to_array(n.promotions, E'\\n')
RETURNING 1
"""

# What one member has.
READ_AUDIENCE: Final = "SELECT segments, offers FROM server.member_audience WHERE book = $1 AND member_id = $2"

# Give what a merged member has to the survivor, who keeps what both have, and leave nothing.
MOVE_AUDIENCE: Final = """
WITH gone AS (
    DELETE FROM server.member_audience WHERE book = $1 AND member_id = $2 RETURNING segments, offers
)
INSERT INTO server.member_audience AS a (book, member_id, segments, offers)
SELECT $3, $4, gone.segments, gone.offers FROM gone
ON CONFLICT (book, member_id) DO UPDATE
SET segments = excluded.segments || a.segments, offers = excluded.offers || a.offers
"""


class Changed(NamedTuple):
    """How many members have something else now, and the rows that were refused."""

    members: int
    refused: Mapping[int, Refused]


class Offer(NamedTuple):
    """An offer to be made or taken away, and to whom."""

    person: Person
    row: OfferRow


class AudienceDesk:
    """Writes the segments and offers of one ledger's members."""

    def __init__(self, pool: Pool, finder: MemberFinder) -> None:
        """Work over a pool whose connections have the writer's role."""
        self._pool = pool
        self._finder = finder

    async def put_segment(
        self, segment: str, action: rights_pb2.SegmentAction, load_id: str, members: Sequence[api.Identifier]
    ) -> Changed:
        """Put members into a segment, or take them out; `load_id` is that of a replacement.

        Raises:
            Refused: LEDGER_UNAVAILABLE, OVERLOADED; sending all again is safe.
        """

        async def work(conn: Connection) -> Changed:
            people, refused = await self._finder.find(conn, dict(enumerate(members)), field="members", lock=True)
            if action != rights_pb2.SEGMENT_ACTION_REMOVE:
                named = {index: (person, segment) for index, person in people.items()}
                for index in await _without_room(conn, READ_CROWDED_SEGMENTS, named, MOST_SEGMENTS):
                    refused[index] = too_many("members", MOST_SEGMENTS, "segments")
                    del people[index]
            wanted = sorted(set(people.values()))
            books, ids = [one.book for one in wanted], [one.member_id for one in wanted]
            if action == rights_pb2.SEGMENT_ACTION_REMOVE:
                changed = await conn.fetch(REMOVE_FROM_SEGMENT, books, ids, segment)
            elif action == rights_pb2.SEGMENT_ACTION_REPLACE:
                changed = await conn.fetch(LOAD_INTO_SEGMENT, books, ids, segment, str(UUID(load_id)))
            else:
                changed = await conn.fetch(ADD_TO_SEGMENT, books, ids, segment, NO_LOAD)
            return Changed(len(changed), refused)

        return await self._change(work)

    async def finish_segment(self, segment: str, load_id: UUID, after: Person | None) -> tuple[int, Person | None]:
        """Take out whom another load put into a segment, among the members after one.

        Returns:
            How many were taken out, and after whom to go on; None when that were all.
        """
        first = after or Person(-1, UUID(int=0))

        async def work(conn: Connection) -> tuple[int, Person | None]:
            end = await conn.fetchrow(READ_STRETCH, *first, MEMBERS_PER_FINISH - 1)
            last = Person(*end) if end else None
            done = await conn.execute(FINISH_SEGMENT, segment, str(load_id), *first, *(last or (None, None)))
            return int(done.split()[-1]), last

        return await self._change(work)

    async def count_segments(self) -> list[tuple[str, int]]:
        """Return all segments with the number of their members, in alphabetical order."""
        async with connection(self._pool) as conn:
            return [(row["segment"], row["members"]) for row in await conn.fetch(COUNT_SEGMENTS)]

    async def put_offers(self, rows: Sequence[rights_pb2.OfferAssignment], today: date) -> Changed:
        """Make members offers; of several for one member and promotion the last one counts.

        Raises:
            Refused: LEDGER_UNAVAILABLE, OVERLOADED; sending all again is safe.
        """

        async def work(conn: Connection) -> Changed:
            offers, refused = await self._offers(conn, rows)
            named = {index: (offer.person, offer.row.promotion_id) for index, offer in offers.items()}
            for index in await _without_room(conn, READ_CROWDED_OFFERS, named, MOST_OFFERS):
                refused[index] = too_many("member", MOST_OFFERS, "offers")
                del offers[index]
            by_person: dict[Person, dict[str, list[str | None]]] = {}
            for person, row in offers.values():
                by_person.setdefault(person, {})[row.promotion_id] = [_text(row.first), _text(row.last)]
            return Changed(await _write_offers(conn, by_person, today - OFFERS_KEPT), refused)

        return await self._change(work)

    async def remove_offers(self, rows: Sequence[rights_pb2.OfferAssignment]) -> Changed:
        """Take offers away, whatever their dates.

        Raises:
            Refused: LEDGER_UNAVAILABLE, OVERLOADED; sending all again is safe.
        """

        async def work(conn: Connection) -> Changed:
            offers, refused = await self._offers(conn, rows)
            by_person: dict[Person, set[str]] = {}
            for person, row in offers.values():
                by_person.setdefault(person, set()).add(row.promotion_id)
            people = sorted(by_person)
            joined = ["\n".join(by_person[person]) for person in people]
            books, ids = [one.book for one in people], [one.member_id for one in people]
            return Changed(len(await conn.fetch(REMOVE_OFFERS, books, ids, joined)), refused)

        return await self._change(work)

    async def _change(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do some work in one transaction, which also tells the workers to forget the members they remember."""

        async def told(conn: Connection) -> T:
            result = await work(conn)
            await conn.execute(RAISE_VERSION, TOPIC)
            return result

        return await in_transaction(self._pool, told)

    async def _offers(
        self, conn: Connection, rows: Sequence[rights_pb2.OfferAssignment]
    ) -> tuple[dict[int, Offer], dict[int, Refused]]:
        sound: dict[int, OfferRow] = {}
        refused: dict[int, Refused] = {}
        for index, row in enumerate(rows):
            try:
                check(row)
                sound[index] = OfferRow(row.promotion_id, *read_days(row.valid_from, row.valid_until))
            except Refused as refusal:
                refused[index] = refusal
        people, unknown = await self._finder.find(conn, {index: rows[index].member for index in sound}, lock=True)
        return {index: Offer(people[index], sound[index]) for index in sound if index in people}, refused | unknown


async def read_audience(conn: Connection, person: Person) -> tuple[list[str], list[OfferRow]]:
    """Return a member's segments and offers, in alphabetical order."""
    row = await conn.fetchrow(READ_AUDIENCE, *person)
    if row is None:
        return [], []
    offers = json.loads(row["offers"])
    return sorted(json.loads(row["segments"])), [OfferRow(one, *map(_day, offers[one])) for one in sorted(offers)]


async def move_audience(conn: Connection, duplicate: Person, survivor: Person) -> None:
    """Give what a merged member has to the survivor, in the merge's transaction."""
    await conn.execute(MOVE_AUDIENCE, *duplicate, *survivor)


async def _without_room(conn: Connection, query: str, named: Mapping[int, tuple[Person, str]], most: int) -> list[int]:
    """Return the keys of those by whom a member would have more names than may be."""
    more = Counter(person for person, _ in named.values())
    people = sorted(more)
    books, ids = [one.book for one in people], [one.member_id for one in people]
    rows = await conn.fetch(query, books, ids, [more[one] for one in people], most)
    crowded = {row["member_id"]: set(row["names"]) for row in rows}
    late = []
    for key, (person, name) in named.items():
        names = crowded.get(person.member_id)
        if names is None or name in names:
            continue
        if len(names) < most:
            names.add(name)
        else:
            late.append(key)
    return late


async def _write_offers(
    conn: Connection, by_person: Mapping[Person, Mapping[str, Sequence[str | None]]], ended_before: date
) -> int:
    people = sorted(by_person)
    objects = [json.dumps(by_person[person]) for person in people]
    books, ids = [one.book for one in people], [one.member_id for one in people]
    return len(await conn.fetch(ADD_OFFERS, books, ids, objects, ended_before))


def _text(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


def _day(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)
