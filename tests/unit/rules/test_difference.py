"""What changed between two files, said in words that name the fields of the file."""

from __future__ import annotations

import pytest

from server.commands.programme.shown import difference_lines
from server.promotions.yaml_text import read_yaml
from server.rules.difference import Difference, difference

HEAD = """\
programme: demo
name: Demo
earning: {base_percent: 1}
tiers: {levels: [{code: gold, name: Gold, at_least: 100}]}
exclusions: {no_discount: {tags: [alcohol]}}
"""
CAKES = "- {id: cakes, name: Cakes, scope: {skus: ['1', '2']}, line_discount: {percent: 10}}"
BREAD = "- {id: bread, name: Bread, line_discount: {percent: 5}}"


def found(before: str, after: str) -> Difference:
    return difference(read_yaml(before).data, read_yaml(after).data)


def file(*promotions: str, head: str = HEAD) -> str:
    return head + "promotions:\n" + "".join(f"  {one}\n" for one in promotions)


def words(before: str, after: str) -> list[str]:
    return [line.strip() for line, _ in difference_lines(found(before, after))]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        pytest.param(file(CAKES), file(CAKES), "Nothing changed.", id="nothing"),
        pytest.param(file(CAKES, BREAD), file(BREAD, CAKES), "Nothing changed.", id="another order"),
        pytest.param(file(CAKES), file(CAKES.replace("10", "10.0")), "Nothing changed.", id="the same number"),
        pytest.param(file(CAKES), file(CAKES.replace("'1', '2'", "'2', '1'")), "Nothing changed.", id="a set's order"),
        pytest.param(file(CAKES), file(CAKES, BREAD), "+ bread: Bread", id="one more"),
        pytest.param(file(CAKES, BREAD), file(CAKES), "- bread: Bread", id="one less"),
        pytest.param(file(CAKES), file(CAKES.replace("10", "15")), "line_discount.percent: 10 → 15", id="a number"),
        pytest.param(
            file(CAKES),
            file(CAKES.replace("'1', '2'", "'2', '3', '4'")),
            "scope.skus: 2 put in (3, 4); 1 taken out (1)",
            id="goods",
        ),
        pytest.param(
            file(BREAD),
            file(BREAD.replace("{percent: 5}", "{amount: 5}")),
            "line_discount.amount: 5 (new)",
            id="new field",
        ),
        pytest.param(
            file(BREAD),
            file(BREAD.replace("{percent: 5}", "{amount: 5}")),
            "line_discount.percent: no longer set (was 5)",
            id="a field less",
        ),
        pytest.param(
            file(head=HEAD),
            file(head=HEAD.replace("base_percent: 1", "base_percent: 2")),
            "~ earning.base_percent: 1 → 2",
            id="a setting",
        ),
        pytest.param(
            file(head=HEAD),
            file(head=HEAD.replace("100", "200")),
            "~ tiers.levels[gold].at_least: 100 → 200",
            id="a level",
        ),
        pytest.param(
            file(head=HEAD),
            file(head=HEAD.replace("[alcohol]", "[alcohol, tobacco]")),
            "~ exclusions.no_discount.tags: 1 put in (tobacco)",
            id="an exclusion",
        ),
    ],
)
def test_what_changed_in_words(before: str, after: str, said: str) -> None:
    assert said in words(before, after)


def test_the_other_way_round_says_the_opposite() -> None:
    there, back = found(file(CAKES), file(BREAD)), found(file(BREAD), file(CAKES))
    assert (there.added, there.removed) == (back.removed, back.added)
    assert (there.added, there.removed) == ((("bread", "Bread"),), (("cakes", "Cakes"),))
