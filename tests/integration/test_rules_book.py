"""A worker's book of rules over a real database: what is compiled at its start, and what only when it is asked for.

Nobody but the clock may notice the difference: answers are held against a book that has compiled everything.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from random import Random

import pytest
from structlog.testing import capture_logs

from server.base.database import connection
from server.promotions import CURRENT_SEMANTICS, Programme, ProgrammeError, Rules, compile_rules, load_programme
from server.rules import book
from server.rules.book import RulesBook
from server.rules.rollout import Mode, Rollout, ShareBy, in_force
from server.rules.versions import INSERT_VERSION, ProgrammeStore, read_rollouts
from tests.integration.back_office import BackOffice, back_office_over

TODAY = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MORNING = time(8, tzinfo=UTC)

SHARE = Rollout(share_millionths=250_000, share_by=ShareBy.RECEIPTS)
NOBODY = Rollout(share_millionths=0)
SHADOW = Rollout(Mode.SHADOW)
EVERYBODY = Rollout()

BROKEN = "programme: of a release that was never ours\n"


def day(days_ago: float) -> datetime:
    """Return a receipt's time on the morning of a day."""
    return datetime.combine(TODAY.date(), MORNING) - timedelta(days=days_ago)


def programme(effective_from: date, unit: str = "bonus", *further: str, number: int = 0) -> str:
    units = "".join(f"\n  - {{unit: {code}, name: Points called {code}, pays: 1}}" for code in further)
    return f"""\
programme: demo
name: Programme {number}
effective_from: {effective_from}
currency: UAH
point: {{unit: {unit}, pays: 1}}
units: {units or "[]"}
earning: {{base_percent: 1}}
promotions:
  - {{id: cakes, name: Cakes for {unit} and gift, scope: {{categories: [bakery]}}, line_discount: {{percent: 10}}}}
"""


class Chain:
    """A back office that publishes, and workers that start whenever a test likes."""

    def __init__(self, office: BackOffice) -> None:
        self.office = office
        self.store = ProgrammeStore(office.pool)
        self.published = 0

    async def publish(self, days_ago: int, *rollouts: Rollout, units: Sequence[str] = ("bonus",)) -> int:
        """Publish a version for the receipts of a day and later; what is said of it later is said at its `from_at`."""
        self.published += 1
        text = programme(TODAY.date() - timedelta(days=days_ago), *units, number=self.published)
        begins = next((one for one in rollouts if one.from_at is None), None)
        await self.store.publish(text, "p.yaml", TODAY, begins)
        for said in rollouts:
            if said.from_at is not None:
                await self.store.set_rollout(self.published, said, said.from_at)
        return self.published

    async def publish_unreadable(self, days_ago: int, text: str = BROKEN) -> int:
        """Leave a version behind as an older release may have: this one cannot read it."""
        self.published += 1
        values = (self.published, "demo", datetime.combine(day(days_ago).date(), time(), UTC), TODAY)
        digest = hashlib.sha256(text.encode()).digest()
        await self.office.pool.execute(INSERT_VERSION, *values, digest, CURRENT_SEMANTICS, text)
        return self.published

    async def start_worker(self, today: datetime = TODAY) -> RulesBook:
        rules = RulesBook(lambda: today)
        await self.reload(rules)
        return rules

    async def reload(self, rules: RulesBook) -> None:
        async with connection(self.office.pool) as conn:
            await rules.load(conn)


