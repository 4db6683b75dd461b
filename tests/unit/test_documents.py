"""The documents name only what there is: files, modules, names in them, tables, links; the decisions are all listed."""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURE = ROOT / "ARCHITECTURE.md"
DECISIONS = ROOT / "docs" / "decisions"
FOLDERS: Final = "benchmarks|docs|ledger|pos_adapters|proto|server|tests"
MAX_ARCHITECTURE_LINES = 200
MAX_DECISION_LINES = 60
"""A page: who reads one decision reads it to its end."""

PRESENT = [
    *ROOT.glob("README.md"),
    ARCHITECTURE,
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "benchmarks").glob("[a-z]*.md")),
    *sorted(path for folder in FOLDERS.split("|") if folder != "docs" for path in (ROOT / folder).rglob("README.md")),
]
"""Documents of what is so today. The change log and kept results tell of the past, in the names of their day."""

_PATH: Final = re.compile(rf"(?<![\w./-])(?:{FOLDERS})/[\w./*-]*[\w/*]")
_FILE: Final = re.compile(r"`([\w./-]+\.(?:py|sql|proto))`")
_MODULE: Final = re.compile(r"(?<![\w./-])(?:benchmarks|ledger|pos_adapters|server|tests)(?:\.\w+)+")
_TABLE: Final = re.compile(r"(?<![\w./-])(?:crm|ledger|server)(?:\.[a-z]\w*)+")
_NAMES_IN: Final = re.compile(r"((?:`[\w.]+`(?:, | and ))*`[\w.]+`) in `([\w./-]+\.(?:py|sql|proto))`")
_LINK: Final = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
_CODE: Final = re.compile(r"`([^`\n]+)`")
_FENCED: Final = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_RUN: Final = re.compile(rf"python -m ((?:{FOLDERS})\.[\w.]*[a-z])")
_CREATED: Final = re.compile(r"CREATE (?:OR REPLACE )?(?:TABLE|VIEW|FUNCTION|TYPE|DOMAIN) (?:IF NOT EXISTS )?([\w.]+)")

QUESTIONS: Final = (
    *("clawback", "limit checked under the fence", "phone's hash", "blocked card", "rounding of earning"),
    *("a new call", "a new adapter", "an effect", "a new command", "a new setting"),
)
"""What everybody asks first, each by words of its row; there may be more rows."""


class Row(NamedTuple):
    """A row of a table of ARCHITECTURE.md."""

    heading: str
    cells: tuple[str, ...]


def rows_of(text: str, heading: str) -> list[Row]:
    """Return the rows of all tables under a heading of the second level, without the tables' own heads."""
    parts = [part for part in re.split(r"^## ", text, flags=re.MULTILINE) if part.startswith(heading)]
    assert len(parts) == 1, f"one heading begins with {heading!r}"
    lines = parts[0].splitlines()
    found = []
    for before, line in pairwise(lines):
        is_row = line.startswith("|") and not line.startswith("|--")
        if is_row and before.startswith("|"):
            found.append(Row(heading, tuple(cell.strip() for cell in line.strip("|").split(" | "))))
    return found


# --- what a file defines ----------------------------------------------------------------------------------------------


