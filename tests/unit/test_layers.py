"""Which folder may import what. The contracts of pyproject.toml, and the few libraries that each layer may use."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MAY_IMPORT = {
    "ledger": {"ledger", "tallypoint", "google.protobuf", "asyncpg", "cryptography"},
    "server/promotions": {"server.promotions", "server.base.scanned_text", "pydantic", "pydantic_core", "ruamel.yaml"},
    "pos_adapters": {"pos_adapters", "tallypoint", "google.protobuf", "google.rpc", "grpc", "grpc_status"},
}
"""Beyond the standard library. `tallypoint` stands for the generated API."""

MAY_NOT_IMPORT = {
    "ledger": {"tallypoint.v1.*_grpc", "importlib"},
    "server/promotions": {"asyncio", "importlib", "os", "random", "socket", "subprocess", "threading"},
    "pos_adapters": set[str](),
}
"""Of what the table above and the standard library would let through."""


def imports(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of everything that a module imports, wherever the import stands in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def is_within(name: str, module: str) -> bool:
    if module.endswith("*_grpc"):
        return name.startswith(module.removesuffix("*_grpc")) and "_grpc" in name
    return name == module or name.startswith(f"{module}.")


def test_contracts_are_kept() -> None:
    """In a process of its own: it configures the logging of the whole process anew, loggers of other tests too."""
    call = "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports(cache_dir=None))"
    done = subprocess.run([sys.executable, "-c", call], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_layer_uses_only_its_libraries(folder: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, name in imports(path.read_text(encoding="utf-8"))
        if any(is_within(name, banned) for banned in MAY_NOT_IMPORT[folder])
        or (
            name.split(".")[0] not in sys.stdlib_module_names
            and not any(is_within(name, allowed) for allowed in MAY_IMPORT[folder])
        )
    ]
    assert not found, f"{found}: {folder} may import only {sorted(MAY_IMPORT[folder])} and the standard library"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        pytest.param("import grpc.aio", ["grpc.aio"], id="a module"),
        pytest.param(
            "from tallypoint.v1 import a_pb2, b_pb2", ["tallypoint.v1.a_pb2", "tallypoint.v1.b_pb2"], id="names"
        ),
        pytest.param("def f():\n    import os", ["os"], id="inside a function"),
    ],
)
def test_imports_are_found(source: str, found: list[str]) -> None:
    assert [name for _, name in imports(source)] == found


def test_generated_stubs_of_services_are_told_from_messages() -> None:
    assert is_within("tallypoint.v1.checkout_pb2_grpc", "tallypoint.v1.*_grpc")
    assert not is_within("tallypoint.v1.checkout_pb2", "tallypoint.v1.*_grpc")
