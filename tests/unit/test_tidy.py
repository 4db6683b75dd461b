"""House rules that no linter knows: banned calls with what to use instead, lengths, reasons, docstrings."""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("server", "ledger", "pos_adapters", "benchmarks")
ALL_CODE = (*PACKAGES, "tests", "proto")
MAX_FUNCTION_LINES = 70
MAX_MODULE_LINES = 800


class Ban(NamedTuple):
    """A call that must not be made in some folders."""

    call: str
    folders: tuple[str, ...]
    instead: str
    allowed_in: tuple[str, ...] = ()


CLOCK = "take the time as an argument; a process hands in server.base.clock.utc_now"
CHILDREN_WITH_HASHES = ("server/process/worker.py", "server/process/back_office.py")
"""Their supervisor has opened the hashes before it starts them."""
BANS = [
    Ban("datetime.now", ("server", "ledger", "pos_adapters"), CLOCK, allowed_in=("server/base/clock.py",)),
    Ban("datetime.utcnow", ALL_CODE, CLOCK),
    Ban("datetime.today", ALL_CODE, CLOCK),
    Ban("date.today", ALL_CODE, CLOCK),
    Ban("time.time", ("server", "ledger", "pos_adapters"), f"time.monotonic for durations; otherwise {CLOCK}"),
    Ban("float", ("ledger", "server/promotions"), "int in minor units, or fractions.Fraction for a rate"),
    Ban("round", ("ledger", "server/promotions"), "server.promotions.arithmetic: round() rounds halves to even"),
    Ban("time.sleep", ("server", "ledger"), "await asyncio.sleep, or wait on an Event"),
    Ban(
        "KeyedHash",
        ("server", "benchmarks"),
        "server.process.opening.open_hashes, which refuses a secret that is not the database's",
        allowed_in=("server/process/opening.py", *CHILDREN_WITH_HASHES),
    ),
    Ban("print", ("server", "ledger"), "structlog in the service, rich.console.Console in a command"),
]


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def calls(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of each call; of longer names the last two parts (datetime.datetime.now)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield node.lineno, ".".join(ast.unparse(node.func).split(".")[-2:])


@functools.cache
def calls_in(path: Path) -> list[tuple[int, str]]:
    """Return the calls of a file, which is parsed once for all bans."""
    return list(calls(path.read_text(encoding="utf-8")))


def lengths(source: str) -> Iterator[tuple[int, str, int]]:
    """Yield line, name and number of lines of each function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def unreasoned(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each comment that silences a tool without a code or without a reason."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and re.search(r"#\s*(noqa|type:\s*ignore)", token.string):
            rest = re.sub(r"type: ignore\[[a-z\-, ]+\]|noqa: [A-Z]+[0-9]+(, ?[A-Z]+[0-9]+)*", "", token.string)
            if re.search(r"noqa|type:\s*ignore", rest) or not re.search(r"\w{2}", rest):
                yield token.start[0], token.string


@pytest.mark.parametrize("ban", BANS, ids=lambda ban: ban.call)
def test_nobody_calls(ban: Ban) -> None:
    allowed = [ROOT / file for file in ban.allowed_in]
    found = [
        place(path, line)
        for path in sources(*ban.folders)
        if path not in allowed
        for line, name in calls_in(path)
        if name == ban.call
    ]
    assert not found, f"{ban.call}() in {found}: use instead: {ban.instead}"


def test_functions_fit_on_a_screen() -> None:
    found = [
        f"{place(path, line)} {name} has {length} lines"
        for path in sources(*ALL_CODE)
        for line, name, length in lengths(path.read_text(encoding="utf-8"))
        if length > MAX_FUNCTION_LINES
    ]
    assert not found, f"{found}: split by what each part is for, at most {MAX_FUNCTION_LINES} lines each"


def test_modules_are_not_too_long() -> None:
    counts = {path: path.read_text(encoding="utf-8").count("\n") for path in sources(*ALL_CODE)}
    found = [f"{place(path, count)}" for path, count in counts.items() if count > MAX_MODULE_LINES]
    assert not found, f"{found}: one subject a module, at most {MAX_MODULE_LINES} lines"


def test_modules_say_what_they_are_for() -> None:
    found = [place(path, 1) for path in sources(*ALL_CODE) if not ast.get_docstring(ast.parse(path.read_bytes()))]
    assert not found, f"{found}: begin with a docstring that says what the module is for"


SAYS_NOTHING = frozenset(
    [
        "about",
        "above",
        "after",
        "ahead",
        "alone",
        "also",
        "always",
        "around",
        "asked",
        "back",
        "beside",
        "done",
        "either",
        "enough",
        "found",
        "further",
        "gave",
        "given",
        "kept",
        "known",
        "late",
        "later",
        "left",
        "made",
        "met",
        "more",
        "moved",
        "near",
        "never",
        "nobody",
        "of",
        "off",
        "once",
        "one",
        "only",
        "other",
        "others",
        "over",
        "put",
        "said",
        "same",
        "seen",
        "several",
        "shown",
        "some",
        "that",
        "there",
        "things",
        "told",
        "turned",
        "what",
        "when",
        "why",
        "within",
        "without",
        "yes",
    ]
)
"""Words by which nobody finds a private function: they stand on every page."""


def test_names_can_be_searched() -> None:
    found = [
        f"{place(path, line)} {name}"
        for path in sources(*PACKAGES)
        for line, name, _ in lengths(path.read_text(encoding="utf-8"))
        if name.startswith("_") and name.removeprefix("_") in SAYS_NOTHING
    ]
    assert not found, f"{found}: name what it returns or does, so that a search finds it"


def test_silenced_tools_have_a_code_and_a_reason() -> None:
    found = [
        f"{place(path, line)} {text}"
        for path in sources(*ALL_CODE)
        for line, text in unreasoned(path.read_text(encoding="utf-8"))
    ]
    assert not found, f"{found}: write '# noqa: CODE - reason' or '# type: ignore[code]  # reason'"


def test_the_api_folder_is_no_package() -> None:
    found = [place(path, 1) for path in sources("proto") if path.name == "__init__.py"]
    assert not found, f"{found}: generated code has a package of its own, in .generated"


@pytest.mark.parametrize("file", ["dev.txt", "runtime.txt"])
def test_dependencies_are_pinned_with_hashes_and_name_no_host(file: str) -> None:
    text = (ROOT / ".requirements" / file).read_text(encoding="utf-8")
    pins = re.split(r"\n(?=\S)", text.strip())
    assert all(re.match(r"[a-z0-9-]+==\S+", pin) and "--hash=sha256:" in pin for pin in pins), "run 'make lock'"
    assert "://" not in text, "run 'make lock': the pins hold wherever the packages come from"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        pytest.param("import datetime as d\nd.datetime.now()", [(2, "datetime.now")], id="through a module"),
        pytest.param("f(float(x))", [(1, "f"), (1, "float")], id="inside another call"),
        pytest.param("self.console.print(1)", [(1, "console.print")], id="a method of the same name is another call"),
        pytest.param("'float(1)'", [], id="a text is no call"),
    ],
)
def test_calls_are_found(source: str, found: list[tuple[int, str]]) -> None:
    assert list(calls(source)) == found


def test_lengths_are_counted() -> None:
    assert list(lengths("x = 1\nasync def f():\n    a = 1\n\n    return a\n")) == [(2, "f", 4)]


@pytest.mark.parametrize(
    ("comment", "is_fine"),
    [
        ("# noqa", False),
        ("# noqa: S608", False),
        ("# noqa: S608, PLR0913", False),
        ("# type: ignore", False),
        ("# type: ignore[misc]", False),
        ("# noqa: S608 - our own names", True),
        ("# noqa: PLR0913, PLR0917 - columns of one table", True),
        ("# type: ignore[misc]  # a coroutine", True),
        ("# type: ignore[misc]  # noqa: ANN001 - table of lambdas", True),
        ("# a comment", True),
    ],
)
def test_reasons_are_missed(comment: str, is_fine: bool) -> None:
    assert (not list(unreasoned(f"x = 1  {comment}\n"))) == is_fine
