"""Programme versions over a real database: publishing, which one is in effect, and how workers hear of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from server.base.database import connection
from server.base.errors import Refused
from server.rules.book import RulesBook
from server.rules.versions import ProgrammeStore
from tests.integration.back_office import NOW, BackOffice, back_office_over


def programme(effective_from: str = "2026-01-01", base_percent: str = "1", **point: object) -> str:
    """Return a small programme file."""
    return f"""\
programme: demo
name: Test programme
effective_from: {effective_from}
currency: UAH
point: {{unit: {point.get("unit", "bonus")}, precision: {point.get("precision", 2)}, pays: 1}}
earning: {{base_percent: {base_percent}}}
spending: {{max_share_percent: 50}}
"""


@pytest.fixture
async def office(ledger_dsn: str) -> AsyncIterator[BackOffice]:
    async with back_office_over(ledger_dsn) as office:
        yield office


@pytest.fixture
def programmes(office: BackOffice) -> ProgrammeStore:
    return ProgrammeStore(office.pool)


async def test_versions_are_numbered_and_never_changed(programmes: ProgrammeStore) -> None:
    texts = [programme(base_percent=percent) for percent in ("1", "2", "3")]
    published = [await programmes.publish(text, "p.yaml", NOW) for text in texts]
    assert [(version.version, is_new) for version, is_new in published] == [(1, True), (2, True), (3, True)]
    assert [version.version for version in await programmes.list_versions()] == [3, 2, 1]
    for number, text in enumerate(texts, start=1):
        assert await programmes.get(number) == (published[number - 1][0], text)
    assert await programmes.get(0) == (published[2][0], texts[2])


async def test_newest_text_again_is_no_new_version_but_an_older_one_is(programmes: ProgrammeStore) -> None:
    first, second = programme(base_percent="1"), programme(base_percent="2")
    outcomes = [await programmes.publish(text, "p.yaml", NOW) for text in (first, first, second, first)]
    assert [(version.version, is_new) for version, is_new in outcomes] == [(1, True), (1, False), (2, True), (3, True)]


async def test_file_with_errors_is_refused_with_all_of_them(programmes: ProgrammeStore, office: BackOffice) -> None:
    text = programme(base_percent="lots").replace("currency: UAH", "currency: hryvnia")
    with pytest.raises(Refused) as refused:
        await programmes.publish(text, "p.yaml", NOW)
    assert refused.value.reason_name == "PROGRAMME_INVALID"
    assert {field for field, _ in refused.value.violations} == {"currency", "earning.base_percent"}
    assert all(description.startswith("p.yaml:") for _, description in refused.value.violations)
    assert await office.count("server.programme_version") == 0
    assert len(await programmes.check(text, "p.yaml")) == 2
    assert await programmes.check(programme(), "p.yaml") == []


async def test_precision_of_a_point_never_changes(programmes: ProgrammeStore) -> None:
    await programmes.publish(programme(precision=2), "p.yaml", NOW)
    with pytest.raises(Refused, match="give the point another name") as refused:
        await programmes.publish(programme(precision=3), "p.yaml", NOW)
    assert (refused.value.reason_name, refused.value.violations[0][0]) == ("PROGRAMME_INVALID", "point.precision")
    assert len(await programmes.list_versions()) == 1


async def test_no_version_is_not_found(programmes: ProgrammeStore) -> None:
    with pytest.raises(Refused, match="no programme was published yet"):
        await programmes.get(0)
    with pytest.raises(Refused, match="no version 7"):
        await programmes.get(7)


async def test_version_in_effect_follows_the_receipts_time(programmes: ProgrammeStore, office: BackOffice) -> None:
    # Published in this order: a date, a later one, an earlier one, and a correction of the first date.
    for date in ("2026-03-01", "2026-06-01", "2026-01-01", "2026-03-01"):
        await programmes.publish(programme(date, base_percent=str(len(await programmes.list_versions()))), "", NOW)
    book = RulesBook()
    async with connection(office.pool) as conn:
        await book.load(conn)
    second = timedelta(seconds=1)
    expected = {
        datetime(2026, 1, 1, tzinfo=UTC) - second: None,
        datetime(2026, 1, 1, tzinfo=UTC): 3,
        datetime(2026, 3, 1, tzinfo=UTC) - second: 3,
        datetime(2026, 3, 1, tzinfo=UTC): 4,
        datetime(2026, 6, 1, tzinfo=UTC) - second: 4,
        datetime(2026, 6, 1, tzinfo=UTC): 2,
        datetime(2036, 1, 1, tzinfo=UTC): 2,
    }
    found = {moment: book.at(moment) for moment in expected}
    assert {moment: rules and rules.version for moment, rules in found.items()} == expected


async def test_worker_adds_new_versions_and_keeps_the_compiled_ones(
    programmes: ProgrammeStore, office: BackOffice
) -> None:
    book, moment = RulesBook(), datetime(2026, 7, 1, tzinfo=UTC)
    async with connection(office.pool) as conn:
        await book.load(conn)
        assert book.at(moment) is None
        await programmes.publish(programme("2026-01-01"), "p.yaml", NOW)
        await book.load(conn)
        first = book.at(moment)
        await programmes.publish(programme("2026-06-01", unit="star", precision=0), "p.yaml", NOW)
        await book.load(conn)
    second = book.at(moment)
    assert first is not None
    assert second is not None
    assert book.at(datetime(2026, 5, 31, tzinfo=UTC)) is first
    assert [book.unit(rules)[1:] for rules in (first, second)] == [("bonus", 2), ("star", 0)]
