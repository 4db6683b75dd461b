"""`tallypoint reconcile`: registers' day totals against the ledger, as a client of the back office."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from google.protobuf.message import Message
from tallypoint.v1 import reconciliation_pb2 as pb
from tallypoint.v1 import reconciliation_pb2_grpc

from ledger.finance.table import Column, Table
from server.base.clock import utc_now
from server.commands.client import Address, BackOfficeClient, CallFailed, Key, TlsCa, back_office
from server.commands.common import fail, load_settings, warn
from server.commands.csv_rows import FileError
from server.commands.csv_rows.options import Delimiter, Encoding, File, Verbatim, reading_of
from server.commands.csv_rows.sending import tell
from server.commands.output.extra import CannotWriteError
from server.commands.output.files import write_file
from server.commands.output.progress import progress
from server.commands.output.terminal import report_console, show
from server.commands.reconcile_files import Decimals, RegisterFile, RowFault, open_file
from server.commands.reconcile_report import change_name, differences, file_table, state_name, terminal_table

ROWS_PER_CALL: Final = 2000
BREAKS_PER_CALL: Final = 1000
FAULTS_SHOWN: Final = 20
BREAKS_SHOWN: Final = 50
EXIT_BAD_FILE: Final = 1
EXIT_OPEN_BREAKS: Final = 1

app = typer.Typer(no_args_is_help=True, help="Registers' day totals against the ledger.")

Day = Annotated[str, typer.Argument(help="A business date, YYYY-MM-DD.")]
BreakId = Annotated[str, typer.Argument(help="The break's id, or its first digits.")]
Note = Annotated[str, typer.Option("--note", help="Why; no personal data.")]
Output = Annotated[Path | None, typer.Option("--output", help="Write all breaks to this .csv, .parquet or .xlsx file.")]
DataDir = Annotated[Path | None, typer.Option(help="Where a development server keeps its keys.")]
States = Annotated[
    list[str] | None, typer.Option("--state", help="open (default), explained, written_off, resolved or all.")
]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", help="missing, extra, doubled, different, late, gap or no_report; several are possible."),
]


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The back office's service, and how money and points are written."""

    client: BackOfficeClient
    stub: reconciliation_pb2_grpc.ReconciliationServiceStub
    rules: pb.GetReconciliationRulesResponse

    @property
    def decimals(self) -> Decimals:
        """Return how many decimal places the programme's money and points have."""
        return Decimals(self.rules.money_decimals, self.rules.points_decimals)

    def breaks(self, request: pb.ListBreaksRequest, limit: int | None = None) -> tuple[list[pb.Break], int]:
        """Return breaks of all pages, or the first ones, and how many there are."""
        found: list[pb.Break] = []
        total = 0
        while limit is None or len(found) < limit:
            request.page_size = BREAKS_PER_CALL if limit is None else min(limit - len(found), BREAKS_PER_CALL)
            page = self.client.call(self.stub.ListBreaks, request)
            found += page.breaks
            total = page.total
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        return found, total


