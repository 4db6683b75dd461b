"""What becomes of a receipt taken offline whose identifier is refused today: the programme decides. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tallypoint.v1 import common_pb2

from server.promotions import OfflineAction, Programme

_CASES: Final[Mapping[common_pb2.RefusalReason, str]] = {
    common_pb2.REFUSAL_REASON_IDENTIFIER_UNKNOWN: "unknown_identifier",
    common_pb2.REFUSAL_REASON_CARD_FOREIGN: "unknown_identifier",
    common_pb2.REFUSAL_REASON_CARD_CHECK_DIGIT_WRONG: "unknown_identifier",
    common_pb2.REFUSAL_REASON_PHONE_INVALID: "unknown_identifier",
    common_pb2.REFUSAL_REASON_MEMBER_BLOCKED: "blocked_member",
    common_pb2.REFUSAL_REASON_CARD_BLOCKED: "blocked_member",
    common_pb2.REFUSAL_REASON_CARD_REPLACED: "replaced_card",
    common_pb2.REFUSAL_REASON_MEMBER_MERGED: "merged_member",
}
"""Which setting of the programme decides. A misread identifier cannot be scanned again: it is as good as unknown."""


def offline_action(reason: common_pb2.RefusalReason, programme: Programme) -> OfflineAction | None:
    """Return what a programme wants for the reason of a refusal; None if the receipt is to be refused for it."""
    case = _CASES.get(reason)
    action: OfflineAction | None = None if case is None else getattr(programme.offline, case)
    return action
