"""Booked receipts explained: read from the journal, evaluated again from what is stored, put into words."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import journal_pb2
from tallypoint.v1 import programme_pb2 as pb

from ledger.entry.keys import business_key, return_key
from ledger.reading.journal import read_payloads
from ledger.reading.lookups import find_receipts
from server.base.database import connection
from server.base.errors import Refused, invalid_request
from server.edge.moments import no_day
from server.rules.evidence import member_of, paid_of, receipt_of, usage_of
from server.rules.explaining import as_booked, promotion_explanations
from server.rules.mended import judged

if TYPE_CHECKING:
    from ledger.entry.model import Booked
    from server.base.database import Connection, Pool
    from server.rules.book import RulesBook


async def explain(pool: Pool, rules: RulesBook, request: pb.ExplainReceiptRequest) -> pb.ExplainReceiptResponse:
    """Say of a booked receipt why each promotion did or did not apply.

    Raises:
        Refused: NOT_FOUND if the receipt is not booked or its version cannot be read any more, INVALID_REQUEST if the
            entry is no purchase.
    """
    async with connection(pool) as conn:
        booked = await _entry(conn, request)
    event = journal_pb2.Event.FromString(booked.event)
    purchase = event.purchase
    if not purchase.HasField("receipt_key"):
        text = f"entry {booked.book}:{booked.number} is no purchase: only receipts can be explained"
        raise Refused(api.REFUSAL_REASON_INVALID_REQUEST, text, violations=[("entry", "is no purchase")])
    compiled = rules.of_version(purchase.programme_version)
    if compiled is None:
        text = f"version {purchase.programme_version}, which booked the receipt, cannot be read by this release"
        raise Refused(api.REFUSAL_REASON_NOT_FOUND, text)
    facts = (receipt_of(purchase), member_of(purchase), usage_of(purchase), paid_of(purchase))
    judgement = judged(event, compiled)
    promotions = await asyncio.to_thread(promotion_explanations, compiled, *facts)
    if judgement.kinds:
        promotions = [as_booked(one, purchase) for one in promotions]
    return pb.ExplainReceiptResponse(
        entry=pb.EntryPlace(book=booked.book, number=booked.number),
        receipt_key=purchase.receipt_key,
        event_at=purchase.receipt.event_at,
        member_id=purchase.member_id,
        programme_code=purchase.programme_code,
        programme_version=purchase.programme_version,
        lines=purchase.effects,
        promotions=promotions,
        difference=judgement.difference,
        notices=[notice for notice in purchase.notices if notice.promotion_id],
        semantics=event.semantics,
        mended=[pb.MendedKind(kind=one.kind, text=one.text) for one in judgement.kinds],
    )


async def _entry(conn: Connection, request: pb.ExplainReceiptRequest) -> Booked:
    place = (request.entry.book, request.entry.number)
    if request.HasField("receipt_key"):
        sale, goods_return = _keys(request.receipt_key)
        places = await find_receipts(conn, [sale, goods_return])
        place = places.get(sale) or places.get(goods_return) or (0, 0)
    booked = (await read_payloads(conn, [place])).get(place)
    if booked is None:
        raise Refused(
            api.REFUSAL_REASON_NOT_FOUND,
            "no such receipt is booked",
            violations=[("receipt", "is not booked")],
        )
    return booked


def _keys(key: api.ReceiptKey) -> tuple[bytes, bytes]:
    try:
        return business_key(key), return_key(key)
    except ValueError:
        fault = no_day(key.business_date, optional=False)
        raise invalid_request([("receipt_key.business_date", fault)]) from None
