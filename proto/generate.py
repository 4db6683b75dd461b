"""Generate the Python API package from the proto files.

Run as ``python proto/generate.py`` (writes into ``.generated/``), or by the wheel build as its build hook. With
``--released`` it keeps the API for `make check`, which refuses whatever would break it later. The package keeps the
proto files' own import path, ``tallypoint.v1``, and lives outside ``proto/`` so that this folder stays free of Python
packages.
"""

from __future__ import annotations

import gzip
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from grpc_tools import protoc
from protovalidate._gen.buf.validate import validate_pb  # the only place that carries the rules' own schema

ROOT = Path(__file__).resolve().parent.parent
PROTO_DIR = ROOT / "proto"
OUTPUT_DIR = ROOT / ".generated"
RELEASED = PROTO_DIR / "released.binpb.gz"
RULES_PROTO = "buf/validate/validate.proto"
PACKAGES = ("tallypoint", "tallypoint/v1", "buf", "buf/validate")


def generate(output_dir: Path = OUTPUT_DIR) -> None:
    """Write ``tallypoint/v1/*_pb2.py`` with type stubs, and ``api.binpb`` for the linter, into ``output_dir``.

    Raises:
        SystemExit: A proto file is wrong, or a tool is missing; the message says which.
    """
    with tempfile.TemporaryDirectory() as folder:
        rules, fresh = Path(folder) / "rules.binpb", Path(folder) / "generated"
        fresh.mkdir()
        write_rules_descriptors(rules)
        run_protoc([f"--python_out={fresh}", f"--pyi_out={fresh}", RULES_PROTO], rules)
        plugin = f"--plugin=protoc-gen-mypy_grpc={find_stub_plugin()}"
        run_protoc([f"--grpc_python_out={fresh}", plugin, f"--mypy_grpc_out=quiet:{fresh}"], rules)
        descriptors = fresh / "api.binpb"
        run_protoc(["--include_imports", "--include_source_info", f"--descriptor_set_out={descriptors}"], rules)
        for package in PACKAGES:
            (fresh / package / "__init__.py").write_text('"""Generated from the proto files."""\n', encoding="utf-8")
        (fresh / "tallypoint" / "py.typed").touch()
        shutil.rmtree(output_dir, ignore_errors=True)
        shutil.copytree(fresh, output_dir)


def keep_as_released(output_dir: Path = OUTPUT_DIR) -> None:
    """Keep the generated descriptors, without comments, as those of the last release."""
    descriptors = descriptor_pb2.FileDescriptorSet.FromString((output_dir / "api.binpb").read_bytes())
    for file in descriptors.file:
        file.ClearField("source_code_info")
    RELEASED.write_bytes(gzip.compress(descriptors.SerializeToString(deterministic=True), mtime=0))


def write_rules_descriptors(path: Path) -> None:
    """Write the descriptor set of the validation rules, taken from the installed validator itself.

    protoc reads it in place of a vendored ``validate.proto``, so both always have the same version.
    """
    descriptors = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, duration_pb2, timestamp_pb2, field_mask_pb2):
        module.DESCRIPTOR.CopyToProto(descriptors.file.add())
    schema = validate_pb._DESC.proto.to_binary()  # noqa: SLF001 - it has no public name
    descriptors.file.add().ParseFromString(schema)
    path.write_bytes(descriptors.SerializeToString())


def run_protoc(arguments: list[str], rules: Path) -> None:
    """Run protoc over our files, or stop with its own message."""
    include = Path(protoc.__file__).parent / "_proto"
    sources = sorted(str(file.relative_to(PROTO_DIR)) for file in PROTO_DIR.rglob("*.proto"))
    command = ["protoc", f"-I{PROTO_DIR}", f"-I{include}", f"--descriptor_set_in={rules}", *arguments, *sources]
    if protoc.main(command) != 0:
        raise SystemExit("protoc failed; the lines above say where")


def find_stub_plugin() -> str:
    """Return the path of mypy-protobuf's plugin, which stands beside this Python, or else on the PATH."""
    name = "protoc-gen-mypy_grpc"
    plugin = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if plugin is None:
        raise SystemExit(f"{name} is missing: install mypy-protobuf, or run 'make setup'")
    return plugin


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:
    pass  # run by hand: no build, no hook
else:

    class GenerateApi(BuildHookInterface[Any]):
        """The build hook: generates the API before a wheel or an editable install is put together."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Generate into ``.generated``; a wheel gets a copy, an editable install imports it from there."""
            generate()
            if version == "standard":
                build_data["force_include"] |= {str(OUTPUT_DIR / name): name for name in ("tallypoint", "buf")}


if __name__ == "__main__":
    generate()
    if "--released" in sys.argv[1:]:
        keep_as_released()