@app.command()
def load(
    file: File,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    verbatim: Verbatim = False,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Load a file of Z reports, or of single receipts. The same file again changes nothing.

    The first line names the columns: store, terminal, business_date, and receipts, first_number, last_number for Z
    reports, or number for receipts; turnover, points_earned and more as the register gives them. Of a file with an
    error nothing is loaded, and the exit code is 1.
    """
    with _service(data_dir, address, key, tls_ca) as service:
        try:
            source = open_file(file, reading_of(delimiter, encoding, verbatim=verbatim))
            tell(source.table)
            count = _check(source, service.decimals)
            _send(service, source, count)
        except FileError as error:
            raise _bad_file(str(error)) from None


@app.command()
def run(
    first_day: Day,
    last_day: Annotated[str | None, typer.Argument(help="The last one, included; by default the same.")] = None,
    store: Annotated[list[str] | None, typer.Option(help="Only this store; several are possible.")] = None,
    output: Output = None,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Compare business dates with the ledger and show the breaks that are open. Exit code 1 if there are any."""
    first, last = _date(first_day), _date(last_day or first_day)
    if last < first:
        raise fail(f"{last} is before {first}: give the first day first")
    with _service(data_dir, address, key, tls_ca) as service:
        days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
        results = list(_reconcile(service, days, store or []))
        request = pb.ListBreaksRequest(from_day=first.isoformat(), to_day=last.isoformat())
        still_open = sum(result.open for result in results)
        found, _ = service.breaks(request, None if output or store else BREAKS_SHOWN)
    found = [one for one in found if not store or one.store_id in store]
    _show_breaks(found[:BREAKS_SHOWN], still_open, service.decimals)
    _write(output, found, service.decimals)
    compared, opened, resolved = (
        sum(getattr(result, name) for result in results) for name in ("terminal_days", "opened", "resolved")
    )
    report_console().print(
        f"{compared:,} terminals' days compared: {opened:,} breaks opened, {resolved:,} resolved, {still_open:,} open"
    )
    if still_open:
        raise typer.Exit(EXIT_OPEN_BREAKS)


@app.command("breaks")
def list_breaks(  # noqa: PLR0913, PLR0917 - an argument is an option of the command
    state: States = None,
    kind: Kinds = None,
    store: Annotated[str, typer.Option(help="Only this store.")] = "",
    from_day: Annotated[str, typer.Option(help="The first business date, YYYY-MM-DD.")] = "",
    to_day: Annotated[str, typer.Option(help="The last business date, included.")] = "",
    min_age_days: Annotated[int, typer.Option(help="Only breaks known for at least so many days.")] = 0,
    output: Output = None,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Show the breaks that people work through."""
    request = pb.ListBreaksRequest(
        states=_states(state or ["open"]),
        kinds=_kinds(kind or []),
        store_id=store,
        from_day=_date(from_day).isoformat() if from_day else "",
        to_day=_date(to_day).isoformat() if to_day else "",
        min_age_days=min_age_days,
    )
    with _service(data_dir, address, key, tls_ca) as service:
        found, total = service.breaks(request, None if output else BREAKS_SHOWN)
    _show_breaks(found[:BREAKS_SHOWN], total, service.decimals)
    _write(output, found, service.decimals)


@app.command("show")
def show_break(
    break_id: BreakId, address: Address = None, key: Key = None, tls_ca: TlsCa = None, data_dir: DataDir = None
) -> None:
    """Show a break with its history."""
    with _service(data_dir, address, key, tls_ca) as service:
        answer = service.client.call(service.stub.GetBreak, pb.GetBreakRequest(break_id=break_id))
    show(terminal_table([answer.item], service.decimals), report_console())
    columns = (
        Column("at", "at", "moment"),
        Column("change", "what happened", "text"),
        Column("state", "state", "text"),
        Column("by", "by", "text"),
        Column("receipts", "receipts", "integer"),
        Column("difference", "ledger less register", "text"),
        Column("note", "note", "text"),
    )
    rows = tuple(
        (
            *(_moment(event), change_name(event.change), state_name(event.state), event.by, event.receipt_count),
            *(differences(event.figures, service.decimals), event.note),
        )
        for event in answer.events
    )
    show(Table("History", columns, rows), report_console())


@app.command()
def explain(
    break_id: BreakId,
    note: Note,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Say why a break is as it is. It opens again when its figures change."""
    _work(
        data_dir, address, key, tls_ca, pb.WorkBreakRequest(break_id=break_id, state="BREAK_STATE_EXPLAINED", note=note)
    )


@app.command()
def write_off(
    break_id: BreakId,
    note: Note,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Give a break up. It opens again when its figures change."""
    _work(
        data_dir,
        address,
        key,
        tls_ca,
        pb.WorkBreakRequest(break_id=break_id, state="BREAK_STATE_WRITTEN_OFF", note=note),
    )


@app.command()
def reopen(
    break_id: BreakId,
    note: Note,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Take back an explanation or a write-off."""
    _work(data_dir, address, key, tls_ca, pb.WorkBreakRequest(break_id=break_id, state="BREAK_STATE_OPEN", note=note))


@app.command()
def rules(
    store: Annotated[str, typer.Option(help="The store; not given means all without rules of their own.")] = "",
    consecutive: Annotated[bool | None, typer.Option(help="Terminals number their receipts consecutively.")] = None,
    late_after_hours: Annotated[int | None, typer.Option(help="Hours after a sale; 0 looks at closes only.")] = None,
    doubled_within_minutes: Annotated[int | None, typer.Option(help="Minutes; 0 does not look for doubles.")] = None,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Show by what rules days are compared, and change those that are given."""
    wanted = {
        "numbers_consecutive": consecutive,
        "late_after_hours": late_after_hours,
        "doubled_within_minutes": doubled_within_minutes,
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    with _service(data_dir, address, key, tls_ca) as service:
        kept = {one.store_id: one for one in service.rules.rules}
        if given:
            changed = pb.ReconciliationRules()
            changed.CopyFrom(kept.get(store, kept[""]))
            changed.store_id = store
            for name, value in given.items():
                setattr(changed, name, value)
            service.client.call(service.stub.PutReconciliationRules, pb.PutReconciliationRulesRequest(rules=changed))
            kept[store] = changed
    columns = (
        Column("store", "store", "text"),
        Column("consecutive", "consecutive numbers", "text"),
        Column("late", "late after, hours", "integer"),
        Column("doubled", "doubled within, minutes", "integer"),
    )
    rows = tuple(
        (
            *(one.store_id or "all others", "yes" if one.numbers_consecutive else "no"),
            *(one.late_after_hours, one.doubled_within_minutes),
        )
        for one in kept.values()
    )
    show(Table("Rules of reconciliation", columns, rows), report_console())


# --- loading -----------------------------------------------------------------------------------------------


def _check(source: RegisterFile, decimals: Decimals) -> int:
    """Read the whole file; return its number of rows, or print its faults and stop."""
    count = bad_rows = 0
    shown: list[RowFault] = []
    for row in source.rows(decimals, utc_now().date()):
        count += 1
        if isinstance(row, list):
            bad_rows += 1
            shown += row[: FAULTS_SHOWN - len(shown)]
    if bad_rows:
        lines = [f"{source.path}:{one.line}: {f'{one.column}: ' if one.column else ''}{one.text}" for one in shown]
        raise _bad_file("\n".join([*lines, f"{bad_rows:,} of {count:,} rows are wrong; nothing was loaded"]))
    if not count:
        raise _bad_file(f"{source.path}: has no rows; nothing was loaded")
    return count


def _send(service: Reconciliation, source: RegisterFile, count: int) -> None:
    parts = -(-count // ROWS_PER_CALL)
    superseding, unchanged, warnings = 0, True, set[str]()
    rows = (row for row in source.rows(service.decimals, utc_now().date()) if not isinstance(row, list))
    with progress("Loading", count, "rows") as advance:
        for part, chunk in enumerate(_chunks(rows), start=1):
            file = pb.SourceFile(name=source.path.name[:200], sha256=source.sha256, part=part, parts=parts)
            try:
                answer = _send_part(service, file, chunk)
            except CallFailed as failure:
                counts = f"parts 1 to {part - 1} of {parts} are stored, but a file counts only as a whole"
                hint = f"; {counts}: load it again" if part > 1 else ""
                raise fail(f"{failure}\n{source.path.name}: nothing of it counts{hint}") from None
            superseding += answer.superseding
            unchanged &= answer.unchanged
            warnings.update(answer.warnings)
            advance(len(chunk))
    warn(warnings)
    what = "Z reports" if source.has_reports else "receipts"
    if unchanged:
        typer.echo(f"{source.path.name}: was loaded before; nothing changed")
        return
    days = "" if source.has_reports else " terminals' days"
    replaced = f"; {superseding:,}{days} take the place of earlier ones" if superseding else ""
    typer.echo(f"{source.path.name}: {count:,} {what} are loaded{replaced}")


def _send_part(
    service: Reconciliation, file: pb.SourceFile, rows: Sequence[Message]
) -> pb.LoadZReportsResponse | pb.LoadRegisterReceiptsResponse:
    reports = [row for row in rows if isinstance(row, pb.ZReport)]
    if reports:
        return service.client.attempt(service.stub.LoadZReports, pb.LoadZReportsRequest(file=file, reports=reports))
    receipts = [row for row in rows if isinstance(row, pb.RegisterReceipt)]
    request = pb.LoadRegisterReceiptsRequest(file=file, receipts=receipts)
    return service.client.attempt(service.stub.LoadRegisterReceipts, request)


def _bad_file(message: str) -> typer.Exit:
    fail(message)
    return typer.Exit(EXIT_BAD_FILE)


def _chunks(rows: Iterator[Message]) -> Iterator[list[Message]]:
    while chunk := list(islice(rows, ROWS_PER_CALL)):
        yield chunk


# --- the other commands ------------------------------------------------------------------------------------


def _reconcile(service: Reconciliation, days: list[date], stores: list[str]) -> Iterator[pb.ReconcileResponse]:
    """Compare day after day; yield what each call has done. Only a day's last answer counts its open breaks."""
    requests = [pb.ReconcileRequest(from_day=day.isoformat(), to_day=day.isoformat(), store_ids=stores) for day in days]
    first: pb.ReconcileResponse | None = _summed_up(service, requests[0])
    with progress("Reconciling", len(days), "days") as advance:
        for request in requests:
            more = True
            while more:
                answer, first = first or service.client.call(service.stub.Reconcile, request), None
                request.page_token = answer.next_page_token or request.page_token
                more = bool(answer.pending_entries or answer.next_page_token)
                if more:
                    answer.open = 0
                yield answer
            advance(1)


def _summed_up(service: Reconciliation, request: pb.ReconcileRequest) -> pb.ReconcileResponse:
    """Send the first request until what it needs first is done; the first time, this may take minutes."""
    answer = service.client.call(service.stub.Reconcile, request)
    if answer.pending_entries:
        with progress("Summing the journal", answer.pending_entries, "entries") as advance:
            while answer.pending_entries:
                before = answer.pending_entries
                answer = service.client.call(service.stub.Reconcile, request)
                advance(max(before - answer.pending_entries, 0))
    return answer


def _work(
    data_dir: Path | None, address: str | None, key: str | None, tls_ca: Path | None, request: pb.WorkBreakRequest
) -> None:
    with _service(data_dir, address, key, tls_ca) as service:
        answer = service.client.call(service.stub.WorkBreak, request)
    item = answer.item
    typer.echo(f"{item.break_id}: {item.text}: is {state_name(item.state)} now")


def _show_breaks(breaks: Iterable[pb.Break], total: int, decimals: Decimals) -> None:
    table = terminal_table(breaks, decimals)
    console = report_console()
    if not table.rows:
        console.print("No breaks.")
        return
    show(table, console)
    if total > len(table.rows):
        console.print(f"... and {total - len(table.rows):,} more; --output FILE writes them all")


def _write(output: Path | None, breaks: Iterable[pb.Break], decimals: Decimals) -> None:
    if output is None:
        return
    try:
        write_file(file_table(breaks, decimals), output)
    except (CannotWriteError, OSError) as error:
        raise fail(str(error)) from None


def _states(names: list[str]) -> list[Any]:
    if "all" in names:
        return [state for state in pb.BreakState.values() if state]
    return [_value(pb.BreakState, "BREAK_STATE_", name) for name in names]


def _kinds(names: list[str]) -> list[Any]:
    return [_value(pb.BreakKind, "BREAK_KIND_", name) for name in names]


def _value(enum: Any, prefix: str, name: str) -> Any:  # noqa: ANN401 - generated enums have no common type
    known = {each.removeprefix(prefix).lower(): value for each, value in enum.items() if value}
    if name.lower() not in known:
        raise fail(f"{name!r} must be one of {', '.join(known)}")
    return known[name.lower()]


def _moment(event: pb.BreakEvent) -> datetime:
    return event.at.ToDatetime(tzinfo=UTC)


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise fail(f"{text!r} is not a day of the calendar: write it as YYYY-MM-DD, such as 2026-05-17") from None


@contextmanager
def _service(
    data_dir: Path | None, address: str | None, key: str | None, tls_ca: Path | None
) -> Iterator[Reconciliation]:
    with back_office(load_settings(data_dir=data_dir), address, key, tls_ca) as client:
        stub = reconciliation_pb2_grpc.ReconciliationServiceStub(client.channel)
        rules = client.call(stub.GetReconciliationRules, pb.GetReconciliationRulesRequest())
        yield Reconciliation(client, stub, rules)
