"""SQL keeps to the walls: which schema the SQL of each package names, and which packages name which table of `server`.

What is read are the texts of the modules, as they stand there: strings, f-strings, strings joined with + and with
`join`, `%` and `format`, and names of strings in the same module. A part that is only known when the program runs is
taken for any: `FROM crm.{table}` names all of `crm`, and `FROM {schema}.entry` names a schema that nobody may name.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("server", "ledger", "pos_adapters")
SCHEMAS = ("ledger", "server", "crm")

MAY_NAME = {
    "ledger/booking": {"ledger"},
    "ledger/caches": {"ledger"},
    "ledger/finance": {"ledger"},
    "ledger/migrations": {"ledger"},
    "ledger/reading": {"ledger"},
    "ledger/rebuild": {"ledger"},
    "ledger/seal": {"ledger"},
    "ledger/verify": {"ledger"},
    "server/base": {"server"},
    "server/base/seals": {"crm"},
    "server/corrections": {"server"},
    "server/crm": {"server", "crm"},
    "server/finance": {"server"},
    "server/members": {"server"},
    "server/migrations": {"server"},
    "server/process": {"server"},
    "server/reconciliation": {"server"},
    "server/rights": {"server"},
    "server/rules": {"server"},
    "server/shop": {"server"},
}
"""The schemas that the SQL of a package, or of a module by itself, names; who is not here has no SQL that names one."""


class Table(NamedTuple):
    """Which packages name a table: the one that it belongs to, others that write it, others that only read it."""

    owner: str
    writers: frozenset[str] = frozenset()
    readers: frozenset[str] = frozenset()


def table(owner: str, *, writers: str = "", readers: str = "") -> Table:
    return Table(owner, frozenset(writers.split()), frozenset(readers.split()))


TABLES = {
    "adjustment_request": table("corrections", readers="finance"),
    "admin_message": table("members"),
    "api_key": table("shop"),
    "config_version": table("base", writers="shop"),
    "coupon": table("rights", readers="rules"),
    "coupon_block": table("rights"),
    "coupon_generation": table("rights"),
    "coupon_series_block": table("rights"),
    "member": table("members", writers="corrections", readers="crm rights rules"),
    "member_audience": table("rights", readers="members rules"),
    "member_identifier": table("members", writers="corrections", readers="rights"),
    "product": table("shop", readers="rules"),
    "programme_version": table("rules"),
    "reconciliation_break": table("reconciliation", readers="finance"),
    "reconciliation_event": table("reconciliation"),
    "reconciliation_rules": table("reconciliation"),
    "reconciliation_run": table("reconciliation"),
    "register_file": table("reconciliation", readers="finance"),
    "register_file_part": table("reconciliation"),
    "register_receipt": table("reconciliation", readers="finance"),
    "rules_rollout": table("rules"),
    "rules_shadow": table("rules"),
    "secret_fingerprint": table("process"),
    "store": table("shop", readers="corrections finance reconciliation rules"),
    "terminal": table("shop", readers="reconciliation"),
    "z_report": table("reconciliation", readers="finance"),
}
"""The tables of the schema `server`; packages are those below `server/`."""

UNKNOWN = "\0"
"""Stands in a text for a part that is not known before the program runs."""
ANY = "*"
"""Stands for a name that is not known before the program runs."""


class Named(NamedTuple):
    """A table, view or function that SQL names, and whether it is written to."""

    schema: str
    name: str
    written: bool

    def __str__(self) -> str:
        """Return it in words, such as `read ledger.entry`."""
        return f"{'write' if self.written else 'read'} {self.schema}.{self.name}"


# --- texts -> names ---------------------------------------------------------------------------------------------------

_PART = rf'(?:"(\w+)"|(\w+)|([{UNKNOWN}]|%\w|%\(\w+\)s|\{{[^}}\s]*\}}))'
"""An identifier: quoted, plain, or only known when the program runs."""
_WRITE = r"\bINTO\s+|\bUPDATE\s+(?:ONLY\s+)?|\bDELETE\s+FROM\s+(?:ONLY\s+)?|\bTRUNCATE\s+(?:TABLE\s+)?|\bCOPY\s+"
_READ = r"\bFROM\s+(?:ONLY\s+)?|\bJOIN\s+|\bTABLE\s+|\bUSING\s+|\bCALL\s+|\bSCHEMA\s+"
_NAME = re.compile(rf'(?:(?P<write>(?i:{_WRITE}))|(?P<read>(?i:{_READ})))?(?<![\w./"{UNKNOWN}-]){_PART}\s*\.\s*{_PART}')
_MIGRATED = re.compile(r"CREATE (?:OR REPLACE )?(?:TABLE|VIEW|FUNCTION|PROCEDURE) (\w+)\.(\w+)")


@cache
def migrated() -> frozenset[tuple[str, str]]:
    """Return all that migrations ever made, as schema and name."""
    return frozenset(
        found
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.sql")
        for found in _MIGRATED.findall(_sql(path))
    )


def names_in(text: str) -> Iterator[Named]:
    """Yield what a text names: what a migration made anywhere in it, any other where SQL has a table's name."""
    if "search_path" in text:
        yield Named(ANY, "search_path", written=True)
    for match in _NAME.finditer(text):
        parts = match.groups()[2:]
        schema, name = (quoted or plain or ANY for quoted, plain, _ in (parts[:3], parts[3:]))
        keyword = match["write"] or match["read"] or ""
        is_ours = schema in SCHEMAS and (name == ANY or (schema, name) in migrated())
        # Of a text whose schema is not known, capitals say that it is SQL and no sentence.
        if is_ours or (keyword.isupper() and schema in {*SCHEMAS, ANY}):
            yield Named(schema, name, match["write"] is not None)


