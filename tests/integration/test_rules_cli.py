"""`tallypoint rules` as people type it, against a running service."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from server.commands.main import app
from tests.support.server_process import RunningServer

PROGRAMME = f"""\
programme: corner-shop
name: Test programme
effective_from: {datetime.now(UTC):%Y-%m-%d}
currency: UAH
point: {{unit: bonus, precision: 2, pays: 1}}
earning: {{base_percent: 1}}
promotions:
  - {{id: cakes, name: Cakes, scope: {{categories: [bakery]}}, line_discount: {{percent: 10}}}}
"""
"""In effect from today on, so that no other test's programme is the live one; of the same code and unit as theirs, so
that no points are stranded."""
DRAFT = PROGRAMME.replace("percent: 10", "percent: 15")
RECEIPT = """\
time_zone: Europe/Kyiv
member: {birthday: 1990-05-17}
receipt:
  event_at: 2026-03-12T10:15:00Z
  currency_code: UAH
  lines:
    - {line_number: 1, sku: cake, category: bakery/cakes, quantity_milli: 1000, list_amount_minor: 12000}
"""


WHY = ("--reason=test", "--note=for a test")


def run(server: RunningServer | None, *arguments: str, group: str = "rules") -> Result:
    """Run `tallypoint rules` (or another group), beside a server if there is one."""
    environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("TALLYPOINT_")}
    if server is not None:
        key = json.loads((server.data_dir / "development-keys.json").read_text())["admin"]
        environment |= {"TALLYPOINT_BACKOFFICE_LISTEN": server.backoffice_address, "TALLYPOINT_ADMIN_KEY": key}
    return CliRunner().invoke(app, [*group.split(), *arguments], env=environment)


def test_from_a_draft_to_the_tills_and_back(tallypoint: RunningServer, tmp_path: Path) -> None:
    file, draft = tmp_path / "programme.yaml", tmp_path / "draft.yaml"
    file.write_text(PROGRAMME)
    draft.write_text(DRAFT)

    def said(*arguments: str) -> str:
        done = run(tallypoint, *arguments)
        assert done.exit_code == 0, done.output
        return done.stdout

    first = _version(said("publish", str(file), "--yes"))
    assert "line_discount.percent: 10 → 15" in said("diff", "live", str(draft))
    published = said("publish", str(draft), "--share", "10%", "--by", "stores")
    second = _version(published)
    assert "for 10 % of stores" in published
    assert "counts for 25 % of receipts" in said("publish", str(second), "--share", "25%", "--by", "receipts")
    assert "counts for everybody" in said("publish", str(second), "--share", "100%")
    versions = json.loads(said("list", "--json"))["versions"]
    assert [one["version"] for one in versions if one.get("in_effect")] == [second]
    back = said("rollback", "--yes")
    assert f"Version {second} no longer counts." in back
    assert f"Version {first} counts for everybody" in back
    assert "in effect now" in said("list")
    assert said("show", str(second)) == DRAFT
    assert "compared as a shadow" in said("publish", str(second), "--shadow")
    assert f"Version {second} as a shadow" in said("shadow", str(second))
    assert "counts for nobody" in said("publish", str(first), "--share", "0%")  # other tests' programme is live again


ASKING = """\
  - {id: spring, name: Spring, when: {coupon: {series: [spring-2031]}}, line_discount: {percent: 5}}
  - {id: sleepers, name: Sleepers, when: {segments: [sleeping-2031]}, line_discount: {percent: 5}}
  - {id: mine-2031, name: Mine, when: {offer: true}, line_discount: {percent: 5}}
  - {id: there, name: There, when: {stores: [nowhere-2031]}, line_discount: {percent: 5}}
  - {id: big, name: Big, when: {store_groups: [giants-2031]}, line_discount: {percent: 95}}
