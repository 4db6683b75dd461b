"""Balances as messages."""

from __future__ import annotations

from tallypoint.v1 import common_pb2

from ledger.reading.balances import BalanceAt


def balance_message(balance: BalanceAt) -> common_pb2.Balance:
    """Return a balance as a message."""
    message = common_pb2.Balance(
        unit=balance.unit.code,
        precision=balance.unit.precision,
        available_points_minor=balance.available_minor,
        pending_points_minor=balance.pending_minor,
        held_points_minor=balance.held_minor,
        debt_points_minor=balance.debt_minor,
    )
    if balance.expires_at is not None:
        message.expiring_next.points_minor = balance.expiring_minor
        message.expiring_next.expires_at.FromDatetime(balance.expires_at)
    return message