def _sql(path: Path) -> str:
    """Return the statements of a file without remarks: comments, and what COMMENT ON says."""
    text = re.sub(r"--[^\n]*", "", path.read_text(encoding="utf-8"))
    return re.sub(r"(COMMENT ON [^']*)'(?:[^']|'')*'", r"\1", text)


# --- modules -> texts -------------------------------------------------------------------------------------------------


def names_in_module(source: str) -> Iterator[tuple[int, Named]]:
    """Yield what a module names, with the line, in whichever way its texts are put together."""
    tree = ast.parse(source)
    texts = _Texts(tree)
    remarks = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from ((node.lineno, named) for named in _copied(node, texts))
        if isinstance(node, ast.expr) and not (id(node) in remarks and isinstance(node, ast.Constant)):
            yield from ((node.lineno, named) for named in names_in(texts.of(node)))


def _copied(call: ast.Call, texts: _Texts) -> Iterator[Named]:
    """Yield the table that a call copies rows to or from: `schema_name=` and the first argument."""
    for keyword in call.keywords:
        if keyword.arg == "schema_name":
            schema, name = texts.of(keyword.value), texts.of(call.args[0]) if call.args else UNKNOWN
            written = "_to_table" in ast.unparse(call.func)
            yield Named(schema.replace(UNKNOWN, ANY), ANY if UNKNOWN in name else name, written)


class _Texts:
    """The texts of a module's expressions; an expression that is no text is UNKNOWN."""

    def __init__(self, tree: ast.Module) -> None:
        given: dict[str, list[ast.expr | None]] = defaultdict(list)
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    given[ast.unparse(target)].append(node.value)
            elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.For | ast.AsyncFor | ast.comprehension):
                given[ast.unparse(node.target)].append(node.value if isinstance(node, ast.AnnAssign) else None)
            elif isinstance(node, ast.arg):
                given[node.arg].append(None)
        self._constants = {name: values[0] for name, values in given.items() if len(values) == 1}
        self._open: set[str] = set()

    def of(self, node: ast.expr | None) -> str:
        """Return the text of an expression."""
        found = UNKNOWN
        match node:
            case ast.Constant(value=str(text)):
                found = text
            case ast.JoinedStr(values=values):
                found = "".join(map(self.of, values))
            case ast.FormattedValue(value=value):
                found = self.of(value)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                found = self.of(left) + self.of(right)
            case ast.BinOp(left=ast.Constant() | ast.Name() as left, op=ast.Mod()):
                found = self.of(left)
            case ast.Call(func=ast.Attribute(value=value, attr="format")):
                found = self.of(value)
            case ast.Call(func=ast.Attribute(value=value, attr="join"), args=[ast.List(elts=e) | ast.Tuple(elts=e)]):
                found = self.of(value).join(map(self.of, e))
            case ast.Name(id=name) if name in self._constants and name not in self._open:
                found = self._of_name(name)
        return found

    def _of_name(self, name: str) -> str:
        self._open.add(name)
        try:
            return self.of(self._constants[name])
        finally:
            self._open.remove(name)


# --- the walls --------------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where something is named: in which package, or module that stands in MAY_NAME by itself."""

    package: str
    where: str
    named: Named


def package_of(relative: Path) -> str:
    """Return what a file belongs to: a module of MAY_NAME, or the first folder or module below `server` or `ledger`.

    An assembled schema belongs to the migrations beside it.
    """
    if relative.name == "schema.sql":
        relative = relative.parent / "migrations" / relative.name
    module = str(relative.with_suffix(""))
    return module if module in MAY_NAME else "/".join(Path(module).parts[:2])


