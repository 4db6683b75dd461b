"""`tallypoint rules`: from a draft to the tills and back, and why a receipt gave what it gave."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console
from tallypoint.v1 import common_pb2, programme_pb2_grpc
from tallypoint.v1 import programme_pb2 as pb

from server.base.clock import utc_now
from server.commands.client import Address, BackOfficeClient, Key, TlsCa, back_office
from server.commands.common import EXIT_CANNOT_RUN, Yes, confirm, fail, load_settings, read_text
from server.commands.output.terminal import report_console
from server.commands.programme import backtest as backtest_cli
from server.commands.programme import preview
from server.commands.programme.shown import (
    difference_lines,
    explanation_lines,
    loss_lines,
    rollout_words,
    shadow_table,
    version_line,
    version_table,
)
from server.promotions import Programme, json_schema_text, load_programme
from server.promotions.yaml_text import Plain, read_yaml
from server.rules.advice import warnings_of
from server.rules.difference import difference
from server.rules.versions import ProgrammeText

EXIT_FILE_WRONG: Final = 1
EXIT_DIFFERENT: Final = 1
LIVE: Final = "live"
_EVERYBODY: Final = 1_000_000
_KEY: Final = re.compile(r"([A-Za-z0-9._-]+)/([A-Za-z0-9._-]+)/(\d{4}-\d\d-\d\d)/(\d+)")
_STRAND: Final = re.compile(r"([0-9][0-9,]*)(?:\.([0-9]+))? (\S+) of ([0-9][0-9,]*) members?")
_PLACE: Final = re.compile(r"(\d+):(\d+)")

File = Annotated[Path, typer.Argument(help="A programme file (YAML or JSON).", exists=True, dir_okay=False)]
DataDir = Annotated[Path | None, typer.Option(help="Where a development server keeps its keys.")]
Strand = Annotated[
    list[str] | None,
    typer.Option(
        "--strand",
        metavar="POINTS",
        help='Points that this makes unreachable, such as "12,345.60 bonus of 1,234 members"; may be given again.',
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

app = typer.Typer(no_args_is_help=True, help="The programme: from a draft to the tills and back.")
backtest_cli.add_to(app)
preview.add_to(app)


class By(StrEnum):
    """What a share is drawn from."""

    STORES = "stores"
    RECEIPTS = "receipts"


class Office:
    """The back office's ProgrammeService."""

    def __init__(self, client: BackOfficeClient) -> None:
        """Work over an open channel."""
        self._client = client
        self._stub = programme_pb2_grpc.ProgrammeServiceStub(client.channel)

    def call(self, method: str, request: Message) -> Any:  # noqa: ANN401 - the response type of the method named
        """Call a method by its name; a refusal is printed and ends the command."""
        call: Callable[..., Any] = getattr(self._stub, method)
        return self._client.call(call, request)


@contextmanager
def office(address: str | None, key: str | None, tls_ca: Path | None, data_dir: Path | None) -> Iterator[Office]:
    """Open the back office."""
    with back_office(load_settings(data_dir=data_dir), address, key, tls_ca) as client:
        yield Office(client)


def out(line: str, style: str | None = None) -> None:
    """Print a line as it is."""
    Console(highlight=False).print(line, markup=False, soft_wrap=True, style=style)


# --- drafts -------------------------------------------------------------------------------------------------------


@app.command()
def check(
    file: File,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 on warnings too.")] = False,
) -> None:
    """Say what is wrong with a file, as file:line:column: field: message (hint). Nothing is sent anywhere.

    Warnings name what is allowed and probably not meant, such as a promotion that can never apply. `publish` asks the
    back office for them as well, which also knows the catalogue.
    """
    text = read_text(file)
    programme = loaded_or_exit(file, text)
    warnings = warnings_of(programme, text, str(file), utc_now().date())
    for warning in warnings:
        out(f"warning: {warning}", "yellow")
    said = f", {len(warnings)} warning{'s' if len(warnings) != 1 else ''}" if warnings else ""
    out(
        f"{file}: programme {programme.code}, effective from {programme.effective_from}, "
        f"{len(programme.promotions)} promotions: valid{said}"
    )
    if warnings and strict:
        raise typer.Exit(EXIT_FILE_WRONG)


@app.command()
def schema() -> None:
    """Print the JSON Schema of programme files, for editors."""
    typer.echo(json_schema_text(), nl=False)