def _targets(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement of a module or class defines; of imports those that it hands on."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id
    elif isinstance(node, ast.If):
        for statement in node.body:
            yield from _targets(statement)


@functools.cache
def names_of_module(path: Path) -> frozenset[str]:
    """Return what a module defines, with members of classes by their dotted names."""
    names: set[str] = set()
    for node in ast.parse(path.read_bytes()).body:
        names.update(_targets(node))
        if isinstance(node, ast.ClassDef):
            names.update(f"{node.name}.{name}" for statement in node.body for name in _targets(statement))
        if isinstance(node, ast.ImportFrom) and path.name == "__init__.py":
            names.update(alias.asname or alias.name for alias in node.names)
    return frozenset(names)


def defines(path: Path, name: str) -> bool:
    """Say whether a file defines a name, by what definitions look like in a file of its kind."""
    if path.suffix == ".py":
        return name in names_of_module(path)
    text, word = path.read_text(encoding="utf-8"), re.escape(name)
    if path.suffix == ".proto":
        return (
            re.search(rf"^\s*(?:message|enum|service|rpc|oneof) {word}\b|\b{word} = \d", text, re.MULTILINE) is not None
        )
    if path.suffix == ".sql":
        return name in _CREATED.findall(text)
    if path.name == "Makefile":
        return re.search(rf"^{word}:", text, re.MULTILINE) is not None
    if path.suffix == ".toml":
        return re.search(rf'^(?:\[+{word}\]+$|"?{word}"? = |name = "{word}")', text, re.MULTILINE) is not None
    return False


@functools.cache
def tables() -> tuple[frozenset[str], str]:
    """Return what the databases have, and all that their SQL files say."""
    files = [path for folder in ("ledger", "server") for path in (ROOT / folder).rglob("*.sql")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return frozenset(_CREATED.findall(text)), text


def is_module(dotted: str) -> bool:
    """Say whether a dotted name is a module, or a name in one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        folder = ROOT.joinpath(*parts[:length])
        path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        if path.exists():
            rest = ".".join(parts[length:])
            return not rest or rest in names_of_module(path)
    return False


def is_table(dotted: str) -> bool:
    """Say whether a dotted name is a table, view, function or type of a database, or a column of a table."""
    created, text = tables()
    name, column = ".".join(dotted.split(".")[:2]), dotted.split(".")[2:]
    return name in created and all(re.search(rf"\b{word}\b", text) for word in column)


def exists(mentioned: str, document: Path) -> bool:
    """Say whether a path is there, from the root or from a document's folder, a bare name anywhere in that folder."""
    path = mentioned.rstrip("/")
    if "/" not in path and document.parent != ROOT and any(document.parent.rglob(path)):
        return True
    return any((folder / path).exists() or any(folder.glob(path)) for folder in (ROOT, document.parent))


def wrong_mentions(document: Path, text: str) -> list[str]:
    """Return what a document names and nobody finds."""
    wrong = [name for name in _RUN.findall(text) if not is_module(name)]
    wrong += [path for path in _PATH.findall(text) if not exists(path, document)]
    text = _FENCED.sub("", text)
    wrong += [path for path in _FILE.findall(text) if not exists(path, document)]
    for code in _CODE.findall(text):
        is_file = re.fullmatch(r"[\w.][\w./-]*", code) is not None and exists(code, document)
        dotted = () if is_file else (*_MODULE.findall(code), *_TABLE.findall(code))
        wrong += [name for name in dotted if not is_module(name) and not is_table(name)]
    for names, path in _NAMES_IN.findall(" ".join(text.split())):
        files = [folder / path for folder in (ROOT, document.parent) if (folder / path).is_file()]
        wrong += [f"{name} in {path}" for name in _CODE.findall(names) if not any(defines(one, name) for one in files)]
    return list(dict.fromkeys(wrong))


@pytest.mark.parametrize("document", PRESENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_name_only_what_there_is(document: Path) -> None:
    wrong = wrong_mentions(document, document.read_text(encoding="utf-8"))
    assert not wrong, "moved, renamed, or never there"


@pytest.mark.parametrize("document", [*PRESENT, ROOT / "CHANGELOG.md"], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    wrong = []
    for link in _LINK.findall(document.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in anchors_of(target.read_text(encoding="utf-8"))):
            wrong.append(link)
    assert not wrong


def anchors_of(text: str) -> set[str]:
    """Return the anchors of a document's headings, as they are shown on the web."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- ARCHITECTURE.md --------------------------------------------------------------------------------------------------


def test_the_architecture_is_read_in_one_go() -> None:
    lines = ARCHITECTURE.read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_ARCHITECTURE_LINES, "what was decided belongs to docs/decisions/, figures to benchmarks/"


def _answers() -> list[Row]:
    return rows_of(ARCHITECTURE.read_text(encoding="utf-8"), "Where is")


@pytest.mark.parametrize("row", _answers(), ids=lambda row: row.cells[0])
def test_a_question_is_answered_by_a_name_in_a_file(row: Row) -> None:
    _, file, names = row.cells
    (path,) = _CODE.findall(file)
    assert (ROOT / path).is_file(), path
    assert _CODE.findall(names), "by which name is it found there?"
    missing = [name for name in _CODE.findall(names) if not defines(ROOT / path, name)]
    assert not missing, f"{path} does not define {missing}"


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_everybody_asks_is_answered(question: str) -> None:
    assert [row for row in _answers() if question in row.cells[0]]


@pytest.mark.parametrize("package", ["server", "ledger"])
def test_rooms_are_listed_in_the_order_in_which_imports_go(package: str) -> None:
    """The linter proves that imports go down the layers of pyproject.toml, and that these are all rooms there are."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = [one["layers"] for one in contracts if one.get("containers") == [package]]
    rows = rows_of(ARCHITECTURE.read_text(encoding="utf-8"), "The picture")
    rooms = [room for row in rows for room in re.findall(rf"`{package}/(\w+)(?:/|\.py)`", row.cells[0])]
    levels = [sorted(layer.split(" | ")) for layer in layers]
    assert rooms
    for level in levels:
        assert sorted(rooms[: len(level)]) == level, f"{package}/ has in its next layer {level}"
        del rooms[: len(level)]
    assert not rooms


# --- docs/decisions ---------------------------------------------------------------------------------------------------


def _decisions() -> list[Path]:
    return sorted(path for path in DECISIONS.glob("*.md") if path.name != "README.md")


@pytest.mark.parametrize("index", [ARCHITECTURE, DECISIONS / "README.md"], ids=lambda path: path.name)
def test_every_decision_is_listed(index: Path) -> None:
    links = {(index.parent / link).resolve() for link in _LINK.findall(index.read_text(encoding="utf-8"))}
    assert not [path.name for path in _decisions() if path not in links]


@pytest.mark.parametrize("page", _decisions(), ids=lambda path: path.stem)
def test_a_decision_is_one_page_with_its_problem(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_DECISION_LINES
    assert re.findall(r"^## (Problem|Decision)$", text, re.MULTILINE) == ["Problem", "Decision"]


def test_modules_in_the_table_of_rooms_are_there() -> None:
    text = (ROOT / "docs" / "rooms.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert rows
    named = [(ROOT / _CODE.findall(room)[0], name) for room, what in rows for name in re.findall(r"`([\w/]+)`", what)]
    wrong = [
        f"{path / name}" for path, name in named if not ((path / name).is_dir() or (path / f"{name}.py").is_file())
    ]
    assert not wrong


# --- a test that cannot fail proves nothing ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        pytest.param("`ledger/entry/decide.py` is read", [], id="a file"),
        pytest.param("see ledger/entry/decided.py.", ["ledger/entry/decided.py"], id="no file"),
        pytest.param("[x](../../server/crm/rows.py)", [], id="a path that does not begin with a folder is a link's"),
        pytest.param("`entry/decide.py`", ["entry/decide.py"], id="half a path"),
        pytest.param("`ledger/migrations/0001_*.sql`", [], id="a pattern"),
        pytest.param("`ledger.entry.decide.decide`, `server.crm`", [], id="modules"),
        pytest.param("`ledger.entry.decide.decided`", ["ledger.entry.decide.decided"], id="no name of a module"),
        pytest.param("`ledger.write_batch`, `ledger.posting.issued_at`, `crm.receipt_line`", [], id="tables"),
        pytest.param("`ledger.write_batches`", ["ledger.write_batches"], id="no table"),
        pytest.param("`decide` and `TICK` in `ledger/entry/decide.py`", [], id="names in a file"),
        pytest.param("`decides` in `ledger/entry/decide.py`", ["decides in ledger/entry/decide.py"], id="no name"),
        pytest.param("`Movement.spend` in `ledger/entry/movement.py`", [], id="a method"),
        pytest.param(
            "`Movement.spent` in `ledger/entry/movement.py`", ["Movement.spent in ledger/entry/movement.py"], id="none"
        ),
    ],
)
def test_what_is_not_there_is_found(text: str, wrong: list[str]) -> None:
    assert wrong_mentions(ARCHITECTURE, text) == wrong


@pytest.mark.parametrize(
    ("file", "name", "is_there"),
    [
        ("proto/tallypoint/v1/checkout.proto", "CheckoutService", True),
        ("proto/tallypoint/v1/checkout.proto", "Commit", True),
        ("proto/tallypoint/v1/checkout.proto", "Commits", False),
        ("pyproject.toml", "project.scripts", True),
        ("pyproject.toml", "tallypoint", True),
        ("pyproject.toml", "project.script", False),
        ("Makefile", "bench-full", True),
        ("Makefile", "benchmark", False),
        ("ledger/migrations/0007_lean_batches.sql", "ledger.write_batch", True),
        ("ledger/migrations/0001_ledger.sql", "ledger.write_more", False),
        ("README.md", "Tallypoint", False),
    ],
)
def test_definitions_are_told_from_mentions(file: str, name: str, is_there: bool) -> None:
    assert defines(ROOT / file, name) is is_there


def test_rows_are_read() -> None:
    text = "# A\n\n## Where is x\n\n| q | f |\n|---|---|\n| a | `b` |\n\n## Other\n\n| q |\n|---|\n| c |\n"
    assert [row.cells for row in rows_of(text, "Where is")] == [("a", "`b`")]


def test_anchors_are_made_of_headings() -> None:
    assert anchors_of("# A\n\n### What's `new`, and old?\n") == {"a", "whats-new-and-old"}
