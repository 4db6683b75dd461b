"""A shop that speaks to a running service over its public API alone, and notes down whatever it was answered.

It runs beside the release that makes the ledger, so it imports nothing of ours but the generated API.
"""

from __future__ import annotations

import base64
import itertools
import struct
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from tallypoint.v1 import (
    checkout_pb2,
    checkout_pb2_grpc,
    common_pb2,
    correction_pb2,
    correction_pb2_grpc,
    member_pb2,
    member_pb2_grpc,
    programme_pb2,
    programme_pb2_grpc,
    rights_pb2,
    rights_pb2_grpc,
    store_pb2,
    store_pb2_grpc,
)

Auth = tuple[tuple[str, str], ...]
NAMESPACE: Final = uuid.UUID("5f0d6a52-5d3a-4a53-9a3c-0d5d6d9c2b11")
TIMEOUT_SECONDS: Final = 30


def named_id(name: str) -> str:
    """Return the UUID that this name always has: of a member, a message or a request."""
    return str(uuid.uuid5(NAMESPACE, name))


def card(number: str) -> common_pb2.Identifier:
    """Name a member by card."""
    return common_pb2.Identifier(card_number=number)


def line(sku: str, amount_minor: int, pieces: float = 1, **more: Any) -> dict[str, Any]:
    """Return a line that costs this in all; more than its pieces and price as further fields."""
    return {"sku": sku, "list_amount_minor": amount_minor, "quantity_milli": round(pieces * 1000), **more}


@dataclass(frozen=True)
class Sold:
    """A receipt that was booked: its key, its request and the answer."""

    request: checkout_pb2.CommitRequest
    answer: checkout_pb2.CommitResponse

    @property
    def key(self) -> common_pb2.ReceiptKey:
        """The receipt's business key."""
        return self.request.receipt_key


class Clock:
    """The clock of registers and service, in UTC: it stands still between calls, and is set from outside."""

    def __init__(self, step_file: Path, now: datetime) -> None:
        """Step the processes that look at this file, see tests/support/stepped_clock."""
        self._step_file = step_file
        self.set(now)

    def set(self, now: datetime) -> None:
        """Set the clock."""
        self.now = now
        step = now - datetime.now(UTC)
        with self._step_file.open("r+b" if self._step_file.exists() else "w+b") as file:
            file.write(struct.pack("<q", round(step.total_seconds() * 1000)))


