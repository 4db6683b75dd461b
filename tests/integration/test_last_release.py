"""A ledger of release 0.4, opened by today's: all that was booked stays as booked, and trade goes on."""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from tallypoint.v1 import (
    checkout_pb2,
    checkout_pb2_grpc,
    common_pb2,
    correction_pb2,
    correction_pb2_grpc,
    member_pb2,
    member_pb2_grpc,
    programme_pb2,
    programme_pb2_grpc,
    rights_pb2,
    rights_pb2_grpc,
)

import tests.last_release
from ledger.caches.tables import CACHE_TABLES
from server.base.storage import Dsns
from tests.last_release.history import CARDS, ODD_CODES
from tests.last_release.kept import as_then, kept, migrated_databases
from tests.last_release.make import REPORTS
from tests.last_release.shop import named_id
from tests.support.clock import SteppedClock
from tests.support.database import DatabaseFactory
from tests.support.server_process import RunningServer, run_command, running_server

KEPT = kept()
FIRST_PROGRAMME = Path(tests.last_release.__file__).parent / "programmes" / "1.yaml"
OVERSPENT = {"overspent", "overspent on excluded goods", "overspent and kept"}
"""Receipts on which that release let points pay more than their goods allowed; a late one of a batch besides."""


class Opened:
    """The old ledger under today's release, with commands that work on it."""

    def __init__(self, dsns: Dsns) -> None:
        self.dsns = dsns
        self.environment = {
            "TALLYPOINT_LEDGER_DSN": dsns.ledger,
            "TALLYPOINT_CRM_DSN": dsns.crm,
            "TALLYPOINT_SECRET_KEY": KEPT.secret_key,
            "TALLYPOINT_BOOKS": "3",
            "TALLYPOINT_WORKERS": "1",
            "COLUMNS": "200",
        }

    def run(self, *arguments: str, **more: str) -> tuple[int, str]:
        """Run a command; return its exit code and what it said."""
        ran = run_command(*arguments, environment={**self.environment, **more})
        return ran.returncode, ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def opened(databases: DatabaseFactory) -> Iterator[Opened]:
    """The old ledger, to which nothing is added."""
    with migrated_databases(databases) as dsns:
        yield Opened(dsns)


class Running(Opened):
    """The old ledger, served by today's release one minute after the last evening."""

    def __init__(self, dsns: Dsns, server: RunningServer) -> None:
        super().__init__(dsns)
        self.pos = grpc.insecure_channel(server.pos_address)
        self.office = grpc.insecure_channel(server.backoffice_address)
        self.till = checkout_pb2_grpc.CheckoutServiceStub(self.pos)
        self.admin = (("authorization", f"Bearer {KEPT.keys['admin']}"),)
        self.address = server.backoffice_address

    def ask(self, method: str, request: Any, store: str = "kyiv-1") -> Any:
        """Call a method of the till of a store."""
        auth = (("authorization", f"Bearer {KEPT.terminal_keys[store]}"),)
        return getattr(self.till, method)(request, metadata=auth, timeout=20)

    def ask_office(self, *arguments: str) -> str:
        """Run a command that is a client of the back office; return what it says."""
        access = {"TALLYPOINT_ADMIN_ADDRESS": self.address, "TALLYPOINT_ADMIN_KEY": KEPT.keys["admin"]}
        code, said = self.run(*arguments, **access)
        assert code == 0, said
        return said


