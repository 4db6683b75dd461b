"""What a database consists of, object by object, as text that can be compared: its whole catalogue."""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg

Catalogue = Mapping[str, str]
"""Definitions by what they define, such as ``column ledger.lot.held_minor``."""

# Schemas of the service, and what stands in them, are what is compared; `public` has the record of migrations alone.
_SCHEMAS = "n.nspname IN ('ledger', 'server', 'crm')"

# Rights in the order of their text: who has which, and may pass it on.
_RIGHTS = """
(SELECT string_agg(format('%s to %s%s', a.privilege_type, coalesce(r.rolname, 'everybody'),
                          CASE WHEN a.is_grantable THEN ' with grant option' ELSE '' END), ', '
                   ORDER BY r.rolname, a.privilege_type)
 FROM aclexplode({acl}) a LEFT JOIN pg_roles r ON r.oid = a.grantee)
"""


def _rights(column: str) -> str:
    return f"'; rights: ' || coalesce({_RIGHTS.format(acl=column).strip()}, 'as made')"


def _comment(of: str, catalogue: str) -> str:
    return f"'; comment: ' || coalesce(obj_description({of}, '{catalogue}'), '-')"


# Each reads the names and the definitions of one kind of object.
READS: tuple[str, ...] = (
    # Schemas.
    f"""
SELECT 'schema ' || n.nspname, 'schema' || {_rights("n.nspacl")} || {_comment("n.oid", "pg_namespace")}
FROM pg_namespace n WHERE {_SCHEMAS}
""",
    # Tables, views, sequences and row types.
    f"""
SELECT format('%s %s.%s', CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'c' THEN 'row type'
                          WHEN 'S' THEN 'sequence' ELSE 'relation' END, n.nspname, c.relname),
       format('kind %s, %s, options %s, access method %s, row security %s %s, replica identity %s', c.relkind,
              c.relpersistence, (SELECT string_agg(o, ', ' ORDER BY o) FROM unnest(c.reloptions) o), m.amname,
              c.relrowsecurity, c.relforcerowsecurity, c.relreplident)
       || '; ' || coalesce(pg_get_viewdef(c.oid), (SELECT s::text FROM pg_sequences s
            WHERE s.schemaname = n.nspname AND s.sequencename = c.relname), '')
       || {_rights("c.relacl")} || {_comment("c.oid", "pg_class")}
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am m ON m.oid = c.relam
WHERE {_SCHEMAS} AND c.relkind NOT IN ('i', 'I')
""",
    # Columns, with their place among those that are there.
    f"""
SELECT format('column %s.%s.%s', n.nspname, c.relname, a.attname),
       format('number %s, %s, collation %s, not null %s, default %s, identity %s, generated %s, storage %s, '
              'compression %s, statistics %s, options %s',
              row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum), format_type(a.atttypid, a.atttypmod),
              o.collname, a.attnotnull, pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attgenerated, a.attstorage,
              a.attcompression, a.attstattarget, a.attoptions)
       || {_rights("a.attacl")} || '; comment: ' || coalesce(col_description(c.oid, a.attnum), '-')
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum LEFT JOIN pg_collation o ON o.oid = a.attcollation
WHERE {_SCHEMAS} AND c.relkind NOT IN ('i', 'I', 'S') AND a.attnum > 0 AND NOT a.attisdropped
""",
    # Constraints of tables and domains.
    f"""
SELECT format('constraint %s of %s.%s', k.conname, n.nspname, coalesce(c.relname, t.typname)),
       format('%s; valid %s, inherited %s', pg_get_constraintdef(k.oid), k.convalidated, NOT k.conislocal)
       || {_comment("k.oid", "pg_constraint")}
FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
LEFT JOIN pg_class c ON c.oid = k.conrelid LEFT JOIN pg_type t ON t.oid = k.contypid WHERE {_SCHEMAS}
""",
    # Indexes.
    f"""
SELECT format('index %s.%s', n.nspname, c.relname),
       format('%s; valid %s, clustered %s, replica identity %s', pg_get_indexdef(c.oid), i.indisvalid, i.indisclustered,
              i.indisreplident) || {_comment("c.oid", "pg_class")}
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_SCHEMAS}
""",
    # Functions and procedures.
    f"""
SELECT format('function %s.%s(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
       pg_get_functiondef(p.oid) || {_rights("p.proacl")} || {_comment("p.oid", "pg_proc")}
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {_SCHEMAS} AND p.prokind IN ('f', 'p')
""",
    # Triggers.
    f"""
SELECT format('trigger %s of %s.%s', t.tgname, n.nspname, c.relname),
       format('%s; enabled %s', pg_get_triggerdef(t.oid), t.tgenabled) || {_comment("t.oid", "pg_trigger")}
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {_SCHEMAS} AND NOT t.tgisinternal
""",
    # Types: domains, row types, enumerations.
    f"""
SELECT format('type %s.%s', n.nspname, t.typname),
       format('type %s, base %s, not null %s, default %s, values %s', t.typtype,
              format_type(t.typbasetype, t.typtypmod), t.typnotnull, t.typdefault,
              (SELECT array_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid))
       || {_rights("t.typacl")} || {_comment("t.oid", "pg_type")}
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE {_SCHEMAS} AND t.typcategory <> 'A'
""",
    # What this service does not use so far: rules, policies, extended statistics, extensions, default rights.
    f"""
SELECT format('rule %s of %s.%s', r.rulename, n.nspname, c.relname), pg_get_ruledef(r.oid)
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_SCHEMAS}
""",
    f"""
SELECT format('policy %s of %s.%s', p.policyname, n.nspname, p.tablename), p::text
FROM pg_policies p JOIN pg_namespace n ON n.nspname = p.schemaname WHERE {_SCHEMAS}
""",
    f"""
SELECT format('statistics %s.%s', n.nspname, s.stxname), pg_get_statisticsobjdef(s.oid)
FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE {_SCHEMAS}
""",
    "SELECT 'extension ' || extname, extversion FROM pg_extension",
    f"""
SELECT format('default rights of %s in %s', d.defaclobjtype, n.nspname), 'default' || {_rights("d.defaclacl")}
FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
""",
    # Roles of the service, which belong to the server and not to one database.
    """
SELECT 'role ' || r.rolname,
       format('superuser %s, inherits %s, login %s, makes roles %s, makes databases %s, replicates %s, bypasses %s, '
              'members %s', r.rolsuper, r.rolinherit, r.rolcanlogin, r.rolcreaterole, r.rolcreatedb, r.rolreplication,
              r.rolbypassrls, (SELECT array_agg(m.rolname ORDER BY m.rolname) FROM pg_auth_members a
                               JOIN pg_roles m ON m.oid = a.member WHERE a.roleid = r.oid))
FROM pg_roles r WHERE r.rolname IN ('tallypoint_owner', 'tallypoint_writer', 'tallypoint_reader')
""",
)

