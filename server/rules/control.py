"""Control groups as a preview sees them: in which a shopper is, and a programme for members of all or of none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import Enum
from fractions import Fraction
from typing import NamedTuple

from server.promotions import Programme
from server.promotions.limits import is_in_control


class Group(Enum):
    """Which group of every control a shopper is put into: that which gets nothing, or that which gets promotions."""

    CONTROL = "control"
    TREATED = "treated"


class Membership(NamedTuple):
    """Whether a shopper is in the control group of one share; `owner` names what they do not get then."""

    owner: str
    share: Fraction
    is_in: bool

    def __str__(self) -> str:
        """Say it in a line."""
        percent = f"{float(self.share * 100):g} %"
        if self.is_in:
            return f"{self.owner}: in the control group ({percent}), which does not get it"
        return f"{self.owner}: not in the control group ({percent})"


def memberships(programme: Programme, member_id: str) -> list[Membership]:
    """Return for each control group of a programme whether a member is in it."""
    return [
        Membership(owner, share, is_in_control(member_id, salt, share)) for owner, salt, share in _shares(programme)
    ]


def _shares(programme: Programme) -> Iterator[tuple[str, str, Fraction]]:
    """Yield owner, salt and share of each control group."""
    owners = [("the programme", programme.code, programme.control_share)]
    owners += [(f"campaign {one.id}", f"@{one.id}", one.control_share) for one in programme.campaigns]
    owners += [(f"promotion {one.id}", one.id, one.control_share) for one in programme.promotions]
    yield from (owner for owner in owners if owner[2])


def with_group(programme: Programme, group: Group) -> Programme:
    """Return the programme as it is for members of one group: every control group has all members, or none."""

    def share_of(share: Fraction) -> Fraction:
        return Fraction(1) if share and group is Group.CONTROL else Fraction(0)

    return replace(
        programme,
        control_share=share_of(programme.control_share),
        campaigns=tuple(replace(one, control_share=share_of(one.control_share)) for one in programme.campaigns),
        promotions=tuple(replace(one, control_share=share_of(one.control_share)) for one in programme.promotions),
    )