@pytest.fixture(scope="module")
def running(databases: DatabaseFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The old ledger under a running service."""
    folder = tmp_path_factory.mktemp("last-release")
    clock = SteppedClock(folder / "clock")
    step = KEPT.until + timedelta(minutes=1) - datetime.now(UTC)
    with migrated_databases(databases) as dsns, clock.stepped(step.total_seconds()):
        environment = {**Opened(dsns).environment, **clock.environment}
        with running_server(folder / "data", environment=environment, development=False) as server:
            running = Running(dsns, server)
            yield running
            running.pos.close()
            running.office.close()


# --- what was booked stays as booked ---


def test_the_books_are_proved_and_known_faults_named(opened: Opened) -> None:
    assert "BAD: book 0, entry 46: 0 of money came back in all, and there were -9000" in KEPT.verdict
    code, said = opened.run("ledger", "verify")
    assert (code, "BAD" in said) == (0, False), said
    known = {_place(line) for line in said.splitlines() if line.startswith("known: ")}
    entries = [KEPT.call(name).response().entry for name in OVERSPENT]
    assert known >= {(entry.book, entry.number) for entry in entries}
    assert len(known) == len(OVERSPENT) + 1


def _place(line: str) -> tuple[int, int]:
    found = re.match(r"known: book (\d+), entry (\d+)", line)
    assert found is not None, line
    return int(found[1]), int(found[2])


async def test_caches_made_anew_are_those_that_were_kept(opened: Opened) -> None:
    conn = await asyncpg.connect(opened.dsns.ledger)

    async def contents() -> dict[str, list[str]]:
        return {
            table.name: sorted(repr(dict(row)) for row in await conn.fetch(f"SELECT * FROM ledger.{table.name}"))
            for table in CACHE_TABLES
        }

    before = await contents()
    code, said = opened.run("ledger", "rebuild", "--yes")
    assert code == 0, said
    assert await contents() == before
    await conn.close()


@pytest.mark.parametrize("command", [("finance", "verify"), ("crm", "compare"), ("crm", "reconcile")])
def test_finance_and_crm_agree_with_the_books(opened: Opened, command: tuple[str, ...]) -> None:
    code, said = opened.run(*command)
    assert code == 0, said


def test_an_old_seal_fits(opened: Opened, tmp_path: Path) -> None:
    seal, key = tmp_path / "seal", tmp_path / "key.pub"
    seal.write_text(KEPT.seal)
    key.write_text(KEPT.seal_public_key)
    code, said = opened.run("ledger", "verify", f"--seal={seal}", f"--public-key={key}")
    assert (code, "1 seal fits." in said) == (0, True), said


# --- sent again ---


ANSWERED = [call for call in KEPT.calls if call.answer is not None]


def test_all_that_registers_send_again_gets_the_old_answer(running: Running) -> None:
    for call in ANSWERED:
        answer = running.ask(call.method, call.request, call.store)
        assert as_then(answer) == call.answer_as_booked, call.name


def test_receipts_are_the_same_under_new_message_ids(running: Running) -> None:
    for call in ANSWERED:
        if call.method in {"Commit", "Return"}:
            again = _with_new_message(call.request)
            assert as_then(running.ask(call.method, again, call.store)) == call.answer_as_booked, call.name


def _with_new_message(request: Any) -> Any:
    again = type(request).FromString(request.SerializeToString())
    again.message_id = str(uuid.uuid4())
    return again


# --- people, codes and holds of the old ledger are found ---


@pytest.mark.parametrize("name", [name for name in CARDS if name not in {"eva", "hanna", "dana again"}])
def test_cards_are_found(running: Running, name: str) -> None:
    assert running.ask("Identify", checkout_pb2.IdentifyRequest(identifier=CARDS[name])).member.member_id


@pytest.mark.parametrize(
    "shown",
    [
        {"card_number": "2000 0000-0014 5"},
        {"card_number": "2000000000145"},
        {"phone": "067 123 45 01"},
        {"phone": "+380671234503"},
        {"digital_token": "TOKEN-Borys~1"},
        {"digital_token": "]C1odd-token-"},
    ],
    ids=str,
)
def test_identifiers_are_found_as_they_were_registered(running: Running, shown: dict[str, str]) -> None:
    identifier = common_pb2.Identifier(**shown)
    assert running.ask("Identify", checkout_pb2.IdentifyRequest(identifier=identifier)).member.member_id


@pytest.mark.parametrize("code", [*ODD_CODES, "cake 1", "S-ß1X"], ids=ascii)
def test_coupons_are_found_as_they_were_loaded(running: Running, code: str) -> None:
    rights = rights_pb2_grpc.RightsServiceStub(running.office)
    assert rights.GetCoupon(rights_pb2.GetCouponRequest(code=code), metadata=running.admin).coupon.series


def test_records_that_today_would_not_be_taken_are_shown(running: Running) -> None:
    members = member_pb2_grpc.MemberServiceStub(running.office)
    for name in ("cyril", "eva anew", "hanna"):
        asked = member_pb2.GetMemberRequest(identifier=CARDS[name])
        assert members.GetMember(asked, metadata=running.admin).member.member_id, name


def test_a_hold_of_the_last_evening_is_captured(running: Running) -> None:
    held = KEPT.call("left open", "Hold").request
    request = checkout_pb2.CommitRequest(
        message_id=str(uuid.uuid4()),
        receipt_key=_new_key(),
        identifier=held.identifier,
        receipt=held.receipt,
        spend_points_minor=held.spend_points_minor,
        checkout_id=held.checkout_key.checkout_id,
    )
    assert running.ask("Commit", request).settlement.captured_points_minor == held.spend_points_minor


@pytest.mark.parametrize("code", ["ｏｄｄ３", "cake 1"], ids=ascii)
def test_old_coupons_are_used_as_often_as_they_were_given_for(running: Running, code: str) -> None:
    receipt = common_pb2.Receipt(currency_code="UAH")
    receipt.event_at.FromDatetime(KEPT.until)
    receipt.lines.add(line_number=1, sku="cake", quantity_milli=1000, list_amount_minor=6000, discount_minor=5000)
    request = checkout_pb2.CommitRequest(
        message_id=str(uuid.uuid4()), receipt_key=_new_key(), receipt=receipt, coupon_codes=[code]
    )
    (outcome,) = running.ask("Commit", request).coupons
    assert outcome.used, outcome


def test_points_that_waited_for_approval_are_approved(running: Running) -> None:
    corrections = correction_pb2_grpc.CorrectionServiceStub(running.office)
    request = correction_pb2.ApproveAdjustmentRequest(request_id=named_id("much, waits for approval"))
    finance = (("authorization", f"Bearer {KEPT.keys['finance']}"),)
    approved = corrections.ApproveAdjustment(request, metadata=finance).adjustment
    assert (approved.state, approved.points_minor) == (correction_pb2.ADJUSTMENT_STATE_BOOKED, 90_000_000)


def test_breaks_of_old_days_are_shown_and_days_compared_again(running: Running) -> None:
    access = {"TALLYPOINT_ADMIN_ADDRESS": running.address, "TALLYPOINT_ADMIN_KEY": KEPT.keys["admin"]}
    before = running.ask_office("reconcile", "breaks")
    code, said = running.run("reconcile", "run", "2026-09-01", "2026-10-27", **access)
    assert code == 1, said  # there are breaks
    assert running.ask_office("reconcile", "breaks") == before


# --- figures as of a close never change ---


@pytest.mark.parametrize("close", sorted(KEPT.reports))
def test_reports_as_of_old_closes_are_the_same_bytes(running: Running, tmp_path: Path, close: str) -> None:
    for name, arguments in REPORTS.items():
        file = tmp_path / f"{name}.csv"
        running.ask_office("finance", *arguments, f"--as-of={close}", f"--output={file}")
        assert file.read_text() == KEPT.reports[close][name], name


# --- versions of the programme keep their defaults ---


def test_old_versions_keep_their_defaults_and_a_file_published_today_has_new_ones(
    running: Running, tmp_path: Path
) -> None:
    said = "floor_rest of amounts, where a promotion does not say: lost"
    assert said in running.ask_office("rules", "show", "1")
    assert f"{said} → spread" in running.ask_office("rules", "diff", "1", str(FIRST_PROGRAMME))
    same = tmp_path / "same.yaml"
    same.write_text(
        running.ask_office("rules", "show", "6").rsplit("Version 6", 1)[0]
    )  # what is said about it comes after it
    published = running.ask_office("rules", "publish", str(same), "--share=0%", "--by=stores", "--yes")
    assert "is now version 7" in published
    assert "today's" in running.ask_office("rules", "list")
    assert said not in running.ask_office("rules", "show", "7")
    assert f"{said} → spread" in running.ask_office("rules", "diff", "6", "7")
    assert "was published before, as version 7" in running.ask_office(
        "rules", "publish", str(same), "--share=0%", "--by=stores"
    )


# --- explained, and taken back ---


MENDED = {
    "one unit of five": {"limits-by-unit"},
    "third free and a card price": {"units-apart"},
    "two deals": {"units-apart"},
    "own threshold": {"gift-own-threshold"},
    "capped basket": {"caps-as-a-whole"},
    "floor cuts an amount": set(),  # its version keeps the default of its time
    "part of a piece": {"parts-of-a-piece", "units-apart"},
    "asks more than there is": {"real-payment-earns"},
    "overspent": {"spending-at-the-fence"},
    "overspent in part": {"spending-at-the-fence"},
    "overspent with a hold": {"spending-at-the-fence"},
    "spent a fifth": set(),
    "cheese": set(),
}
"""What was mended since of these receipts."""


def test_every_old_receipt_is_explained_as_booked_with_what_was_mended(running: Running) -> None:
    for key in _sold():
        explained = _explained(running, key)
        assert explained.promotions, key
        assert explained.semantics == 0
        assert bool(explained.mended) == bool(explained.difference), (key, explained.difference)
        lines = [part for line in explained.lines for part in line.discounts]
        for promotion in explained.promotions:
            stored = sum(part.amount_minor for part in lines if part.promotion_id == promotion.promotion_id)
            assert promotion.discount_minor == stored, (key, promotion)


@pytest.mark.parametrize(("name", "kinds"), MENDED.items())
def test_what_was_mended_is_found(running: Running, name: str, kinds: set[str]) -> None:
    explained = _explained(running, KEPT.key(name))
    assert {one.kind for one in explained.mended} == kinds, explained.difference


def test_the_command_says_what_was_mended_and_finds_no_fault(running: Running) -> None:
    key = KEPT.key("asks more than there is")
    said = running.ask_office(
        "rules", "explain", key.store_id, key.terminal_id, key.business_date, str(key.receipt_number)
    )
    assert "As booked under semantics 0" in said
    assert "mended since: real-payment-earns" in said


def _explained(running: Running, key: common_pb2.ReceiptKey) -> programme_pb2.ExplainReceiptResponse:
    programmes = programme_pb2_grpc.ProgrammeServiceStub(running.office)
    request = programme_pb2.ExplainReceiptRequest(receipt_key=key)
    answer: programme_pb2.ExplainReceiptResponse = programmes.ExplainReceipt(request, metadata=running.admin)
    return answer


def test_a_backtest_runs_over_old_receipts(opened: Opened) -> None:
    code, said = opened.run("rules", "backtest", str(FIRST_PROGRAMME), "--against=booked", "--processes=1")
    assert code == 0, said
    mended = {line.rsplit("(", 1)[1] for line in said.splitlines() if line.startswith("Mended since: ")}
    assert "real-payment-earns)." in mended


def test_what_is_left_of_old_receipts_comes_back_and_the_books_stay_proved(running: Running) -> None:
    refused = {}
    for key in _sold():
        request = checkout_pb2.ReturnRequest(
            message_id=str(uuid.uuid4()), receipt_key=_new_key(key.store_id), purchase_key=key
        )
        request.event_at.FromDatetime(KEPT.until)
        try:
            running.ask("Return", request, key.store_id)
        except grpc.RpcError as error:
            refused[key.receipt_number] = str(error.details())
    all_came_back = [text for text in refused.values() if "has come back already" not in text]
    assert all_came_back == []
    for command in (("ledger", "verify"), ("crm", "compare"), ("crm", "reconcile"), ("finance", "verify")):
        code, said = running.run(*command)
        assert (code, "BAD" in said) == (0, False), said


def _sold() -> list[common_pb2.ReceiptKey]:
    """Return the keys of all that was sold."""
    sold = [call.request.receipt_key for call in ANSWERED if call.method == "Commit"]
    for call in ANSWERED:
        if call.method == "CommitBatch":
            for request, result in zip(call.request.commits, call.response().results, strict=True):
                if result.HasField("committed") and request.receipt_key not in sold:
                    sold.append(request.receipt_key)
    return sold


def _new_key(store_id: str = "kyiv-1") -> common_pb2.ReceiptKey:
    return common_pb2.ReceiptKey(
        store_id=store_id,
        terminal_id="t1",
        business_date=KEPT.until.date().isoformat(),
        receipt_number=next(_numbers),
    )


_numbers = itertools.count(10_000)
