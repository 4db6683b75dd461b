"""A programme that takes points, levels or clubs away from members is published by those only who say so."""

from __future__ import annotations

from datetime import date

import pytest
from tallypoint.v1 import programme_pb2 as pb

from server.base.errors import Refused
from server.rules.stranding import Named, Stranded, not_named
from tests.integration.test_rules import ADMIN, Chain, chain, share

__all__ = ("chain",)

LEVELS = "tiers: {by: spend, window: {months: 12}, levels: [{code: silver, name: Silver, at_least: 50.00}]}\n"
GIFTS = "units: [{unit: gift, name: Gifts, precision: 0, pays: 1.00}]\n"
CLUB = "  - {id: card, name: The club, scope: {categories: [bakery]}, club: {name: green, days: 365}}\n"
GRANT = "  - {id: gifts, name: A gift, points: {fixed: 3, unit: gift}}\n"


def text(code: str = "demo", unit: str = "bonus", pays: str = "1", begins: str = "2026-01-01", more: str = "") -> str:
    """Return a programme that gives 10 % of what is bought."""
    return (
        f"programme: {code}\nname: Test\neffective_from: {begins}\ncurrency: UAH\n"
        f"point: {{unit: {unit}, precision: 2, pays: {pays}}}\nearning: {{base_percent: 10}}\n{more}"
    )


PLAIN = text()
RICH = text(more=f"{LEVELS}{GIFTS}promotions:\n{CLUB}{GRANT}")
OTHER_UNIT = text(unit="star")


async def bought(chain: Chain, programme: str) -> None:
    """Publish a programme, and let two shoppers earn 10.00 points each."""
    await chain.publish(programme)
    for _ in range(2):
        await chain.buy(await chain.shopper(), 10_000)


async def checked(chain: Chain, programme: str) -> pb.CheckProgrammeResponse:
    return await chain.desk.check_programme(pb.CheckProgrammeRequest(text=programme), ADMIN)


def named(points_minor: int = 2_000, members: int = 2, unit: str = "bonus") -> list[pb.StrandedPoints]:
    return [pb.StrandedPoints(unit=unit, points_minor=points_minor, members=members)]


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        pytest.param(PLAIN, OTHER_UNIT, "programme demo has the point unit star", id="other unit"),
        pytest.param(PLAIN, text(code="spring"), "they were earned in programme demo", id="other code"),
        pytest.param(PLAIN, text("spring", "star"), "programme spring has the point unit star", id="both"),
        pytest.param(PLAIN, text(unit="star", begins="2030-01-01"), "the point unit star", id="of a later date"),
    ],
)
async def test_what_a_programme_strands_has_to_be_named(chain: Chain, before: str, after: str, why: str) -> None:
    await bought(chain, before)
    (strand,) = (await checked(chain, after)).strands
    assert (strand.text, why in strand.reason) == ("20.00 bonus of 2 members", True), strand
    with pytest.raises(Refused, match=r"this strands 20\.00 bonus of 2 members") as refused:
        await chain.publish(after)
    assert (refused.value.reason_name, refused.value.violations[0][0]) == ("POINTS_STRANDED", "strands")
    assert len(await chain.store.list_versions()) == 1
    for wrong in (named(1_000), named(members=1), named(unit="star")):
        with pytest.raises(Refused):
            await chain.desk.publish_programme(pb.PublishProgrammeRequest(text=after, strands=wrong), ADMIN)
    await chain.desk.publish_programme(pb.PublishProgrammeRequest(text=after, strands=named()), ADMIN)
    assert len(await chain.store.list_versions()) == 2


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(PLAIN, PLAIN.replace("10}", "12}"), id="another percent"),
        pytest.param(PLAIN, RICH, id="levels, clubs and units that are new"),
        pytest.param(PLAIN, text(unit="star", begins="2025-01-01"), id="of an earlier date, so it counts for nobody"),
        pytest.param(
            PLAIN,
            text(unit="star", more="units: [{unit: bonus, name: Bonus, precision: 2, pays: 1}]\n"),
            id="a further unit",
        ),
    ],
)
async def test_what_takes_nothing_from_members_is_published_as_ever(chain: Chain, before: str, after: str) -> None:
    await bought(chain, before)
    found = await checked(chain, after)
    assert (list(found.strands), list(found.losses)) == ([], [])
    await chain.publish(after)


async def test_another_unit_strands_nothing_while_nobody_has_points(chain: Chain) -> None:
    first = await chain.publish(PLAIN)
    second = await chain.publish(text("spring", "star"))
    assert second.version == first.version + 1


async def test_a_version_that_counts_for_nobody_strands_nothing_until_it_counts(chain: Chain) -> None:
    await bought(chain, PLAIN)
    version = await chain.publish(OTHER_UNIT, share(0))
    await chain.roll_out(version.version, pb.Rollout(mode=pb.ROLLOUT_MODE_SHADOW))
    for rollout in (share(10), share(100)):
        with pytest.raises(Refused, match="this strands 20"):
            await chain.roll_out(version.version, rollout)
    request = pb.SetRolloutRequest(version=version.version, rollout=share(100), strands=named())
    await chain.desk.set_rollout(request, ADMIN)
    await chain.roll_out(version.version, share(100))  # it has the place already


@pytest.mark.parametrize(
    ("after", "losses"),
    [
        pytest.param(
            PLAIN,
            {
                "6 gift of 2 members: the further unit is gone, so that they can neither be spent nor seen",
                "2 members have the level silver, which is gone",
                "2 members are in the club green, which is gone",
            },
            id="unit, level and club",
        ),
        pytest.param(
            RICH.replace("precision: 2, pays: 1", "precision: 2, pays: 0.25"),
            {"20.00 bonus of 2 members: a point pays 1 UAH now, and then 0.25 UAH"},
            id="worth",
        ),
    ],
)
async def test_what_members_lose_beside_points_is_said(chain: Chain, after: str, losses: set[str]) -> None:
    await bought(chain, RICH)
    found = await checked(chain, after)
    assert (set(found.losses), list(found.strands)) == (losses, [])
    await chain.publish(after)


async def test_a_membership_that_has_ended_is_no_loss(chain: Chain) -> None:
    await bought(chain, RICH)
    chain.now[0] = chain.now[0].replace(year=chain.now[0].year + 2)
    assert chain.now[0].date() > date(2027, 1, 1)
    assert not [loss for loss in (await checked(chain, PLAIN)).losses if "green" in loss]


def test_points_go_on_moving_while_somebody_types() -> None:
    """What is named may be a tenth off."""
    strand = Stranded("bonus", 2, 100_000, 100, "")
    right = [Named("bonus", points, members) for points, members in ((100_000, 100), (90_000, 91), (110_000, 110))]
    wrong = [
        Named("bonus", points, members) for points, members in ((89_999, 100), (110_001, 100), (100_000, 89), (0, 0))
    ]
    assert [not_named([strand], [one]) for one in right] == [[], [], []]
    assert [not_named([strand], [one]) for one in wrong] == [[strand]] * 4
    assert str(strand) == "1,000.00 bonus of 100 members"
    assert str(strand._replace(members=1, precision=0)) == "100,000 bonus of 1 member"
