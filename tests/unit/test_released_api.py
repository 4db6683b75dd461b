"""What was released of the API stays: `make check` refuses what would break it, and lets it grow."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

from proto.generate import OUTPUT_DIR, PROTO_DIR, RELEASED

BUF = Path(sys.executable).parent / "buf"


def breaches(api: FileDescriptorSet, folder: Path) -> str:
    """Hold an API against the released one as `make check` does; return what is wrong with it."""
    (folder / "api.binpb").write_bytes(api.SerializeToString())
    how = ("--against", RELEASED, "--config", PROTO_DIR / "buf.yaml")
    ran = subprocess.run((BUF, "breaking", folder / "api.binpb", *how), capture_output=True, text=True, check=False)
    assert (ran.returncode == 0) == (ran.stdout == ""), ran.stderr
    return ran.stdout


def released() -> FileDescriptorSet:
    return FileDescriptorSet.FromString(gzip.decompress(RELEASED.read_bytes()))


def file_of(api: FileDescriptorSet, name: str) -> FileDescriptorProto:
    (found,) = (file for file in api.file if file.name == f"tallypoint/v1/{name}.proto")
    return found


def message_of(api: FileDescriptorSet, file: str, name: str) -> DescriptorProto:
    (found,) = (message for message in file_of(api, file).message_type if message.name == name)
    return found


def test_the_api_of_today_breaks_nothing(tmp_path: Path) -> None:
    assert breaches(FileDescriptorSet.FromString((OUTPUT_DIR / "api.binpb").read_bytes()), tmp_path) == ""


def add_a_field(api: FileDescriptorSet) -> None:
    message = message_of(api, "journal", "Purchase")
    message.field.add(name="new_field", number=900, type="TYPE_INT32", label="LABEL_OPTIONAL")


def remove_a_field(api: FileDescriptorSet) -> None:
    del message_of(api, "journal", "Purchase").field[3]


def remove_a_field_and_reserve_it(api: FileDescriptorSet) -> None:
    message = message_of(api, "journal", "Purchase")
    message.reserved_name.append(message.field[3].name)
    message.reserved_range.add(start=message.field[3].number, end=message.field[3].number + 1)
    del message.field[3]


def renumber_a_field(api: FileDescriptorSet) -> None:
    message_of(api, "journal", "GoodsReturn").field[0].number = 901


def swap_two_fields(api: FileDescriptorSet) -> None:
    one, other = message_of(api, "journal", "LineReturn").field[2:4]
    one.number, other.number = other.number, one.number


def change_a_type(api: FileDescriptorSet) -> None:
    message_of(api, "checkout", "CommitRequest").field[0].type = FieldDescriptorProto.TYPE_BYTES


def rename_a_value(api: FileDescriptorSet) -> None:
    file_of(api, "common").enum_type[0].value[1].name = "ANOTHER_NAME"


def remove_a_call(api: FileDescriptorSet) -> None:
    del file_of(api, "checkout").service[0].method[0]


def test_an_api_may_grow(tmp_path: Path) -> None:
    api = released()
    add_a_field(api)
    assert breaches(api, tmp_path) == ""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (remove_a_field, 'field "4" with name "receipt" on message "Purchase" was deleted'),
        (remove_a_field_and_reserve_it, 'field "4" with name "receipt" on message "Purchase" was deleted'),
        (renumber_a_field, 'on message "GoodsReturn" was deleted'),
        (swap_two_fields, "changed name"),
        (change_a_type, "changed type"),
        (rename_a_value, "changed name"),
        (remove_a_call, "was deleted"),
    ],
)
def test_what_was_released_stays(tmp_path: Path, change: Callable[[FileDescriptorSet], None], told: str) -> None:
    api = released()
    change(api)
    assert told in breaches(api, tmp_path)
