"""What a load test needs to know: terminals with their keys, shoppers, coupons and baskets, in one file of JSON.

`benchmarks.locust.prepare` writes it; the locustfile reads it. It holds keys, so only its owner may read it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from tallypoint.v1 import common_pb2

DEFAULT_PATH: Final = Path(".data/locust/prepared.json")


class NotPrepared(Exception):
    """There is no such file, or it is another one; the message says what to do."""


class Terminal(NamedTuple):
    """A register, with the key that it shows with every call."""

    store_id: str
    terminal_id: str
    key: str


class Shopper(NamedTuple):
    """A member. `phone` is E.164, empty for those who gave none."""

    member_id: str
    card_number: str
    phone: str


class Line(NamedTuple):
    """One position of a basket: quantity in thousandths, money in minor units."""

    sku: str
    quantity_milli: int
    weighed: bool
    list_amount_minor: int


Basket = Sequence[Line]


@dataclass(frozen=True)
class Prepared:
    """A server that is ready for a load test. Shoppers and coupons are shared out among the terminals."""

    pos_address: str
    tls_ca_pem: str
    """The server's certificate authority itself, so that a copy of this file is enough; empty without TLS."""
    currency: str
    terminals: Sequence[Terminal]
    shoppers: Sequence[Shopper]
    unknown_cards: Sequence[str]
    """Well-formed card numbers that nobody has."""
    generic_coupons: Sequence[str]
    """Codes that everybody may use, as often as they like."""
    serial_coupons: Sequence[str]
    """Codes that count once."""
    baskets: Sequence[Basket]

    def save(self, path: Path) -> None:
        """Write the file, for its owner's eyes only."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(asdict(self), file)

    @classmethod
    def load(cls, path: Path) -> Prepared:
        """Read the file.

        Raises:
            NotPrepared: there is none, or it is no such file.
        """
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**fields, **_tuples(fields)})
        except FileNotFoundError as error:
            raise NotPrepared(
                f"{path} does not exist. Prepare a server first: python -m benchmarks.locust.prepare --help"
            ) from error
        except (TypeError, ValueError, KeyError) as error:
            raise NotPrepared(f"{path} is no file of this release: {error}. Prepare again.") from error


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "terminals": [Terminal(*each) for each in fields["terminals"]],
        "shoppers": [Shopper(*each) for each in fields["shoppers"]],
        "baskets": [[Line(*line) for line in basket] for basket in fields["baskets"]],
    }


def receipt_of(basket: Basket, currency: str, event_seconds: int) -> common_pb2.Receipt:
    """Return a basket as a receipt without discounts and tenders; `event_seconds` is Unix time."""
    return common_pb2.Receipt(
        event_at=Timestamp(seconds=event_seconds),
        currency_code=currency,
        terminal_kind=common_pb2.TERMINAL_KIND_LANE,
        lines=[
            common_pb2.ReceiptLine(
                line_number=number,
                sku=line.sku,
                quantity_milli=line.quantity_milli,
                weighed=line.weighed,
                list_amount_minor=line.list_amount_minor,
            )
            for number, line in enumerate(basket, start=1)
        ],
    )