@pytest.fixture
async def chain(ledger_dsn: str) -> AsyncIterator[Chain]:
    async with back_office_over(ledger_dsn) as office:
        yield Chain(office)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The versions that were compiled, in this order."""
    numbers: list[int] = []

    def noted(programme: Programme, version: int) -> Rules:
        numbers.append(version)
        return compile_rules(programme, version)

    monkeypatch.setattr(book, "compile_rules", noted)
    return numbers


def judged_by(rules: Rules | None) -> int | None:
    return None if rules is None else rules.version


# --- what a start compiles --------------------------------------------------------------------------------------------

UNREADABLE = "unreadable"


@pytest.mark.parametrize(
    ("published", "at_start"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([(900,)], [1], id="one for years"),
        pytest.param([(30,), (20,), (10,)], [3], id="one in three"),
        pytest.param([(n,) for n in range(29, -1, -1)], [29, 30], id="a new one every day"),
        pytest.param([(30,), (20,), (-5,), (-9,)], [2, 3, 4], id="those that start later"),
        pytest.param([(30,), (30,), (30,)], [3], id="a date corrected twice"),
        pytest.param([(30,), (20,), (10, SHARE)], [2, 3], id="a share"),
        pytest.param([(30,), (20,), (10, NOBODY)], [2], id="one for nobody"),
        pytest.param([(30, SHADOW), (20,), (10,)], [1, 3], id="a shadow"),
        pytest.param([(30,), (20, NOBODY), (10, EVERYBODY, NOBODY._replace(from_at=day(3)))], [1], id="rolled back"),
        pytest.param(
            [(30,), (20,), (10, EVERYBODY, NOBODY._replace(from_at=day(0)))], [2, 3], id="rolled back this morning"
        ),
        pytest.param([(30,), (20,), UNREADABLE], [2], id="the newest cannot be read"),
        pytest.param([(30,), (20,), UNREADABLE, UNREADABLE], [2], id="the newest two cannot be read"),
        pytest.param([UNREADABLE, (20,), (10,)], [3], id="an old one cannot be read"),
    ],
)
async def test_a_worker_compiles_what_may_judge_receipts_of_today_or_later(
    chain: Chain, compiled: list[int], published: list[tuple[int, *tuple[Rollout, ...]] | str], at_start: list[int]
) -> None:
    for one in published:
        if isinstance(one, str):
            await chain.publish_unreadable(9)
        else:
            await chain.publish(*one)
    await chain.start_worker()
    assert sorted(compiled) == at_start


async def test_a_day_passes_and_only_what_is_new_is_compiled(chain: Chain, compiled: list[int]) -> None:
    for days_ago in (3, 2, 1, 0):
        await chain.publish(days_ago)
    rules = await chain.start_worker()
    assert compiled == [3, 4]
    rules._clock = lambda: TODAY + timedelta(days=1)
    await chain.publish(-1)
    await chain.reload(rules)
    assert compiled == [3, 4, 5]
    assert [judged_by(rules.at(day(days))) for days in (1, 0, -1)] == [3, 4, 5]
    assert compiled == [3, 4, 5], "yesterday's are kept although no receipt of today needs them"


async def test_an_old_version_that_counts_again_is_compiled_by_the_next_load(chain: Chain, compiled: list[int]) -> None:
    for days_ago in (30, 20, 10):
        await chain.publish(days_ago)
    rules = await chain.start_worker()
    await chain.store.roll_back(1, TODAY, "anna")
    await chain.reload(rules)
    assert compiled == [3, 1]
    assert judged_by(rules.at(TODAY)) == 1
    assert judged_by(rules.at(TODAY - timedelta(seconds=1))) == 3


# --- what is compiled when it is asked for ---------------------------------------------------------------------------


async def test_late_receipts_are_judged_by_the_version_of_their_day(chain: Chain, compiled: list[int]) -> None:
    for days_ago in range(9, -1, -1):
        await chain.publish(days_ago)
    rules = await chain.start_worker()
    del compiled[:]
    with capture_logs() as logs:
        assert [judged_by(rules.at(day(days))) for days in (10, 9, 5, 5, 0)] == [None, 1, 5, 5, 10]
    assert compiled == [1, 5], "each at its first receipt"
    said = [(log["event"], log["version"], log["milliseconds"] > 0) for log in logs]
    assert said == [("programme_compiled_late", 1, True), ("programme_compiled_late", 5, True)]
    first = rules.at(day(9))
    assert first is rules.at(day(9))
    assert first is not None
    assert first.programme == load_programme((await chain.store.get(1))[1])


async def test_only_some_of_the_late_ones_stay_compiled(
    chain: Chain, compiled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "LATE_VERSIONS_KEPT", 3)
    for days_ago in range(9, -1, -1):
        await chain.publish(days_ago)
    rules = await chain.start_worker()
    assert [judged_by(rules.at(day(days))) for days in range(9, -1, -1)] == list(range(1, 11))
    assert [one.number for one in rules._versions if one.rules] == [6, 7, 8, 9, 10]
    del compiled[:]
    assert [judged_by(rules.at(day(days))) for days in (0, 1, 2, 9, 2, 4)] == [10, 9, 8, 1, 8, 6]
    assert compiled == [1, 6], "6 had to go when 1 came"
    assert [one.number for one in rules._versions if one.rules] == [1, 6, 8, 9, 10]
    await chain.publish(0)
    await chain.reload(rules)
    assert [one.number for one in rules._versions if one.rules] == [6, 8, 9, 10, 11], "the latest ones stay"


async def test_a_late_receipt_is_judged_by_the_rollout_of_its_time(chain: Chain, compiled: list[int]) -> None:
    await chain.publish(30)
    await chain.publish(20, SHARE, EVERYBODY._replace(from_at=day(15)))
    await chain.publish(10)
    rules = await chain.start_worker()
    shoppers = [f"member-{number}" for number in range(40)]
    versions = [judged_by(rules.at(day(18), shopper=shopper)) for shopper in shoppers]
    assert set(versions) == {1, 2}
    assert judged_by(rules.at(day(18))) == 1, "who is not named is in no share"
    assert judged_by(rules.at(day(14))) == 2
    assert compiled == [3, *dict.fromkeys(versions)]


async def test_a_late_receipt_is_compared_with_the_shadow_of_its_time(chain: Chain, compiled: list[int]) -> None:
    await chain.publish(30)
    await chain.publish(20, SHADOW, NOBODY._replace(from_at=day(10)))
    rules = await chain.start_worker()
    assert [[one.version for one in rules.shadows(day(days))] for days in (25, 15, 5)] == [[], [2], []]
    assert compiled == [1, 2]


async def test_a_version_is_found_by_its_number(chain: Chain, compiled: list[int]) -> None:
    for days_ago in (30, 20, 10):
        await chain.publish(days_ago)
    await chain.publish_unreadable(25)
    rules = await chain.start_worker()
    assert [judged_by(rules.of_version(number)) for number in (1, 3, 4, 5)] == [1, 3, None, None]
    assert compiled == [3, 1]


# --- versions that this release cannot read --------------------------------------------------------------------------


async def test_an_old_version_that_cannot_be_read_is_left_out_when_it_is_needed(chain: Chain) -> None:
    await chain.publish(30)
    await chain.publish_unreadable(20)
    await chain.publish_unreadable(19)
    await chain.publish(10)
    with capture_logs() as logs:
        rules = await chain.start_worker()
        assert logs == [], "no receipt of today needs them"
        assert [judged_by(rules.at(day(days))) for days in (25, 15, 15, 5)] == [1, 1, 1, 4]
        assert rules.of_version(2) is None
        await chain.publish(0)
        await chain.reload(rules)
        assert judged_by(rules.at(day(15))) == 1
    assert [log["version"] for log in logs if log["event"] == "programme_unreadable"] == [3, 2], "each once"


async def test_the_newest_version_is_told_to_be_unreadable_once(chain: Chain) -> None:
    await chain.publish(30)
    await chain.publish_unreadable(20)
    with capture_logs() as logs:
        rules = await chain.start_worker()
        await chain.reload(rules)
    assert [(log["event"], log["version"]) for log in logs] == [("programme_unreadable", 2)]
    assert judged_by(rules.at(TODAY)) == 1


async def test_a_shadow_that_cannot_be_read_is_no_shadow(chain: Chain) -> None:
    await chain.publish(30)
    number = await chain.publish_unreadable(20)
    await chain.store.set_rollout(number, SHADOW, day(20))
    await chain.store.set_rollout(number, NOBODY, day(10))
    rules = await chain.start_worker()
    assert rules.shadows(day(15)) == ()
    assert judged_by(rules.at(day(15))) == 1


# --- the units of old versions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "found", "asked"),
    [
        pytest.param("", 6, [], id="any unit"),
        pytest.param("bonus", 6, [], id="that of today's version"),
        pytest.param("gift", 6, [], id="a further unit of today's version"),
        pytest.param("star", 4, [4], id="that of old versions"),
        pytest.param("deposit", 2, [2], id="a further unit of old versions"),
        pytest.param("coin", 7, [], id="that of a version to come"),
        pytest.param("lost", None, [], id="one of which no version can be read"),
        pytest.param("no-such", None, [], id="one that never was"),
        pytest.param("cakes", None, [], id="a word that is no unit"),
    ],
)
async def test_units_are_found_without_compiling_versions_that_lack_them(
    chain: Chain, compiled: list[int], unit: str, found: int | None, asked: list[int]
) -> None:
    for days_ago, units in [
        (60, ("bonus", "gift", "deposit")),
        (50, ("bonus", "gift", "deposit")),
        (40, ("star", "gift")),
        (30, ("star", "gift")),
        (20, ("bonus", "gift")),
        (10, ("bonus", "gift")),
        (-5, ("coin",)),
    ]:
        await chain.publish(days_ago, units=units)
    await chain.publish_unreadable(15, programme(day(15).date(), "lost", "lost-too") + "nonsense: 1\n")
    rules = await chain.start_worker()
    assert compiled == [6, 7]
    assert judged_by(rules.with_unit(unit, TODAY)) == found
    assert compiled == [6, 7, *asked]
    assert [judged_by(rules.with_unit(code, day(35))) for code in ("star", "gift")] == [3, 3]


async def test_units_are_found_where_only_the_whole_file_tells_them(chain: Chain, compiled: list[int]) -> None:
    text = programme(day(20).date(), "star").replace("{unit: star,", '{unit: "st\\u0061r",')
    assert text.count("star") == 1, "the name of a promotion"
    await chain.store.publish(text.replace("Cakes for star", "Cakes"), "p.yaml", TODAY)
    await chain.store.publish(programme(day(10).date()), "p.yaml", TODAY)
    rules = await chain.start_worker()
    assert judged_by(rules.with_unit("star", TODAY)) == 1
    assert rules.with_unit("gift", TODAY) is None
    assert compiled == [2, 1]


# --- nobody notices --------------------------------------------------------------------------------------------------


class CompiledAtOnce:
    """What a worker answered when it still compiled all versions at its start: the rules, without the shortcuts."""

    def __init__(self, versions: Sequence[tuple[datetime, Rules, tuple[Rollout, ...]]]) -> None:
        self._versions = sorted(versions, key=lambda one: (one[0], one[1].version))

    @classmethod
    async def read(cls, chain: Chain) -> CompiledAtOnce:
        async with connection(chain.office.pool) as conn:
            said = await read_rollouts(conn)
            records = await conn.fetch("SELECT version, effective_at, text FROM server.programme_version")
        loaded: list[tuple[int, datetime, Programme | list[ProgrammeError]]]
        loaded = [(number, effective_at, load_programme(text)) for number, effective_at, text in records]
        return cls(
            [
                (effective_at, compile_rules(one, number), said.get(number, ()))
                for number, effective_at, one in loaded
                if isinstance(one, Programme)
            ]
        )

    def at(self, moment: datetime, shopper: str = "") -> int | None:
        due = [one for one in self._versions if one[0] <= moment]
        counting = (rules.version for _, rules, said in reversed(due) if self._counts(rules, said, moment, shopper))
        return next(counting, None)

    def _counts(self, rules: Rules, said: tuple[Rollout, ...], moment: datetime, shopper: str) -> bool:
        return in_force(said, moment).counts_for(rules.version, "12", shopper)

    def shadows(self, moment: datetime) -> list[int]:
        due = [one for one in self._versions if one[0] <= moment]
        return [rules.version for _, rules, said in due if in_force(said, moment).mode is Mode.SHADOW]

    def with_unit(self, code: str, moment: datetime) -> int | None:
        known = [(rules.version, rules.programme) for _, rules, _ in self._versions]
        fitting = [
            version
            for version, one in known
            if code in {"", one.point.unit, *(further.point.unit for further in one.units)}
        ]
        current = self.at(moment)
        return current if current in fitting else next(reversed(fitting), None)

    def numbers(self) -> set[int]:
        return {rules.version for _, rules, _ in self._versions}


def said_later(rollout: Rollout, days_ago: float) -> Rollout:
    return rollout._replace(from_at=day(days_ago))


@pytest.mark.parametrize("seed", range(6))
async def test_answers_are_those_of_a_book_that_compiled_everything(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(book, "LATE_VERSIONS_KEPT", 2)
    chance = Random(seed)
    rules = await chain.start_worker()
    units = [("bonus",), ("bonus", "gift"), ("star",), ("star", "gift", "deposit")]
    for round_ in range(3):
        for _ in range(6):
            days_ago = chance.randint(-2, 12)
            if chance.random() < 0.25:
                await chain.publish_unreadable(days_ago)
                continue
            kinds = (EVERYBODY, EVERYBODY, SHARE, NOBODY, SHADOW)
            later = [
                said_later(chance.choice(kinds), chance.randint(-2, days_ago)) for _ in range(chance.randint(0, 2))
            ]
            later.sort(key=lambda said: said.from_at or TODAY)
            await chain.publish(days_ago, chance.choice(kinds), *later, units=chance.choice(units))
        changed = chance.randint(1, chain.published)
        await chain.store.set_rollout(changed, chance.choice((EVERYBODY, SHARE, NOBODY, SHADOW)), day(-3))
        await chain.reload(rules)
        reference = await CompiledAtOnce.read(chain)
        moments = [day(days) for days in range(13, -5, -1)]
        chance.shuffle(moments)
        for moment in moments:
            for shopper in ("", "m-1", "m-2", "m-3"):
                found = rules.at(moment, store_id="12", shopper=shopper)
                assert judged_by(found) == reference.at(moment, shopper), (round_, moment, shopper)
            assert [one.version for one in rules.shadows(moment)] == reference.shadows(moment)
            for code in ("", "bonus", "star", "gift", "deposit"):
                assert judged_by(rules.with_unit(code, moment)) == reference.with_unit(code, moment), code
        every = range(1, chain.published + 2)
        assert {number for number in every if rules.of_version(number)} == reference.numbers()


async def test_receipts_are_judged_as_before_while_a_worker_loads(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    await chain.publish(30)
    await chain.publish_unreadable(20)
    await chain.publish(10)
    rules = await chain.start_worker()
    begun, goes_on = threading.Event(), threading.Event()

    def slowly(text: str, *, semantics: int) -> Programme | list[ProgrammeError]:
        if "Programme 4" in text:
            begun.set()
            assert goes_on.wait(30)
        return load_programme(text, semantics=semantics)

    monkeypatch.setattr(book, "load_programme", slowly)
    await chain.publish(1)
    loading = asyncio.create_task(chain.reload(rules))
    try:
        assert await asyncio.to_thread(begun.wait, 30)
        with capture_logs() as logs:
            assert [judged_by(rules.at(day(days))) for days in (25, 15, 0)] == [1, 1, 3]
    finally:
        goes_on.set()
    await loading
    with capture_logs() as again:
        assert [judged_by(rules.at(day(days))) for days in (25, 15, 0)] == [1, 1, 4]
    assert [log["version"] for log in logs if log["event"] == "programme_unreadable"] == [2]
    assert again == [], "what was found out meanwhile is known afterwards"
