"""Parts: units of an article that have been treated alike so far; what discounts are applied to, if units matter.

A line begins as one part. Lines of equal pieces (the same article, the same price, the same lowest price) are one part
together: how the goods were keyed plays no role for what they cost. Whatever treats some units otherwise than the
rest, a deal or a limit, cuts the part in two. At the end the parts are told apart by line again.

All money is that of the whole part. Its units cost the same, up to one minor unit if the amount can't be divided: then
the first ones are the dearer ones. Pieces of a quantity that is not whole share its money in proportion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

from server.promotions.arithmetic import UNIT_MILLI, counted_units, half_up_div, spread_largest_remainder
from server.promotions.facts import DiscountRow, ReceiptLine

Turn = tuple[int, int]
"""When a discount was applied: the number of the step, and the place in it. Discounts of a line are listed so."""

TakenRow = tuple[Turn, str, int, int]
"""What a promotion took off a part: when, its id, minor units of money, and how many units of its limits that used."""

BEFORE = -1
"""The number of all steps before the receipt was taken apart."""

Ranges = Sequence[tuple[int, int]]
"""Units of a part by their place in it, dearest first: from the first, included, to the last, excluded."""

_sku = itemgetter(1)
_new = tuple.__new__  # builds a named tuple in half the time of calling its class


class Part(NamedTuple):
    """Units that have been treated alike.

    `at` is the position of the first line that they were keyed on, `spans` are all such lines with how many of the
    units stand there. `units` count for deals; `rest_milli` is what a quantity that is not whole has beyond them.
    `is_locked`: an exclusive promotion of an earlier step has them to itself; `is_claimed`: one of this step has.
    `step` is the number of this step.
    """

    at: int
    spans: tuple[tuple[int, int], ...]
    units: int
    quantity_milli: int
    rest_milli: int
    list_minor: int
    floor_minor: int
    left_minor: int
    cut_minor: int = 0
    taken: tuple[TakenRow, ...] = ()
    is_locked: bool = False
    is_claimed: bool = False
    step: int = 0

    @property
    def begun_units(self) -> int:
        """How many units of a limit the part uses up: the rest of a quantity that is not whole uses one."""
        return self.units + (self.rest_milli > 0)

    @property
    def room_minor(self) -> int:
        """What may still be taken off."""
        return max(0, self.left_minor - self.floor_minor)

    @property
    def units_minor(self) -> int:
        """What is left of the units, without the rest of a quantity that is not whole."""
        return self._of_units(self.left_minor)

    @property
    def was_reduced(self) -> bool:
        """Whether an earlier step took something off."""
        return bool(self.taken) and self.taken[0][0][0] < self.step

    def reduced(
        self, place: int, promotion_id: str, wanted_minor: int, kept_minor: int, uses: int = 0, *, claims: bool = False
    ) -> Part:
        """The part after a promotion took off `kept_minor`, of `wanted_minor` that its lowest price permits.

        `place` is that of the promotion among those of the step, `uses` how many units of its limits it uses.
        """
        cut = self.cut_minor + max(0, wanted_minor - kept_minor)
        if not kept_minor:
            return self if cut == self.cut_minor else self._replace(cut_minor=cut)
        return _new(
            Part,
            (
                *self[:7],
                self.left_minor - kept_minor,
                cut,
                (*self.taken, ((self.step, place), promotion_id, kept_minor, uses)),
                self.is_locked,
                self.is_claimed or claims,
                self.step,
            ),
        )

    def for_next_step(self) -> Part:
        """The part as a new step finds it."""
        return _new(Part, (*self[:10], self.is_locked or self.is_claimed, False, self.step + 1))

    def front(self, begun_units: int) -> tuple[Part, Part | None]:
        """The first so many begun units, and the others."""
        if begun_units >= self.begun_units:
            return self, None
        return self.split([(0, begun_units)])

    def split(self, ranges: Ranges, prices: Ranges | None = None) -> tuple[Part, Part]:
        """Cut out some units, not all that is there: these, and the others.

        `prices`: give them the prices of other units, as many, instead of their own.
        """
        units = sum(end - begin for begin, end in ranges)
        listed, floor, left, cut = (
            _share(self._of_units(total), self.units, prices or ranges)
            for total in (self.list_minor, self.floor_minor, self.left_minor, self.cut_minor)
        )
        taken, other_taken = _divided(self.taken, listed - left, units)
        spans, other_spans = self._divided_spans(ranges)
        flags = self[10:]
        milli = units * UNIT_MILLI
        inside = (self.at, spans, units, milli, 0, listed, floor, left, cut, taken, *flags)
        outside = (
            self.at,
            other_spans,
            self.units - units,
            self.quantity_milli - milli,
            self.rest_milli,
            self.list_minor - listed,
            self.floor_minor - floor,
            self.left_minor - left,
            self.cut_minor - cut,
            other_taken,
            *flags,
        )
        return _new(Part, inside), _new(Part, outside)

    def by_line(self) -> Iterable[tuple[int, Part]]:
        """The part taken apart by the lines that its units stand on; earlier lines get the larger discounts."""
        rest = self
        while len(rest.spans) > 1:
            line, units = rest.spans[0]
            piece, rest = rest.split([(0, units)], [(rest.units - units, rest.units)])
            yield line, piece
        yield rest.spans[0][0], rest

    def left_by_line(self) -> Iterator[tuple[int, int]]:
        """What is left of the part on each of its lines."""
        if len(self.spans) == 1:
            yield self.at, self.left_minor
            return
        each, remainder = divmod(self.left_minor, self.units)
        cheaper, position = self.units - remainder, 0
        for line, units in self.spans:
            upto = position + units
            yield line, units * each + max(0, upto - cheaper) - max(0, position - cheaper)
            position = upto

    def _of_units(self, total: int) -> int:
        if not self.rest_milli:
            return total
        return half_up_div(total * (self.quantity_milli - self.rest_milli), self.quantity_milli)

    def _divided_spans(self, ranges: Ranges) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
        if len(self.spans) == 1:
            line, units = self.spans[0]
            inside = sum(end - begin for begin, end in ranges)
            return ((line, inside),), ((line, units - inside),)
        found, others = [], []
        position = 0
        for line, units in self.spans:
            upto = position + units
            inside = sum(max(0, min(end, upto) - max(begin, position)) for begin, end in ranges)
            if inside:
                found.append((line, inside))
            if units - inside:
                others.append((line, units - inside))
            position = upto
        return tuple(found), tuple(others)


def within_rooms(wanted: Sequence[int], weights: Sequence[int], rooms: Sequence[int], *, spreads: bool) -> list[int]:
    """What lowest prices permit of a discount over several goods; with `spreads` the rest goes to those with room."""
    kept = [min(amount, room) for amount, room in zip(wanted, rooms, strict=True)]
    if spreads and kept != list(wanted):
        return spread_largest_remainder(sum(wanted), weights, rooms)
    return kept


def _share(total: int, units: int, ranges: Ranges) -> int:
    """What some of the units have of a total that is spread over them, the first ones the remainder."""
    each, remainder = divmod(total, units)
    return sum((end - begin) * each + min(end, remainder) - min(begin, remainder) for begin, end in ranges)


def _divided(
    taken: tuple[TakenRow, ...], discount_minor: int, units: int
) -> tuple[tuple[TakenRow, ...], tuple[TakenRow, ...]]:
    """What promotions took off some units, who lost `discount_minor` in all, and off the others."""
    if not taken:
        return (), ()
    amounts = [amount for _, _, amount, _ in taken]
    parts = spread_largest_remainder(discount_minor, amounts, amounts)
    inside, outside = [], []
    for (turn, promotion_id, amount, uses), part in zip(taken, parts, strict=True):
        used = min(uses, units)
        if part or used:
            inside.append((turn, promotion_id, part, used))
        if amount > part or uses > used:
            outside.append((turn, promotion_id, amount - part, uses - used))
    return tuple(inside), tuple(outside)


def part_of(
    i: int,
    line: ReceiptLine,
    left_minor: int,
    taken: Sequence[DiscountRow] = (),
    cut_minor: int = 0,
    *,
    is_locked: bool = False,
) -> Part:
    """A line as one part."""
    _, _, _, _, _, _, quantity_milli, listed, floor, is_weighed = line
    units = counted_units(quantity_milli, is_weighed)
    rest = 0 if is_weighed else quantity_milli % UNIT_MILLI
    rows: tuple[TakenRow, ...] = ()
    if taken:
        rows = tuple([((BEFORE, place), promotion_id, amount, 0) for place, (promotion_id, amount) in enumerate(taken)])
    head = (i, ((i, units),), units, quantity_milli, rest, listed, floor, left_minor, cut_minor)
    return _new(Part, (*head, rows, is_locked, False, 0))


def have_equal_pieces(lines: Sequence[ReceiptLine]) -> bool:
    """Whether equal pieces stand on several lines."""
    return len(set(map(_sku, lines))) < len(lines) and any(_equal_lines(lines))


def gathered(lines: Sequence[ReceiptLine]) -> dict[int, Part]:
    """The equal pieces that stand on several lines, each as one part, by the position of the first line."""
    return {
        positions[0]: _joined([part_of(i, lines[i], lines[i].list_amount_minor) for i in positions])
        for positions in _equal_lines(lines)
    }


def _equal_lines(lines: Sequence[ReceiptLine]) -> Iterator[list[int]]:
    """The positions of lines with equal pieces, two at least."""
    by_sku: dict[str, list[int]] = {}
    for i, line in enumerate(lines):
        by_sku.setdefault(line[1], []).append(i)
    for positions in by_sku.values():
        if len(positions) == 1:
            continue
        alike: dict[object, list[int]] = {}
        for i in positions:
            alike.setdefault(_equal_pieces(i, lines[i]), []).append(i)
        yield from (found for found in alike.values() if len(found) > 1)


def _equal_pieces(i: int, line: ReceiptLine) -> object:
    """What pieces have in common that are one part; a line that stays by itself has its position."""
    units, rest = divmod(line.quantity_milli, UNIT_MILLI)
    if rest or units < 1 or line.is_weighed:
        return i
    price, price_rest = divmod(line.list_amount_minor, units)
    floor, floor_rest = divmod(line.floor_amount_minor, units)
    return i if price_rest or floor_rest else (*line[1:6], price, floor)


def _joined(parts: Sequence[Part]) -> Part:
    """Parts on which nothing has been taken off yet as one."""
    sums = [sum(column) for column in zip(*(part[2:9] for part in parts), strict=True)]
    spans = tuple(span for part in parts for span in part.spans)
    return _new(Part, (parts[0].at, spans, *sums, (), False, False, 0))