@cache
def all_named() -> tuple[Place, ...]:
    """Return everything that is named in production code, module by module."""
    found = []
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")):
        if path.suffix in {".py", ".sql"}:
            is_sql, relative = path.suffix == ".sql", path.relative_to(ROOT)
            lines = ((1, one) for one in names_in(_sql(path))) if is_sql else names_in_module(path.read_text("utf-8"))
            found += [Place(package_of(relative), f"{relative}:{line}", named) for line, named in lines]
    return tuple(found)


def strangers(places: Iterable[Place]) -> list[str]:
    """Return what packages name that they may not."""
    return [
        f"{where}: {package} may not name {named.schema}.{named.name}"
        for package, where, named in places
        if named.schema not in MAY_NAME.get(package, ())
    ]


def tables_of(places: Iterable[Place]) -> dict[str, Table]:
    """Return who names which table of the schema `server`, but for migrations; owners are those of TABLES."""
    writers, readers = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for package, _, named in places:
        if named.schema == "server" and package != "server/migrations":
            kind = writers if named.written else readers
            kind[named.name].add(package.split("/")[1])
    found = {}
    for name in writers.keys() | readers.keys():
        owner = TABLES[name].owner if name in TABLES else "nobody"
        others = writers[name] - {owner}, readers[name] - writers[name] - {owner}
        owner = owner if owner in writers[name] | readers[name] else "nobody"
        found[name] = Table(owner, *map(frozenset, others))
    return found


def test_packages_name_only_their_schemas() -> None:
    found = sorted(set(strangers(all_named())))
    assert not found, "\n".join([*found, "tables of the ledger are asked through ledger/reading or ledger/finance"])


def test_list_of_schemas_has_nothing_that_is_named_no_more() -> None:
    named = {(place.package, place.named.schema) for place in all_named()}
    assert named == {(package, schema) for package, schemas in MAY_NAME.items() for schema in schemas}


def test_tables_of_the_server_are_named_by_who_may() -> None:
    assert tables_of(all_named()) == TABLES


def test_every_table_of_the_server_belongs_to_a_package() -> None:
    text = "".join(map(_sql, sorted((ROOT / "server/migrations").glob("*.sql"))))
    assert set(re.findall(r"CREATE TABLE server\.(\w+)", text)) == TABLES.keys()


@pytest.mark.parametrize(
    ("package", "named"),
    [
        ("server/members", Named("ledger", "member_counters", written=False)),
        ("server/base", Named("crm", "seal", written=False)),
        ("server/base/seals", Named("server", "member", written=False)),
        ("server/rights", Named("crm", ANY, written=False)),
        ("server/rights", Named(ANY, "coupon", written=False)),
        ("ledger/entry", Named("ledger", "entry", written=False)),
        ("ledger/reading", Named("server", "member", written=False)),
        ("pos_adapters/of_tomorrow", Named("server", "store", written=False)),
    ],
)
def test_stranger_is_seen(package: str, named: Named) -> None:
    assert strangers([Place(package, "x.py:1", named)])


@pytest.mark.parametrize(
    ("package", "name", "written"),
    [
        pytest.param("server/shop", "member", False, id="somebody else reads"),
        pytest.param("server/rights", "member", True, id="a reader writes"),
        pytest.param("server/members", ANY, False, id="a table that is not known"),
        pytest.param("server/members", "of_tomorrow", True, id="a table without an owner"),
    ],
)
def test_stranger_at_a_table_is_seen(package: str, name: str, written: bool) -> None:
    stranger = Place(package, "x.py:1", Named("server", name, written))
    assert tables_of((*all_named(), stranger)) != TABLES


def test_module_that_stands_by_itself_is_told_from_its_package() -> None:
    assert package_of(Path("server/base/seals.py")) == "server/base/seals"
    assert package_of(Path("server/base/reload.py")) == "server/base"
    assert package_of(Path("server/rules/backtest/journal.py")) == "server/rules"
    assert package_of(Path("ledger/seal.py")) == "ledger/seal"


# --- proof that names are seen ----------------------------------------------------------------------------------------

