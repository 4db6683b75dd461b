"""What makes random requests get deep: values that exist in the shop, and values at the edges of what is possible."""

from __future__ import annotations

import random
import uuid
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.message import Message
from tallypoint.v1 import common_pb2

REMEMBERED: Final = 400
"""Values kept of each name, so that requests repeat and meet each other."""

EVIL_TEXTS: Final = (
    *(
        "",
        " ",
        "\x00",
        "a\x00b",
        "\x01",
        "\x1b[31m",
        "\x1f",
        "\x7f",
        "\x85",
        "\t",
        "\r\n",
        "a\r\nb",
        "\\",
        "'",
        '"',
        "`",
    ),
    *("\u00a0", "\u00ad", "\u200b", "\u200d", "\u202e", "\u2028", "\ufe0f", "\ufeff", "\uffff", "\U0010ffff", "\ud7ff"),
    *("ß", "ŉ", "ﬀ", "İ", "ı", "é", "e\u0301", "１２３", "٣", "²", "½", "Ⅷ", "𝔘" * 40, "ё" * 64, "雪" * 200),
    *(
        "None",
        "null",
        "true",
        "NaN",
        "inf",
        "-0",
        "1e309",
        "1_000",
        "+1",
        "0x10",
        "=1+1",
        "%s",
        "%(x)s",
        "{0}",
        "{name}",
    ),
    *(
        "../..",
        "/",
        "//",
        "|",
        ",",
        ";",
        ".",
        "..",
        "-",
        "--",
        "*",
        "?",
        "[",
        "]E0",
        "]C1",
        "$1",
        ":p",
        "@",
        "#",
        "\\x00",
    ),
    *("0000-00-00", "0000-01-01", "0001-01-01", "1899-12-30", "1900-02-29", "1970-01-01", "2026-02-30", "2026-13-01"),
    *(
        "9999-12-31",
        "10000-01-01",
        "9999-12",
        "0001-01",
        "2026-1-1",
        "２０２６-01-01",
        "0000-01",
        "2026-11-30T10:00:00Z",
    ),
    *(
        "x" * 32,
        "x" * 33,
        "x" * 64,
        "x" * 65,
        "x" * 200,
        "x" * 201,
        "x" * 500,
        "x" * 1001,
        "9" * 13,
        "9" * 40,
        "9" * 80,
    ),
    *(
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF",
    ),
    *(
        "Europe/Kyiv",
        "Pacific/Kiritimati",
        "Etc/GMT+12",
        "posixrules",
        "localtime",
        "../etc/passwd",
        "America",
        "UTC\x00",
    ),
    *("+380501234567", "+1", "tel:+380501234567", "0" * 15, "+999999999999999", "(050) 123-45-67", "+380501234567 x9"),
    *("2/00000000-0000-0000-0000-000000000000", "-1/x", "99999999999999999999/00000000-0000-0000-0000-000000000000"),
    *("9223372036854775807/" + str(uuid.UUID(int=1)), "9999-12-31/ffffffffffffffff", "0001-01-01/0000000000000000"),
    *("1700000000000000/" + str(uuid.UUID(int=1)), "9" * 40 + "/" + str(uuid.UUID(int=1)), "9999-12-31/store/terminal"),
)
EVIL_NUMBERS: Final = (
    *(0, 1, -1, 2, 7, 99, 100, 500, 501, 999, 1000, 1001, 3600, 3601, 5000, 5001, 10**6, 10**6 + 1, 2**15, 2**16),
    *(2**31 - 1, -(2**31), 2**31, 2**32, 10**9, 10**9 + 1, 10**12, 10**12 + 1, 10**13, 10**15, 10**15 + 1, 10**18),
    *(2**53, 2**62, 2**63 - 1, -(2**63), -(10**12), -(10**12) - 1),
)
EVIL_SECONDS: Final = (
    *(0, -1, 1, 946_684_799, 946_684_800, 4_102_444_799, 4_102_444_800, 253_402_300_799, 253_402_300_800),
    *(-62_135_596_800, -62_135_596_801, 1_764_489_600_000, 2**63 - 1, -(2**63), 2**31, 2**40),
)
EVIL_NANOS: Final = (-1, 1, 999, 999_999_999, 10**9, 2**31 - 1, -(2**31))


