"""Notices for cashier and shopper. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tallypoint.v1 import common_pb2

from server.promotions import Message
from server.promotions.kinds import Audience

_SHOWN_SKUS = 5
_AUDIENCES: Mapping[Audience, common_pb2.Audience] = {
    Audience.CASHIER: common_pb2.AUDIENCE_CASHIER,
    Audience.SHOPPER: common_pb2.AUDIENCE_SHOPPER,
    Audience.RECEIPT: common_pb2.AUDIENCE_RECEIPT,
    Audience.VOICE: common_pb2.AUDIENCE_VOICE,
}


def unknown_sku_notice(unknown: Sequence[str]) -> list[common_pb2.Notice]:
    """Return the notice about articles that the catalogue lacks, if there are any."""
    if not unknown:
        return []
    more = f" and {len(unknown) - _SHOWN_SKUS} more" if len(unknown) > _SHOWN_SKUS else ""
    text = f"Not in the catalogue, sold without category promotions: {', '.join(unknown[:_SHOWN_SKUS])}{more}."
    return [cashier_notice("UNKNOWN_SKU", text)]


def cashier_notice(code: str, text: str) -> common_pb2.Notice:
    """Return a notice for the cashier."""
    return common_pb2.Notice(audience=common_pb2.AUDIENCE_CASHIER, code=code, text=text)


def notices_of(messages: Iterable[Message]) -> list[common_pb2.Notice]:
    """Return the promotions' own texts."""
    return [
        common_pb2.Notice(audience=_AUDIENCES[m.audience], promotion_id=m.promotion_id, text=m.text) for m in messages
    ]