SEEN = [
    ('Q = "SELECT 1 FROM ledger.entry e JOIN crm.seal USING (x)"', {"read ledger.entry", "read crm.seal"}),
    ('Q = "INSERT INTO server.member (book) VALUES (1)"', {"write server.member"}),
    ('Q = "UPDATE server.member SET status = 1"', {"write server.member"}),
    ('Q = "DELETE FROM ONLY server.member"', {"write server.member"}),
    ('Q = "TRUNCATE ledger.lot"', {"write ledger.lot"}),
    ('Q = "select * from server.member for update"', {"read server.member"}),
    ('Q = "delete from server.member"', {"write server.member"}),
    ('Q = "SELECT 1 FROM ledger.of_tomorrow"', {"read ledger.of_tomorrow"}),
    ('Q = "SELECT ledger.write_batch($1)"', {"read ledger.write_batch"}),
    ("""Q = 'SELECT 1 FROM "ledger"."entry"'""", {"read ledger.entry"}),
    ('Q = """SELECT 1 FROM\n    ledger . entry"""', {"read ledger.entry"}),
    ('conn.fetchval(HAS_TABLE, "ledger.identity")', {"read ledger.identity"}),
    ('def f():\n    return conn.fetch("SELECT 1 FROM crm.seal")', {"read crm.seal"}),
    ('Q = "SELECT 1 FROM led" "ger.entry"', {"read ledger.entry"}),
    ('Q = "SELECT 1 FROM led" + "ger.entry"', {"read ledger.entry"}),
    ('Q = ".".join(["ledger", "entry"])', {"read ledger.entry"}),
    ('S = "ledger"\nQ = f"SELECT 1 FROM {S}.entry"', {"read ledger.entry"}),
    ('S: Final = "ledger"\nQ = "UPDATE " + S + ".entry"', {"write ledger.entry"}),
    ('T = "ledger.entry"\nQ = f"DELETE FROM {T}"', {"read ledger.entry", "write ledger.entry"}),
    ('Q = f"SELECT 1 FROM crm.{table.name}"', {"read crm.*"}),
    ('Q = "SELECT 1 FROM crm." + table', {"read crm.*"}),
    ('Q = "SELECT 1 FROM crm.{table}".format(table=t)', {"read crm.*"}),
    ('Q = "SELECT 1 FROM crm.%s" % t', {"read crm.*"}),
    ('Q = "SELECT 1 FROM crm.%(table)s" % t', {"read crm.*"}),
    ('Q = f"SELECT 1 FROM {schema}.entry"', {"read *.entry"}),
    ('Q = "SELECT 1 FROM %s.entry" % schema', {"read *.entry"}),
    ('def f(S):\n    return f"SELECT 1 FROM {S}.entry"\nS = "server"', {"read *.entry"}),
    ('Q = f"SELECT 1 FROM {schema}.{table}"', {"read *.*"}),
    ('conn.copy_to_table("lot", schema_name="ledger", source=x)', {"write ledger.lot"}),
    ('conn.copy_records_to_table(t.name, schema_name="server", records=x)', {"write server.*"}),
    ('conn.copy_from_table("lot", schema_name=schema, output=x)', {"read *.lot"}),
    ('Q = "SET search_path TO ledger"', {"write *.search_path"}),
]
"""A module, and what its SQL names."""

NOT_SEEN = [
    '"""Reads ``ledger.entry``."""',
    'X = 1\n"""What crm.seal has."""',
    'class A:\n    """A row of `server.member`."""\n    def f(self):\n        """SELECT 1 FROM ledger.entry"""',
    "# SELECT 1 FROM ledger.entry",
    "from ledger.entry import books",
    'target = "server.process.worker.worker_main"',
    'logger = get_logger("server.measuring")',
    'Q = "SELECT m.member_id FROM member m JOIN other o ON o.ledger = m.ledger"',
    'Q = f"SELECT {columns} FROM {coupons} c WHERE {condition}"',
    'text = f"{name} of {store.name} from {path}.csv"',
    "x = ledger.entry + crm.seal",
]
"""Modules that speak of tables, or of something that looks like one, outside of SQL."""


@pytest.mark.parametrize(("source", "found"), SEEN)
def test_names_are_seen(source: str, found: set[str]) -> None:
    assert {str(named) for _, named in names_in_module(source)} == found


@pytest.mark.parametrize("source", NOT_SEEN)
def test_what_is_no_sql_is_not_seen(source: str) -> None:
    assert not list(names_in_module(source))


def test_remarks_in_migrations_are_not_seen(tmp_path: Path) -> None:
    file = tmp_path / "0001_x.sql"
    file.write_text(
        "COMMENT ON TABLE crm.seal IS 'it''s of ledger.entry'; -- as server.member\nSELECT 1 FROM ledger.lot;"
    )
    assert {str(named) for named in names_in(_sql(file))} == {"read crm.seal", "read ledger.lot"}