class Known:
    """Values by the name of the field that may have them: those of the shop, and those that answers have told since."""

    def __init__(self, shop: Mapping[str, Sequence[str]]) -> None:
        self._fixed = {name: list(values) for name, values in shop.items()}
        self._learnt: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        self.receipt_keys: deque[common_pb2.ReceiptKey] = deque(maxlen=REMEMBERED)

    def pick(self, name: str, dice: random.Random) -> str | None:
        """Return a value for a field of this name; None if none is known."""
        learnt = self._learnt.get(name)
        if learnt and dice.random() < 0.5:
            return dice.choice(learnt)
        fixed = self._fixed.get(name)
        if fixed:
            return dice.choice(fixed)
        return dice.choice(learnt) if learnt else None

    def learn(self, name: str, value: str) -> None:
        """Keep a value that exists now."""
        if value:
            self._learnt[name].append(value)

    def learn_from(self, answer: Message) -> None:
        """Keep what an answer names."""
        for field, value in answer.ListFields():
            if field.name == "receipt_key":
                self.receipt_keys.append(value)
            elif isinstance(value, str) and f"{answer.DESCRIPTOR.name}.{field.name}" in LEARNT:
                self.learn(LEARNT[f"{answer.DESCRIPTOR.name}.{field.name}"], value)
            elif field.message_type is not None and not field.is_repeated:
                self.learn_from(value)
            elif field.message_type is not None and value and not field.message_type.GetOptions().map_entry:
                self.learn_from(value[0])


LEARNT: Final[Mapping[str, str]] = {
    "Break.break_id": "break_id",
    "ListBreaksResponse.next_page_token": "page_token",
    "ListAdjustmentsResponse.next_page_token": "page_token",
    "FinishSegmentResponse.next_page_token": "page_token",
    "ReconcileResponse.next_page_token": "page_token",
    "Member.member_id": "member_id",
    "IssuedCoupon.code": "coupon_code",
    "ManualAdjustment.request_id": "request_id",
    "Card.card_number": "card_number",
}
"""Names of fields in answers, and of the values that they give."""

KINDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("duplicate_id", "survivor_id", "from_member_id", "to_member_id"), "member_id"),
    **dict.fromkeys(("old_card_number", "new_card_number", "card_numbers"), "card_number"),
    **dict.fromkeys(("coupon_codes", "codes", "code"), "coupon_code"),
    **dict.fromkeys(("day", "from_day", "to_day", "business_date", "valid_from", "valid_until", "expires_on"), "day"),
    **dict.fromkeys(("load_id",), "request_id"),
    **dict.fromkeys(("groups",), "group"),
    **dict.fromkeys(("store_ids",), "store_id"),
}
"""Which values fit fields of other names."""


def days_around(today: datetime) -> list[str]:
    """Return days of which most requests are, and some of which few are."""
    near = [(today + timedelta(days=days)).date().isoformat() for days in (0, 0, 0, -1, -1, -2, 1, 2, -7, -31)]
    return [*near, "2026-01-01", "2017-03-01", "2024-02-29", "2000-01-01"]


def new_uuid(dice: random.Random) -> str:
    """Return an id that nobody has."""
    return str(uuid.UUID(int=dice.getrandbits(128), version=4))


def moment_seconds(dice: random.Random) -> int:
    """Return seconds since 1970 of a moment at which most receipts are sold."""
    now = datetime.now(UTC)
    return int((now - timedelta(seconds=dice.choice((0, 1, 60, 3600, 86_400, 40 * 86_400, 300 * 86_400)))).timestamp())
