"""What registers were promised: every operation that was sent, what came back, and how often each was repeated."""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tallypoint.v1 import checkout_pb2, journal_pb2


class Operation(enum.StrEnum):
    """What a register or the back office asks for."""

    PURCHASE = "purchase"
    OFFLINE = "receipt taken offline"
    HOLD = "hold"
    CANCEL = "cancel"
    RETURN = "return"
    ADJUSTMENT = "adjustment"
    APPROVAL = "approval of an adjustment"
    TRANSFER = "transfer"
    MERGE = "merge of members"
    ENROLMENT = "enrolment"


CANCELLED: Final = journal_pb2.HOLD_END_KIND_CANCELLED
FIGURES_TOLD: Final[dict[int, tuple[str, ...]]] = {
    journal_pb2.ENTRY_KIND_HOLD: ("held_points_minor",),
    journal_pb2.ENTRY_KIND_RETURN: (
        "refund_points_minor",
        "clawback_points_minor",
        "clawback_debt_points_minor",
    ),
}
"""The figures of a settlement that an answer repeats, by the kind of entry; purchases repeat all of them."""


class Answer(NamedTuple):
    """What a register was told: the entry, and its figures as bytes."""

    book: int
    number: int
    figures: bytes


@dataclass(slots=True)
class Slip:
    """One operation as its register remembers it."""

    operation: Operation = Operation.PURCHASE
    message_ids: list[bytes] = field(default_factory=list)
    """The messages it was sent in, in order; a message sent again at once counts once."""
    sendings: int = 0
    """Until it was settled."""
    unstored: set[bytes] = field(default_factory=set)
    """Messages of which the register was told that nothing was stored."""
    unanswered: int = 0
    """Sendings after which the register could not know whether it was booked."""
    answer: Answer | None = None
    answered_message: bytes = b""
    """The message that was answered first."""
    reply: bytes = b""
    """The hash of the whole first answer, to be repeated word for word."""
    refusal: str = ""
    """Why it was refused by name; empty if it was not."""
    repeated: int = 0
    """Answers after the first."""

    @property
    def settled(self) -> bool:
        """Whether the register knows what became of it."""
        return self.answer is not None or bool(self.refusal)


@dataclass
class OperationCount:
    """What the tally has of one kind of operation."""

    begun: int = 0
    sendings: int = 0
    acknowledged: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    """Operations of which a sending had an unknown outcome."""
    settled_by_repeating: int = 0
    """Those of them that got their answer, or a refusal by name, from a later sending."""
    repeated: int = 0
    """Further answers, equal to the first."""


@dataclass
class Tally:
    """Counts what was sent, what went wrong, and what was acknowledged. Keys are business keys or message ids."""

    slips: dict[bytes, Slip] = field(default_factory=dict)
    acknowledged: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """Sendings without an answer, by the name of what came instead."""

    def sent(self, key: bytes, message_id: bytes, operation: Operation = Operation.PURCHASE) -> None:
        """Count a sending of the operation with this key."""
        slip = self.slips.setdefault(key, Slip(operation))
        if not slip.message_ids or slip.message_ids[-1] != message_id:
            slip.message_ids.append(message_id)
        slip.sendings += not slip.settled
        slip.unstored.discard(message_id)

    def failed(self, key: bytes, error: str, *, stored_nothing: bool) -> None:
        """Count a sending that got no answer, and remember whether its last message is promised unstored."""
        self.errors[error] += 1
        slip = self.slips[key]
        if stored_nothing:
            slip.unstored.add(slip.message_ids[-1])
        else:
            slip.unanswered += 1

    def refused(self, key: bytes, reason: str) -> None:
        """Count a refusal by name: the operation is not booked, and never will be."""
        slip = self.slips[key]
        assert slip.answer is None, f"{slip.operation} {key.hex()} was told {slip.answer}, and is now refused: {reason}"
        slip.refusal = reason

    def answered(self, key: bytes, answer: Answer, reply: bytes = b"") -> None:
        """Count an acknowledgement; an operation that has one already must get the same again, word for word."""
        slip = self.slips[key]
        if slip.answer is None:
            slip.answer, slip.answered_message, slip.reply = answer, slip.message_ids[-1], reply
            self.acknowledged += 1
        else:
            slip.repeated += 1
        assert slip.answer == answer, f"{slip.operation} {key.hex()} was told {slip.answer}, and now {answer}"
        assert slip.reply == reply, f"{slip.operation} {key.hex()}: its answer is not repeated word for word"

    def counts(self) -> dict[Operation, OperationCount]:
        """Add up the slips by operation."""
        found: dict[Operation, OperationCount] = {}
        for slip in self.slips.values():
            count = found.setdefault(slip.operation, OperationCount())
            count.begun += 1
            count.sendings += slip.sendings
            count.acknowledged += slip.answer is not None
            if slip.refusal:
                count.refused[slip.refusal] += 1
            count.unknown += slip.unanswered > 0
            count.settled_by_repeating += slip.unanswered > 0 and slip.settled
            count.repeated += slip.repeated
        return {operation: found[operation] for operation in Operation if operation in found}

    @property
    def receipts_acknowledged(self) -> int:
        """How many receipts were acknowledged, of purchases and of returns."""
        kinds = (Operation.PURCHASE, Operation.OFFLINE, Operation.RETURN)
        return sum(slip.answer is not None and slip.operation in kinds for slip in self.slips.values())

    def __str__(self) -> str:
        """Say it in one line."""
        sendings = sum(slip.sendings for slip in self.slips.values())
        return (
            f"{len(self.slips)} operations in {sendings} sendings, {self.acknowledged} acknowledged, "
            f"errors {dict(self.errors)}"
        )


def settlement_of(payload: bytes) -> bytes:
    """Return the settlement in an entry's payload, as comparable bytes."""
    return journal_pb2.Event.FromString(payload).settlement.SerializeToString(deterministic=True)


def figures_of(kind: int, event: journal_pb2.Event) -> bytes:
    """Return the figures of an entry of this kind that the answer to it repeats, as comparable bytes."""
    if kind == journal_pb2.ENTRY_KIND_ADJUSTMENT:
        return str(event.adjustment.points_minor).encode()
    if kind == journal_pb2.ENTRY_KIND_TRANSFER:
        given = [posting.points_minor for posting in event.postings if posting.debit == journal_pb2.ACCOUNT_AVAILABLE]
        return str(sum(given)).encode()
    if kind == journal_pb2.ENTRY_KIND_CANCEL:  # other holds may have expired with the same entry
        released = [end.released_points_minor for end in event.hold_ends if end.how == CANCELLED]
        return str(sum(released)).encode()
    names = FIGURES_TOLD.get(kind)
    if names is None:
        return event.settlement.SerializeToString(deterministic=True)
    figures = checkout_pb2.Settlement(**{name: getattr(event.settlement, name) for name in names})
    return figures.SerializeToString(deterministic=True)