@app.command("diff")
def diff_command(
    before: Annotated[str, typer.Argument(help="A file, a published version's number, or live: the one in effect.")],
    after: Annotated[str, typer.Argument(help="The same.")],
    as_json: Json = False,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Say in words what changed: promotions added, removed and changed field by field, and settings."""
    old, new = (_source(name, address, key, tls_ca, data_dir) for name in (before, after))
    found = difference(_data(before, old.text), _data(after, new.text), (old.semantics, new.semantics))
    if as_json:
        changed = [{"id": one.item_id, "changes": [c._asdict() for c in one.changes]} for one in found.changed]
        answer = found._asdict() | {"changed": changed, "settings": [c._asdict() for c in found.settings]}
        typer.echo(json.dumps(answer, indent=1, ensure_ascii=False))
        return
    for line, style in difference_lines(found):
        out(line, style)
    if before == LIVE:
        with office(address, key, tls_ca, data_dir) as programmes:
            checked = programmes.call("CheckProgramme", pb.CheckProgrammeRequest(text=new.text, file_name=after))
        for line in loss_lines(checked.strands, checked.losses):
            out(line, "red")


def _data(name: str, text: str) -> Plain:
    """Return the data of a programme's text, whether it makes sense or not; what cannot be read ends the command."""
    document = read_yaml(text)
    if isinstance(document.data, dict):
        return document.data
    for one in document.problems:
        Console(stderr=True, highlight=False).print(
            f"{name}:{one.line}:{one.column}: {one.message} ({one.hint})", markup=False, soft_wrap=True
        )
    if not document.problems:
        raise fail(f"{name}: this is no programme: it has to be a mapping of fields")
    raise typer.Exit(EXIT_CANNOT_RUN)


def loaded_or_exit(file: Path, text: str) -> Programme:
    """Return a programme; its errors are printed and end the command."""
    loaded = load_programme(text, str(file))
    if isinstance(loaded, Programme):
        return loaded
    console = Console(stderr=True, highlight=False)
    for error in loaded:
        console.print(str(error), markup=False, soft_wrap=True)
    console.print(f"{file}: {len(loaded)} errors", style="red", markup=False)
    raise typer.Exit(EXIT_FILE_WRONG)


def _source(
    name: str, address: str | None, key: str | None, tls_ca: Path | None, data_dir: Path | None
) -> ProgrammeText:
    if not name.isdecimal() and name != LIVE:
        path = Path(name)
        if not path.is_file():
            raise fail(f"{name} is no file, and no number of a version")
        return ProgrammeText(read_text(path))
    with office(address, key, tls_ca, data_dir) as programmes:
        if name == LIVE:
            listed = programmes.call("ListProgrammeVersions", pb.ListProgrammeVersionsRequest()).versions
            name = next((str(one.version) for one in listed if one.in_effect), "")
            if not name:
                raise fail("no version of the programme is in effect")
        found = programmes.call("GetProgrammeVersion", pb.GetProgrammeVersionRequest(version=int(name)))
        return ProgrammeText(found.text, found.version.semantics)


# --- to the tills and back ----------------------------------------------------------------------------------------


@app.command()
def publish(  # noqa: PLR0913, PLR0917 - an argument is an option of the command
    what: Annotated[str, typer.Argument(metavar="FILE|VERSION", help="A programme file, or a published version.")],
    share: Annotated[
        str | None, typer.Option(help="Only for this share, such as 10%; 100% ends the rollout, 0% switches it off.")
    ] = None,
    by: Annotated[By | None, typer.Option(help="Draw the share from stores, or from receipts.")] = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Compute and compare it for every receipt, and never apply it.")
    ] = False,
    strand: Strand = None,
    yes: Yes = False,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Store a file as the programme's next version, or say for whom a version counts that was published before.

    Every worker uses a version within seconds, from its file's `effective_from` on. With --share it begins with a part
    of the stores or receipts; publish the version's number with a greater share to widen it, with 100% to end that.

    Points that another unit or programme would strand have to be named, as the command says; before members lose
    something else (a further unit, the worth of a point, a level, a club) it asks.
    """
    rollout, file = _rollout(share, by, shadow=shadow), Path(what)
    if what.isdecimal():
        if rollout is None:
            raise fail("say for whom it is to count: --share 100%, a smaller share with --by, or --shadow")
        with office(address, key, tls_ca, data_dir) as programmes:
            widened = pb.SetRolloutRequest(version=int(what), rollout=rollout, strands=_strands(strand or []))
            out(version_line(programmes.call("SetRollout", widened).version))
        return
    if not file.is_file():
        raise fail(f"{file} is no file, and no number of a version")
    text = read_text(file)
    loaded_or_exit(file, text)
    with office(address, key, tls_ca, data_dir) as programmes:
        checked = programmes.call("CheckProgramme", pb.CheckProgrammeRequest(text=text, file_name=file.name))
        named = _strands(strand or [])
        _show_warnings(file, checked)
        if rollout is None or rollout.share_millionths:  # neither a shadow nor for nobody
            _ask_before_losses(checked, named, yes=yes)
        request = pb.PublishProgrammeRequest(text=text, file_name=file.name, rollout=rollout, strands=named)
        _say_published(file, programmes.call("PublishProgramme", request), rollout)


def _ask_before_losses(checked: pb.CheckProgrammeResponse, named: Sequence[pb.StrandedPoints], *, yes: bool) -> None:
    """Refuse while stranded points are not named, and ask before members lose something else."""
    units = {one.unit for one in named}
    missing = [one for one in checked.strands if one.unit not in units]
    if missing:
        options = " ".join(f'--strand "{one.text}"' for one in missing)
        said = "\n".join(loss_lines(missing, []))
        raise fail(f"{said}\nNothing was published. If that is meant, say so: {options}")
    if checked.losses:
        for line in loss_lines([], checked.losses):
            out(line, "red")
        confirm("Publish it nevertheless?", yes=yes)


def _strands(texts: Sequence[str]) -> list[pb.StrandedPoints]:
    """Read points as `publish` names them."""
    strands = []
    for text in texts:
        match = _STRAND.fullmatch(text.strip())
        if match is None:
            raise fail(f'--strand: {text!r} is not of the form "12,345.60 bonus of 1,234 members"')
        whole, part, unit, members = match.groups()
        minor = int(whole.replace(",", "") + (part or ""))
        strands.append(pb.StrandedPoints(unit=unit, points_minor=minor, members=int(members.replace(",", ""))))
    return strands


def _show_warnings(file: Path, checked: pb.CheckProgrammeResponse) -> None:
    for warning in checked.warnings:
        where = f"{file}:{warning.line}:{warning.column}: {warning.field}"
        out(f"warning: {where}: {warning.message} ({warning.hint})", "yellow")


def _say_published(file: Path, response: pb.PublishProgrammeResponse, rollout: pb.Rollout | None) -> None:
    version = response.version
    done = "was published before, as" if response.unchanged else "is now"
    counts = "" if rollout is None else f", for {rollout_words(version.rollout)}"
    out(
        f"{file} {done} version {version.version} of programme {version.code}, "
        f"effective from {version.effective_at.ToJsonString()}{counts}"
    )


@app.command()
def rollback(
    version: Annotated[int, typer.Argument(help="The version that is to count again; by default the one before.")] = 0,
    yes: Yes = False,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Go back, at once: the version in effect is switched off, and the one before it counts again for everybody.

    It holds for receipts from this moment on, by the register's clock. Nothing is deleted: `publish VERSION --share
    100%` switches a version on again.
    """
    to = f"to version {version}" if version else "to the version before"
    confirm(f"Go back {to}, for all receipts from now on?", yes=yes)
    with office(address, key, tls_ca, data_dir) as programmes:
        response = programmes.call("RollbackProgramme", pb.RollbackProgrammeRequest(to_version=version))
    gone = " and ".join(str(number) for number in response.switched_off)
    if gone:
        out(f"Version {gone} no longer counts.")
    out(f"Version {response.version.version} counts for everybody, from now on.")
    for due in response.due:
        said = f"Note: version {due.version} is still due on {due.effective_at.ToJsonString()[:10]}."
        out(f"{said} To stop it: tallypoint rules publish {due.version} --share 0%", "yellow")


@app.command("list")
def list_command(
    as_json: Json = False, address: Address = None, key: Key = None, tls_ca: TlsCa = None, data_dir: DataDir = None
) -> None:
    """Show all versions, newest first, and for whom each counts."""
    with office(address, key, tls_ca, data_dir) as programmes:
        response = programmes.call("ListProgrammeVersions", pb.ListProgrammeVersionsRequest())
    if as_json:
        typer.echo(_json(response))
        return
    report_console().print(version_table(response.versions))


@app.command()
def show(
    version: Annotated[int, typer.Argument(help="The version; 0 is the newest.")] = 0,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Print the text of a version; what was said about for whom it counts goes to standard error."""
    with office(address, key, tls_ca, data_dir) as programmes:
        response = programmes.call("GetProgrammeVersion", pb.GetProgrammeVersionRequest(version=version))
    errors = Console(stderr=True, highlight=False)
    errors.print(version_line(response.version), markup=False, soft_wrap=True)
    for said in response.rollouts:
        when = said.from_at.ToJsonString() if said.HasField("from_at") else "from its beginning"
        errors.print(f"{when}: {rollout_words(said)}, by {said.set_by}", markup=False, soft_wrap=True)
    typer.echo(response.text, nl=not response.text.endswith("\n"))


@app.command()
def shadow(
    version: Annotated[int, typer.Argument(help="The version.")],
    as_json: Json = False,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Show what a version would have changed while it was a shadow, by day and store."""
    with office(address, key, tls_ca, data_dir) as programmes:
        response = programmes.call("GetShadowReport", pb.GetShadowReportRequest(version=version))
        if as_json:
            typer.echo(_json(response))
            return
        text = programmes.call("GetProgrammeVersion", pb.GetProgrammeVersionRequest(version=version)).text
    loaded = load_programme(text)
    if isinstance(loaded, list):
        raise fail(f"version {version} cannot be read by this release")
    report_console().print(shadow_table(version, response.rows, loaded))


# --- why ----------------------------------------------------------------------------------------------------------


@app.command()
def explain(
    receipt: Annotated[
        list[str],
        typer.Argument(metavar="STORE TERMINAL DATE NUMBER", help="Or STORE/TERMINAL/DATE/NUMBER, or BOOK:ENTRY."),
    ],
    every: Annotated[bool, typer.Option("--all", help="Show promotions for other goods and days too.")] = False,
    as_json: Json = False,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Say of a booked receipt why each promotion did or did not apply, by the version that booked it.

    It is evaluated again from what its entry keeps. Exit code 1 if that differs from what the entry says. An entry of
    an older release stays as booked: what was mended since is named, and is no fault.
    """
    request = _receipt("/".join(receipt))
    with office(address, key, tls_ca, data_dir) as programmes:
        response = programmes.call("ExplainReceipt", request)
        text = programmes.call(
            "GetProgrammeVersion", pb.GetProgrammeVersionRequest(version=response.programme_version)
        ).text
    if as_json:
        typer.echo(_json(response))
    else:
        loaded = load_programme(text)
        if isinstance(loaded, list):
            raise fail(f"version {response.programme_version} cannot be read by this release")
        for line, style in explanation_lines(response, loaded, every=every):
            out(line, style)
    if response.difference and not response.mended:
        raise typer.Exit(EXIT_DIFFERENT)


def _receipt(text: str) -> pb.ExplainReceiptRequest:
    if match := _PLACE.fullmatch(text):
        return pb.ExplainReceiptRequest(entry=pb.EntryPlace(book=int(match[1]), number=int(match[2])))
    if match := _KEY.fullmatch(text):
        try:
            date.fromisoformat(match[3])
        except ValueError:
            raise fail(f"{match[3]} is no day of the calendar written as YYYY-MM-DD, such as 2026-05-17") from None
        key = common_pb2.ReceiptKey(
            store_id=match[1], terminal_id=match[2], business_date=match[3], receipt_number=int(match[4])
        )
        return pb.ExplainReceiptRequest(receipt_key=key)
    raise fail(f"{text} names no receipt: write STORE TERMINAL DATE NUMBER, such as s1 t1 2026-11-22 17, or BOOK:ENTRY")


def _rollout(share: str | None, by: By | None, *, shadow: bool) -> pb.Rollout | None:
    if shadow:
        if share is not None or by is not None:
            raise fail("a shadow is compared on all receipts: give either --shadow or --share")
        return pb.Rollout(mode=pb.ROLLOUT_MODE_SHADOW)
    if share is None:
        if by is not None:
            raise fail("--by belongs to --share")
        return None
    try:
        millionths = Decimal(share.strip().removesuffix("%")) * 10_000
    except InvalidOperation:
        raise fail(f"{share} is no share: write it as 10% or 2.5%") from None
    if not 0 <= millionths <= _EVERYBODY or millionths != int(millionths):
        raise fail(f"{share} is no share between 0% and 100% with at most 4 decimals")
    if by is None and 0 < millionths < _EVERYBODY:
        raise fail("say what the share is drawn from: --by stores or --by receipts")
    draw = pb.ROLLOUT_BY_RECEIPTS if by is By.RECEIPTS else pb.ROLLOUT_BY_STORES
    return pb.Rollout(mode=pb.ROLLOUT_MODE_LIVE, share_millionths=int(millionths), by=draw)


def _json(message: Message) -> str:
    return json_format.MessageToJson(message, preserving_proto_field_name=True, ensure_ascii=False, indent=1)
