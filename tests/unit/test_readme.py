"""The README's tour is one valid programme file, and names only what there is."""

from __future__ import annotations

import re
from pathlib import Path

from server.promotions import Programme, load_programme

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tour_is_a_valid_programme() -> None:
    tour = README.split("## A programme file, in a tour")[1].split("\n## ")[0]
    text = "".join(re.findall(r"```yaml\n(.*?)```", tour, re.DOTALL))
    programme = load_programme(text, "README.md")
    assert isinstance(programme, Programme), "\n".join(map(str, programme))
    assert len(programme.promotions) > 15


def test_links_lead_somewhere() -> None:
    targets = {target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target}
    assert not [target for target in targets if target and not (ROOT / target).exists()]