# The tables of the service.
READ_TABLES = """
SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('ledger', 'server', 'crm')
"""


async def catalogue_of(conn: asyncpg.Connection[asyncpg.Record]) -> Catalogue:
    """Read everything that a database consists of, and the rows that its tables begin with."""
    await conn.execute("SET search_path = pg_catalog")  # so that every definition names its schemas
    found: dict[str, str] = {}
    for read in READS:
        for name, definition in await conn.fetch(read):
            assert name not in found, f"two objects are called {name!r}"
            assert definition is not None, f"{name!r} has no definition"
            found[name] = definition
    for (table,) in await conn.fetch(READ_TABLES):
        rows = await conn.fetch(f"SELECT t::text FROM {table} t ORDER BY 1")
        found[f"rows of {table}"] = "\n".join(row[0] for row in rows)
    return found


def differences(one: Catalogue, other: Catalogue, one_is: str, other_is: str) -> list[str]:
    """Return a line for each object that only one of them has, or that is defined otherwise."""
    lines = []
    for name in sorted(one.keys() | other.keys()):
        if name not in other:
            lines.append(f"{name} is made by {one_is} alone")
        elif name not in one:
            lines.append(f"{name} is made by {other_is} alone")
        elif one[name] != other[name]:
            lines.append(f"{name} differs:\n  {one_is}: {one[name]}\n  {other_is}: {other[name]}")
    return lines