@dataclass
class Shop:
    """The service as registers and the back office see it."""

    pos: grpc.Channel
    office: grpc.Channel
    admin: Auth
    finance: Auth
    clock: Clock
    keys: dict[str, str] = field(default_factory=dict)
    """The key of each store's terminal, by store."""
    noted: list[dict[str, str]] = field(default_factory=list)
    """Every call of a register that changes something: name, call, store, request, and answer or refusal."""
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        """Make the stubs."""
        self.till = checkout_pb2_grpc.CheckoutServiceStub(self.pos)
        self.members = member_pb2_grpc.MemberServiceStub(self.office)
        self.stores = store_pb2_grpc.StoreServiceStub(self.office)
        self.programmes = programme_pb2_grpc.ProgrammeServiceStub(self.office)
        self.rights = rights_pb2_grpc.RightsServiceStub(self.office)
        self.corrections = correction_pb2_grpc.CorrectionServiceStub(self.office)

    @property
    def now(self) -> datetime:
        """What the clock says."""
        return self.clock.now

    # --- the back office ---

    def open_store(self, store_id: str, groups: Sequence[str] = (), partner: str = "") -> None:
        """Make a store with the terminal `t1`."""
        store = store_pb2.Store(
            store_id=store_id, name=store_id, time_zone="Europe/Kyiv", groups=groups, partner=partner
        )
        self.stores.PutStore(store_pb2.PutStoreRequest(store=store), metadata=self.admin)
        asked = store_pb2.IssueTerminalKeyRequest(store_id=store_id, terminal_id="t1")
        self.keys[store_id] = self.stores.IssueTerminalKey(asked, metadata=self.admin).key

    def put_products(self, categories: Mapping[str, str], **tagged: tuple[str, str]) -> None:
        """Load the catalogue: SKUs with their category, and as named arguments those with category and tag."""
        products = [store_pb2.Product(sku=sku, category=category) for sku, category in categories.items()]
        products += [store_pb2.Product(sku=sku, category=c, tags=[tag]) for sku, (c, tag) in tagged.items()]
        self.stores.PutProducts(store_pb2.PutProductsRequest(products=products), metadata=self.admin)

    def enrol(self, name: str, **person: Any) -> str:
        """Register a member whose id follows from the name; return the id."""
        profile = member_pb2.Profile(
            name=person.pop("full_name", name),
            birthday=person.pop("birthday", ""),
            language=person.pop("language", ""),
        )
        new = member_pb2.NewMember(member_id=named_id(name), profile=profile, **person)
        request = member_pb2.RegisterMemberRequest(message_id=named_id(f"enrol {name}"), member=new)
        return str(self.members.RegisterMember(request, metadata=self.admin).member.member_id)

    def publish(self, text: str, rollout: programme_pb2.Rollout | None = None) -> None:
        """Store a programme's next version."""
        request = programme_pb2.PublishProgrammeRequest(text=text, file_name="corner.yaml", rollout=rollout)
        self.programmes.PublishProgramme(request, metadata=self.admin)

    def adjust(self, name: str, member: str, points_minor: int, reason: str = "goodwill", **more: Any) -> None:
        """Ask for points by hand."""
        request = correction_pb2.RequestAdjustmentRequest(
            request_id=named_id(name),
            member_id=named_id(member),
            points_minor=points_minor,
            reason_code=reason,
            note=name,
            **more,
        )
        self.corrections.RequestAdjustment(request, metadata=self.admin)

    def coupons(self, series: str, *rows: rights_pb2.CouponRow) -> None:
        """Load coupons."""
        answer = self.rights.LoadCoupons(
            rights_pb2.LoadCouponsRequest(series=series, coupons=rows), metadata=self.admin
        )
        assert not answer.refused, answer

    # --- the till ---

    def key(self, store_id: str, business_date: str = "") -> common_pb2.ReceiptKey:
        """Return the key of a new receipt, of today unless it says otherwise."""
        return common_pb2.ReceiptKey(
            store_id=store_id,
            terminal_id="t1",
            business_date=business_date or self.now.date().isoformat(),
            receipt_number=next(self.numbers),
        )

    def receipt(self, *lines: dict[str, Any], event_at: datetime | None = None) -> common_pb2.Receipt:
        """Return a receipt of now."""
        receipt = common_pb2.Receipt(currency_code="UAH", channel="shop", terminal_kind=common_pb2.TERMINAL_KIND_LANE)
        receipt.event_at.FromDatetime(event_at or self.now)
        for number, one in enumerate(lines, start=1):
            receipt.lines.add(**{"line_number": number, **one})
        return receipt

    def sell(
        self,
        name: str,
        who: common_pb2.Identifier | None,
        *lines: dict[str, Any],
        store: str = "kyiv-1",
        spend: int = 0,
        coupons: Sequence[str] = (),
        **more: Any,
    ) -> Sold | None:
        """Quote a receipt, give the discounts of the quote, and commit it; return it unless it was refused."""
        receipt = more.pop("receipt", None) or self.receipt(*lines)
        asked = checkout_pb2.QuoteRequest(
            identifier=who, receipt=receipt, spend_points_minor=spend, coupon_codes=coupons
        )
        quote = self.till.Quote(asked, metadata=self.auth(store), timeout=TIMEOUT_SECONDS)
        for bought, effects in zip(receipt.lines, quote.lines, strict=True):
            bought.discount_minor = sum(part.amount_minor for part in effects.discounts)
        request = checkout_pb2.CommitRequest(
            message_id=named_id(f"commit {name}"),
            receipt_key=more.pop("receipt_key", None) or self.key(store),
            identifier=who,
            receipt=receipt,
            spend_points_minor=spend,
            coupon_codes=coupons,
            quoted_programme_version=quote.programme_version,
            **more,
        )
        return self.commit(name, request)

    def commit(self, name: str, request: checkout_pb2.CommitRequest) -> Sold | None:
        """Commit; return what was sold unless it was refused."""
        answer = self._call(name, "Commit", request.receipt_key.store_id, request)
        return None if answer is None else Sold(request, answer)

    def hold(self, name: str, who: common_pb2.Identifier, spend: int, *lines: dict[str, Any], **more: Any) -> None:
        """Keep points and coupons for the checkout of this name."""
        store = more.pop("store", "kyiv-1")
        self._call(
            name,
            "Hold",
            store,
            checkout_pb2.HoldRequest(
                message_id=named_id(f"hold {name}"),
                checkout_key=self.checkout(name, store),
                identifier=who,
                receipt=self.receipt(*lines),
                spend_points_minor=spend,
                **more,
            ),
        )

    def cancel(self, name: str, store: str = "kyiv-1") -> None:
        """Let go of what the checkout of this name holds."""
        request = checkout_pb2.CancelRequest(
            message_id=named_id(f"cancel {name}"), checkout_key=self.checkout(name, store), reason="left"
        )
        self._call(f"{name}, cancelled", "Cancel", store, request)

    def take_back(self, name: str, sold: Sold | None, *lines: tuple[int, float], **more: Any) -> Any:
        """Return (line number, pieces) of a receipt, or all that is left."""
        assert sold is not None, name
        store = more.pop("store", "kyiv-1")
        request = checkout_pb2.ReturnRequest(
            message_id=named_id(f"return {name}"),
            receipt_key=more.pop("receipt_key", None) or self.key(store),
            purchase_key=sold.key,
            lines=[checkout_pb2.ReturnedLine(line_number=n, quantity_milli=round(q * 1000)) for n, q in lines],
        )
        request.event_at.FromDatetime(self.now)
        return self._call(name, "Return", store, request)

    def batch(self, name: str, store: str, commits: Sequence[checkout_pb2.CommitRequest]) -> None:
        """Send a register's journal."""
        self._call(name, "CommitBatch", store, checkout_pb2.CommitBatchRequest(commits=commits))

    def checkout(self, name: str, store: str) -> checkout_pb2.CheckoutKey:
        """Return the key of the checkout of this name."""
        return checkout_pb2.CheckoutKey(store_id=store, terminal_id="t1", checkout_id=named_id(name)[:8])

    def auth(self, store: str) -> Auth:
        """The metadata with the key of a store's terminal."""
        return (("authorization", f"Bearer {self.keys[store]}"),)

    def _call(self, name: str, call: str, store: str, request: Any) -> Any:
        """Call a register's method and note the answer; return None if it was refused, which is noted as well."""
        note = {"name": name, "call": call, "store": store, "at": self.now.isoformat(), "request": _text(request)}
        self.noted.append(note)
        self.clock.set(self.now + timedelta(seconds=20))
        try:
            answer = getattr(self.till, call)(request, metadata=self.auth(store), timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            note["refused"] = _reason(error)
            return None
        note["answer"] = _text(answer)
        return answer


def _text(message: Any) -> str:
    return base64.b64encode(message.SerializeToString(deterministic=True)).decode()


def _reason(error: grpc.RpcError) -> str:
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(error)
    found = [info.reason for detail in (status.details if status else ()) if detail.Unpack(info)]
    return found[0] if found else str(error)
