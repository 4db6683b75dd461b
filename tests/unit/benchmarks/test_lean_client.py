"""The frames of the lean client, and what it reads from trailers."""

from __future__ import annotations

import pytest

from benchmarks.lean_client import DATA, END_STREAM, frame, header_block, status_of


def literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


def test_a_frame() -> None:
    assert frame(DATA, END_STREAM, 5, b"abc") == b"\x00\x00\x03\x00\x01\x00\x00\x00\x05abc"


def test_headers_are_literals() -> None:
    block = header_block("/a.B/C", "127.0.0.1:1", "k", 3.0)
    assert block.startswith(literal(b":method", b"POST"))
    assert literal(b":path", b"/a.B/C") in block
    assert literal(b"grpc-timeout", b"3000m") in block
    assert literal(b"authorization", b"Bearer k") in block


def test_a_long_text_has_its_length_in_several_bytes() -> None:
    key = "k" * 300
    assert b"authorization" + b"\x7f" + bytes((307 - 127 - 128 + 128, 1)) + b"Bearer k" in header_block("/", "", key, 1)


@pytest.mark.parametrize(
    ("trailers", "status"),
    [
        pytest.param(literal(b"grpc-status", b"0"), "OK", id="ok"),
        pytest.param(
            literal(b"grpc-status", b"8") + literal(b"grpc-message", b"try later"),
            "RESOURCE_EXHAUSTED: try later",
            id="with a message",
        ),
        pytest.param(
            literal(b"grpc-message", b"caf%C3%A9") + literal(b"grpc-status", b"14"), "UNAVAILABLE: café", id="encoded"
        ),
        pytest.param(
            literal(b"grpc-status-details-bin", b"CAg") + literal(b"grpc-status", b"4"),
            "DEADLINE_EXCEEDED",
            id="details are not the status",
        ),
        pytest.param(b"", "UNKNOWN: the trailers have no status that can be read", id="nothing"),
    ],
)
def test_the_status_is_read_from_the_trailers(trailers: bytes, status: str) -> None:
    assert status_of(trailers) == status
