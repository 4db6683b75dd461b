"""What says of itself that it is pure is so: nothing that it imports, near or far, can read, wait or measure."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEVER = ("asyncpg", "grpc", "asyncio", "prometheus_client", "structlog")
"""Databases, calls, waiting, and what is measured or logged."""
AT_LEAST = {
    "ledger.entry.decide",
    "server.checkout.plan",
    "server.promotions",
    "server.reconciliation.compare",
    "server.rules.mended",
}
"""Some of those that must be among them: a claim that gets lost would prove nothing."""


def claims_to_be_pure(docstring: str) -> bool:
    """Say whether a module's docstring ends a paragraph with "Pure.", or calls the module a pure function."""
    return re.search(r"\bPure( functions?\b|,|\.|:| text\b)|[,:] (a )?pure\b|\. A pure function", docstring) is not None


def pure_modules() -> list[str]:
    found = []
    for path in sorted(file for folder in ("ledger", "server") for file in (ROOT / folder).rglob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_bytes())) or ""
        if path.is_relative_to(ROOT / "ledger/entry") or claims_to_be_pure(docstring):
            found.append(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    return found


def reached(modules: list[str]) -> list[str]:
    """Return which of the modules bring along what they must not, each as `module: what`, in a process of its own."""
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        f"    found = [banned for banned in {NEVER!r} if banned in sys.modules]\n"
        "    if found: print(f'{name}: {found}'); break\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_pure_modules_reach_nothing_impure() -> None:
    modules = pure_modules()
    assert set(modules) >= AT_LEAST, f"no longer pure, or no longer says so: {AT_LEAST - set(modules)}"
    assert not reached(modules), "the first module that reaches it; import what it needs from a module that is pure"


@pytest.mark.parametrize("module", ["server.base.gather", "server.measuring.metrics", "server.edge.status"])
def test_what_is_not_pure_is_found(module: str) -> None:
    (found,) = reached([module])
    assert found.startswith(f"{module}: ")


@pytest.mark.parametrize(
    ("docstring", "is_claim"),
    [
        ("Coupon codes: their normal form. Pure.", True),
        ("Finds the breaks of a day: a pure function of what was said.", True),
        ("What an entry becomes: pure, and the same for writing and comparing.", True),
        ("Levels of members. Pure functions of counters and dates.", True),
        ("Calls the evaluator, which is pure.", False),
        ("Purely for tests.", False),
    ],
)
def test_claims_are_told_from_mentions(docstring: str, is_claim: bool) -> None:
    assert claims_to_be_pure(docstring) is is_claim
