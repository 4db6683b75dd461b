"""Promotions: a programme file in, exact discounts and points out. Pure: no I/O, no clock, integers only.

`load_programme` reads the author's YAML, `compile_rules` indexes it once a version, and `quote`,
`earn_as_paid` and `lots_to_grant` evaluate receipts. The guide for authors is docs/programme.md.
"""

from server.promotions.compile import Rules, compile_rules
from server.promotions.evaluate import earn_as_paid, lot_terms, lots_to_grant, quote
from server.promotions.load import ProgrammeError, load_programme
from server.promotions.model import (
    Accrual,
    Clawback,
    Discount,
    Effects,
    LineEffects,
    LotDates,
    LotGrant,
    MemberFacts,
    Message,
    OfflineAction,
    PaidLine,
    Programme,
    ReceiptError,
    ReceiptFacts,
    ReceiptLine,
    Variance,
)
from server.promotions.schema import json_schema

__all__ = [
    "Accrual",
    "Clawback",
    "Discount",
    "Effects",
    "LineEffects",
    "LotDates",
    "LotGrant",
    "MemberFacts",
    "Message",
    "OfflineAction",
    "PaidLine",
    "Programme",
    "ProgrammeError",
    "ReceiptError",
    "ReceiptFacts",
    "ReceiptLine",
    "Rules",
    "Variance",
    "compile_rules",
    "earn_as_paid",
    "json_schema",
    "load_programme",
    "lot_terms",
    "lots_to_grant",
    "quote",
]
