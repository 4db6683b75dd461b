"""Batches of rows on their way: what a failed call costs, and what the report and the file of refused rows say."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import rights_pb2

from server.commands.client import CallFailed
from server.commands.csv_rows import Column, FileError, Refusal, Row, Table
from server.commands.csv_rows.report import Report
from server.commands.csv_rows.sending import Batch, deliver, send_rows

CODE = grpc.StatusCode
TABLE = Table(Path("codes.csv"), (Column("code"),))


def batch_of(codes: Sequence[str]) -> Batch[rights_pb2.CouponRow]:
    rows = [Row(line, {"code": code}, {"code": code}, [], code) for line, code in enumerate(codes, start=2)]
    return Batch(TABLE, rows, [rights_pb2.CouponRow(code=code) for code in codes])


class Service:
    """Stores codes, and fails as a whole for a batch that has one of the poisoned ones."""

    def __init__(self, poisoned: Iterable[str] = (), code: grpc.StatusCode = CODE.INTERNAL) -> None:
        self.poisoned = set(poisoned)
        self.code = code
        self.stored: list[str] = []
        self.calls = 0

    def send(self, batch: Batch[rights_pb2.CouponRow]) -> list[Refusal]:
        self.calls += 1
        if not self.poisoned.isdisjoint(message.code for message in batch.messages):
            raise CallFailed(self.code, self.code.name, "a mistake of the service")
        self.stored += [message.code for message in batch.messages]
        return []


@given(st.sets(st.integers(0, 99), max_size=5), st.integers(1, 100))
def test_row_that_a_call_fails_of_stands_alone(poisoned: set[int], count: int) -> None:
    """Every other row is stored, once and in order, in calls that grow with the logarithm of the batch."""
    codes = [str(number) for number in range(count)]
    service = Service({str(number) for number in poisoned})
    outcome = deliver(batch_of(codes), service.send)
    bad = [code for code in codes if code in service.poisoned]
    assert [refusal.row.text("code") for refusal in outcome.refused] == bad
    assert {(refusal.reason, refusal.text) for refusal in outcome.refused} <= {("INTERNAL", "a mistake of the service")}
    assert service.stored == [code for code in codes if code not in bad]
    assert (outcome.unsent, outcome.failure) == ([], "")
    assert service.calls <= 1 + 16 * len(bad)


@pytest.mark.parametrize(
    ("code", "calls"),
    [(CODE.UNAVAILABLE, 1), (CODE.UNAUTHENTICATED, 1), (CODE.DEADLINE_EXCEEDED, 5), (CODE.INTERNAL, 101)],
)
def test_service_that_answers_nothing_is_not_asked_for_ever(code: grpc.StatusCode, calls: int) -> None:
    codes = [str(number) for number in range(5000)]
    service = Service(codes, code)
    outcome = deliver(batch_of(codes), service.send)
    assert (service.calls, service.stored, outcome.failure) == (calls, [], f"{code.name}: a mistake of the service")
    told = [row.line for row in outcome.unsent] + [refusal.row.line for refusal in outcome.refused]
    assert sorted(told) == list(range(2, 5002)), "each row is named once"


def test_rows_that_a_refusal_of_the_whole_names_are_refused_and_the_others_sent() -> None:
    batch = batch_of(["a", "b", "c", "d"])
    stored: list[str] = []

    def send(part: Batch[rights_pb2.CouponRow]) -> list[Refusal]:
        if len(part.rows) == 4:
            violations = [("coupons[1].code", "is taken"), ("coupons[3].code", "is bad"), ("coupons[3].uses", "is 0")]
            raise CallFailed(CODE.INVALID_ARGUMENT, "INVALID_REQUEST", "two rows are wrong", violations)
        stored.extend(message.code for message in part.messages)
        return []

    outcome = deliver(batch, send)
    assert [(one.row.line, one.reason, one.text) for one in outcome.refused] == [
        (3, "INVALID_REQUEST", "code: is taken"),
        (5, "INVALID_REQUEST", "code: is bad; uses: is 0"),
    ]
    assert (stored, outcome.failure) == (["a", "c"], "")


def test_refusal_that_names_no_row_ends_the_load() -> None:
    def send(_: Batch[rights_pb2.CouponRow]) -> list[Refusal]:
        raise CallFailed(CODE.INVALID_ARGUMENT, "INVALID_REQUEST", "series", [("series", "is empty")])

    outcome = deliver(batch_of(["a", "b"]), send)
    assert (outcome.failure, len(outcome.unsent)) == ("INVALID_REQUEST: series\n  series: is empty", 2)


# --- a whole file ---------------------------------------------------------------------------------------------------


def codes_file(folder: Path, text: str) -> Table:
    path = folder / "codes.csv"
    path.write_text(text)
    return Table(path, (Column("code"), Column("uses")), ("code",))


def message_of(row: Row) -> rights_pb2.CouponRow:
    return rights_pb2.CouponRow(code=row.text("code"), uses=row.number("uses", 1))


def test_refused_rows_stand_in_the_file_as_they_were_in_its_order(tmp_path: Path) -> None:
    table = codes_file(tmp_path, 'uses;code\n1;a\n2;"b\nmany;c\n3;d;e;f\n5;g\n')

    def send(batch: Batch[rights_pb2.CouponRow]) -> list[Refusal]:
        refusal = api.Refusal(reason=api.REFUSAL_REASON_ALREADY_EXISTS, message="is there")
        return [batch.refusal(index, refusal) for index, row in enumerate(batch.messages) if row.code == "g"]

    errors = tmp_path / "refused.csv"
    sent = send_rows(table, "Loading", message_of, send, errors, rows_per_call=2)
    assert (sent.rows, sent.refused, sent.unsent) == (5, 4, 0)
    with errors.open(encoding="utf-8", newline="") as file:
        kept = list(csv.DictReader(file, delimiter=";"))
    assert [(row["error_line"], row["uses"], row["code"], row["error_row"]) for row in kept] == [
        ("3", "2", '"b', '2;"b'),
        ("4", "many", "c", "many;c"),
        ("5", "3", "d", "3;d;e;f"),
        ("6", "5", "g", "5;g"),
    ]
    again = Table(errors, table.columns, ("code",))
    assert [row.text("code") for row in again.rows()] == ['"b', "c", "d", "g"]


def test_service_that_goes_away_leaves_a_list_of_what_is_to_be_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = codes_file(tmp_path, "code,uses\n" + "".join(f"c{number},1\n" for number in range(10)))
    service = Service({"c5"}, CODE.UNAVAILABLE)
    errors = tmp_path / "refused.csv"
    sent = send_rows(table, "Loading", message_of, service.send, errors, rows_per_call=2)
    assert service.stored == ["c0", "c1", "c2", "c3"]
    assert (sent.rows, sent.refused, sent.unsent) == (10, 0, 6)
    assert f"{table.path}: lines 6 to 11 were not loaded" in capsys.readouterr().out
    assert [row.text("code") for row in Table(errors, table.columns).rows()] == [f"c{n}" for n in range(4, 10)]


def test_file_of_refused_rows_never_takes_the_place_of_what_is_loaded(tmp_path: Path) -> None:
    table = codes_file(tmp_path, "code\na\n")
    (tmp_path / "link.csv").symlink_to(table.path)
    for path in (table.path, tmp_path / "link.csv"):
        with pytest.raises(FileError, match="is the file to be loaded"):
            Report(table, path)
    with pytest.raises(FileError, match="cannot be written here"):
        Report(table, tmp_path / "nowhere" / "refused.csv")
    assert table.path.read_text() == "code\na\n"