"""


def test_names_that_nothing_knows_are_told_of_at_publishing_and_at_loading(
    tallypoint: RunningServer, tmp_path: Path
) -> None:
    file, offers, members = tmp_path / "programme.yaml", tmp_path / "offers.csv", tmp_path / "members.csv"
    file.write_text(PROGRAMME + ASKING)
    members.write_text("phone\n+380671230012\n")
    offers.write_text("promotion,phone\ncakes,+380671230012\nmine-203,+380671230012\nmine-2031,+380671230012\n")
    published = run(tallypoint, "publish", str(file), "--yes")
    assert published.exit_code == 0, published.output
    for words in (
        "no coupon of series `spring-2031` was loaded",
        "nobody is in segment `sleeping-2031`",
        "nobody was made the offer `mine-2031`",
        "there is no store `nowhere-2031`",
        "no store is in group `giants-2031`",
        "takes 95 % off the price",
    ):
        assert words in published.stdout, published.stdout

    def said(group: str, *arguments: str) -> str:
        done = run(tallypoint, *arguments, group=group)
        assert done.exit_code == 0, done.output
        return done.stderr

    said("members", "import", str(members))
    generate = ("generate", "--count=1", "--series")
    eventually(lambda: "did you mean `spring-2031`?" in said("coupons", *generate, "sprin-2031"))
    assert "warning" not in said("coupons", *generate, "spring-2031")
    load = said("segments", "load", str(members), "--segment=sleepin-2031")
    assert "no promotion in effect or to come asks for segment `sleepin-2031`; did you mean `sleeping-2031`?" in load
    assert "warning" not in said("segments", "load", str(members), "--segment=sleeping-2031")
    load = said("offers", "load", str(offers))
    assert "promotion `cakes` asks for no offer" in load
    assert "is called `mine-203`; did you mean `mine-2031`?" in load
    again = run(tallypoint, "publish", str(file), "--yes").stdout
    assert ("2031` was loaded" in again, "sleeping" in again, "the offer" in again) == (False, False, False)
    assert run(tallypoint, "publish", str(_version(published.stdout)), "--share", "0%").exit_code == 0


def eventually(check: Callable[[], bool]) -> None:
    """Wait until the back office has read what was published."""
    until = time.monotonic() + 20
    while not check():
        assert time.monotonic() < until


def test_stranded_points_are_told_of_and_have_to_be_named(tallypoint: RunningServer, tmp_path: Path) -> None:
    file, other, members = tmp_path / "programme.yaml", tmp_path / "other.yaml", tmp_path / "members.csv"
    file.write_text(PROGRAMME)
    other.write_text(PROGRAMME.replace("unit: bonus", "unit: star"))
    members.write_text("phone,name\n+380671230011,Olena Koval\n")
    first = _version(run(tallypoint, "publish", str(file), "--yes").stdout)
    for command in (
        ("members", "import", str(members)),
        ("corrections", "request", "+380671230011", "--points=20", *WHY),
    ):
        done = run(tallypoint, *command, group="")
        assert done.exit_code == 0, done.output
    refused = run(tallypoint, "publish", str(other), "--yes")
    assert refused.exit_code == 2
    strand = re.search(r'--strand "([0-9,.]+ bonus of [0-9,]+ members?)"', refused.stderr)
    assert strand is not None, refused.output
    assert f"This strands {strand[1]}: programme corner-shop has the point unit star" in refused.stderr
    assert f"This strands {strand[1]}" in run(tallypoint, "diff", "live", str(other)).stdout
    wrong = run(tallypoint, "publish", str(other), "--strand", "1.00 bonus of 1 member", "--yes")
    assert (wrong.exit_code, "POINTS_STRANDED" in wrong.stderr) == (2, True), wrong.output
    unread = run(tallypoint, "publish", str(other), "--strand", "all of them")
    assert 'is not of the form "12,345.60 bonus of 1,234 members"' in " ".join(unread.stderr.split())
    done = run(tallypoint, "publish", str(other), "--strand", strand[1], "--yes")
    assert done.exit_code == 0, done.output
    for version in (_version(done.stdout), first):  # other tests' programme is live again
        assert run(tallypoint, "publish", str(version), "--share", "0%").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        pytest.param(("publish", "{file}", "--share", "10%"), 2, "--by stores or --by receipts", id="a share of what"),
        pytest.param(("publish", "{file}", "--share", "lots"), 2, "is no share", id="no share"),
        pytest.param(("publish", "{file}", "--share", "101%"), 2, "between 0% and 100%", id="more than all"),
        pytest.param(("publish", "{file}", "--shadow", "--share", "5%"), 2, "either --shadow or --share", id="both"),
        pytest.param(("publish", "7"), 2, "say for whom", id="a version for whom"),
        pytest.param(("publish", "nowhere.yaml"), 2, "is no file", id="no file"),
        pytest.param(("rollback",), 2, "give --yes", id="nobody to ask"),
        pytest.param(("explain", "receipt-17"), 2, "names no receipt", id="no receipt"),
        pytest.param(
            ("explain", "s", "t", "2026-02-30", "1"),
            2,
            "2026-02-30 is no day of the calendar written as YYYY-MM-DD, such as 2026-05-17",
            id="no day",
        ),
        pytest.param(("check", "{wrong}"), 1, "line_discount.percent", id="a wrong file"),
        pytest.param(("preview", "{file}", "--receipt", "{wrong}"), 2, "Field required", id="a wrong receipt"),
        pytest.param(("backtest", "{file}", "--dataset", "2017-01"), 2, "--against FILE", id="against nothing"),
        pytest.param(("backtest", "{file}", "--from", "monday"), 2, "no day such as", id="no date"),
    ],
)
def test_what_cannot_be_done_says_why(tmp_path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    file, wrong = tmp_path / "programme.yaml", tmp_path / "wrong.yaml"
    file.write_text(PROGRAMME)
    wrong.write_text(PROGRAMME.replace("percent: 10", "percent: lots"))
    done = run(None, *(one.format(file=file, wrong=wrong) for one in arguments))
    assert (done.exit_code, words in " ".join(done.stderr.split())) == (code, True), done.output


@pytest.mark.parametrize(
    ("known", "instead", "words"),
    [
        pytest.param("1990-05-17", "0001-01-01", "member.birthday: lies before 1905-01-01", id="empty date"),
        pytest.param("1990-05-17", "2026-03-13", "member.birthday: lies in the future", id="born later"),
        pytest.param("sku: cake", 'sku: "cake\\0"', "receipt.lines[0].sku: has the character NUL", id="NUL"),
    ],
)
def test_a_receipt_that_the_service_would_refuse_is_not_tried(
    tmp_path: Path, known: str, instead: str, words: str
) -> None:
    draft, receipt = tmp_path / "draft.yaml", tmp_path / "receipt.yaml"
    draft.write_text(DRAFT)
    receipt.write_text(RECEIPT.replace(known, instead))
    done = run(None, "preview", str(draft), "--receipt", str(receipt))
    assert (done.exit_code, words in " ".join(done.stderr.split())) == (2, True), done.output


def test_a_draft_is_tried_on_a_receipt_without_a_server(tmp_path: Path) -> None:
    draft, receipt = tmp_path / "draft.yaml", tmp_path / "receipt.yaml"
    draft.write_text(DRAFT)
    receipt.write_text(RECEIPT)
    done = run(None, "preview", str(draft), "--receipt", str(receipt))
    assert done.exit_code == 0, done.output
    assert "102.00 UAH to pay after 18.00 UAH of discounts; 1.02 bonus earned" in done.stdout
    assert "cakes (Cakes) [applied]: 18.00 UAH off, line 1" in done.stdout
    as_json = run(None, "preview", str(draft), "--receipt", str(receipt), "--json")
    assert json.loads(as_json.stdout)["discount_minor"] == 1800


def test_schema_is_for_editors() -> None:
    done = run(None, "schema")
    assert "promotions" in json.loads(done.stdout)["properties"]


def _version(text: str) -> int:
    return int(text.split("version ", 2)[1].split(maxsplit=1)[0])
