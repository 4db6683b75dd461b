"""In which control groups a preview's shopper is, and what choosing a group does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.commands.main import app
from server.promotions import MemberFacts, Rules, compile_rules, quote
from server.rules.control import Group, memberships, with_group
from tests.unit.promotions.builders import discounts, programme, promotions, receipt

SOME = "campaigns:\n  - {id: spring, name: Spring, control_percent: 30}\n" + promotions(
    "id: half, name: Half, control_percent: 50, line_discount: {percent: 10}",
    "id: all, name: All, campaign: spring, line_discount: {percent: 10}",
    "id: free, name: Free, line_discount: {percent: 10}",
)
RECEIPT = """\
{member}receipt:
  event_at: 2026-03-12T10:15:00Z
  currency_code: UAH
  lines:
    - {{line_number: 1, sku: cake, quantity_milli: 1000, list_amount_minor: 1000}}
"""


def taken(rules: Rules, member_id: str) -> int:
    return sum(discounts(quote(rules, receipt(1000), MemberFacts(member_id))))


def test_what_is_said_of_a_member_is_what_the_evaluator_does() -> None:
    made = programme(SOME)
    for number in range(60):
        found = {one.owner: one.is_in for one in memberships(made, f"m{number}")}
        assert set(found) == {"campaign spring", "promotion half"}
        count = 3 - sum(found.values())
        assert taken(compile_rules(made, 1), f"m{number}") == 1000 - round(1000 * 0.9**count)


@pytest.mark.parametrize(("group", "off"), [(Group.CONTROL, 100), (Group.TREATED, 271)])
def test_a_chosen_group_is_every_members(group: Group, off: int) -> None:
    made = compile_rules(with_group(programme(SOME), group), 1)
    assert {taken(made, f"m{number}") for number in range(20)} == {off}


def preview(folder: Path, member: str, *words: str) -> str:
    """What the command says of a draft with control groups."""
    draft, bought = folder / "draft.yaml", folder / "receipt.yaml"
    head = "programme: test\nname: Test\neffective_from: 2026-01-01\ncurrency: UAH\n"
    draft.write_text(head + "point: {unit: bonus, precision: 2, pays: 1.00}\n" + SOME)
    bought.write_text(RECEIPT.format(member=member))
    done = CliRunner().invoke(app, ["rules", "preview", str(draft), "--receipt", str(bought), *words])
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


@pytest.mark.parametrize(
    ("member", "words", "said", "paid"),
    [
        pytest.param("", ["--group", "control"], "", "7.29", id="nobody is in a group"),
        pytest.param("member: {}\n", ["--group", "control"], "in the control group (50 %)", "9.00", id="by option"),
        pytest.param(
            "member: {}\n", ["--group", "treated"], "not in the control group (50 %), as chosen", "7.29", id="or not"
        ),
        pytest.param("member: {group: control}\n", [], "in the control group (30 %)", "9.00", id="by the file"),
        pytest.param("member: {group: control}\n", ["--group", "treated"], "as chosen", "7.29", id="the option wins"),
        pytest.param("member: {member_id: m2}\n", [], "promotion half: ", None, id="by the id"),
    ],
)
def test_preview_says_which_group_and_can_choose_it(
    tmp_path: Path, member: str, words: list[str], said: str, paid: str | None
) -> None:
    text = preview(tmp_path, member, *words)
    assert said in text
    assert ("control group" in text) is bool(member)
    assert paid is None or f"{paid} UAH to pay" in text


def test_the_groups_are_told_to_programs(tmp_path: Path) -> None:
    answer = json.loads(preview(tmp_path, "member: {group: treated}\n", "--json"))
    assert len(answer["control_groups"]) == 2
