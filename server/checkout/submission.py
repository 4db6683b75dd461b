"""The one way from a call to the books: submit a command; whatever keeps it from being booked becomes a refusal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tallypoint.v1 import checkout_pb2, common_pb2

from ledger.booking.committer import (
    CommandFailed,
    Committer,
    DeadlinePassed,
    Marks,
    MemberChanged,
    OutcomeUnknown,
    Overloaded,
)
from ledger.booking.owned import NEVER_READ
from ledger.entry.keys import business_key, return_key
from ledger.entry.model import Booked, Command, Declined
from server.base.errors import Refused, invalid_field
from server.edge.moments import no_day

CASHIER_TEXTS: Final[Mapping[common_pb2.RefusalReason, str]] = {
    common_pb2.REFUSAL_REASON_RECEIPT_KEY_REUSED: "This receipt is already booked. Call the administrator.",
    common_pb2.REFUSAL_REASON_MESSAGE_ID_REUSED: "The register sent one message in two forms. Call the administrator.",
    common_pb2.REFUSAL_REASON_POINTS_INSUFFICIENT: "There are not that many points. Ask for fewer.",
    common_pb2.REFUSAL_REASON_HELD_ELSEWHERE: "Another lane holds these points. Ask for fewer, or take them over.",
    common_pb2.REFUSAL_REASON_HOLD_GONE: "This checkout is paid already. Begin a new one.",
    common_pb2.REFUSAL_REASON_COUPON_USED: "This coupon was used a moment ago. Take it out and quote again.",
    common_pb2.REFUSAL_REASON_COUPON_HELD_ELSEWHERE: "Another checkout uses this coupon. Finish or cancel there.",
    common_pb2.REFUSAL_REASON_RETURN_EXCEEDS_PURCHASE: "More would come back than was bought. Check earlier returns.",
}
"""What a cashier is told when the books refuse."""


def receipt_key_bytes(key: common_pb2.ReceiptKey, field: str) -> bytes:
    """Return the 16 bytes under which a sale counts once; ``field`` is the key's place in the request.

    Raises:
        Refused: if its business date is none.
    """
    return _key_bytes(key, field, business_key)


def return_key_bytes(key: common_pb2.ReceiptKey, field: str) -> bytes:
    """Return the 16 bytes under which a return counts once; Refused as `receipt_key_bytes`."""
    return _key_bytes(key, field, return_key)


def _key_bytes(key: common_pb2.ReceiptKey, field: str, form: Callable[[common_pb2.ReceiptKey], bytes]) -> bytes:
    try:
        return form(key)
    except ValueError:
        raise invalid_field(f"{field}.business_date", no_day(key.business_date, optional=False)) from None


async def turn(committer: Committer, book: int, deadline: float | None) -> None:
    """Wait until a book takes its next batch; see `Committer.turn`.

    Raises:
        Refused: OVERLOADED or DEADLINE_PASSED.
    """
    try:
        await committer.turn(book, deadline)
    except (Overloaded, DeadlinePassed) as error:
        raise _not_stored(error) from error


def _not_stored(error: Overloaded | DeadlinePassed) -> Refused:
    if isinstance(error, DeadlinePassed):
        return Refused(common_pb2.REFUSAL_REASON_DEADLINE_PASSED, str(error))
    return Refused(common_pb2.REFUSAL_REASON_OVERLOADED, str(error), retry_after_seconds=error.retry_after_seconds)


async def submit(
    committer: Committer,
    command: Command,
    deadline: float | None,
    refusal: Refused | None = None,
    *,
    as_of: int = NEVER_READ,
    marks: Marks | None = None,
) -> Booked:
    """Submit a command; return its entry, or its stored one, once it is durable.

    ``refusal`` is what ``command.refusal`` stands for, with its text for the cashier; ``as_of`` and ``marks`` are
    those of `Committer.submit`.

    Raises:
        Refused: by name, if the command was not booked or its outcome is unknown.
        MemberChanged: if the member has changed since ``as_of``.
    """
    try:
        outcome = await committer.submit(command, deadline, as_of=as_of, marks=marks)
    except (Overloaded, DeadlinePassed) as error:
        raise _not_stored(error) from error
    except OutcomeUnknown as error:
        raise Refused(common_pb2.REFUSAL_REASON_LEDGER_UNAVAILABLE, str(error), retry_after_seconds=1.0) from error
    except MemberChanged:
        raise  # the command is to be made again
    except CommandFailed:
        raise  # a mistake of ours: the edge answers INTERNAL with an incident id
    if refusal is not None and outcome is command.refusal:
        raise refusal
    if isinstance(outcome, Declined):
        raise Refused(outcome.reason, outcome.message, cashier_text=CASHIER_TEXTS.get(outcome.reason, ""))
    assert isinstance(outcome, Booked), "nothing that a register asks for leaves the books unchanged"
    return outcome


def entry_ref(booked: Booked) -> common_pb2.EntryRef:
    """Return where an entry stands."""
    ref = common_pb2.EntryRef(book=booked.book, number=booked.number)
    ref.booked_at.FromDatetime(booked.booked_at)
    return ref


def balances_of(settlement: checkout_pb2.Settlement) -> list[common_pb2.Balance]:
    """Return the balances that an entry left: of the programme's own point, then of each further unit it moved."""
    own = [settlement.balance] if settlement.HasField("balance") else []
    return [*own, *(unit.balance for unit in settlement.units)]
