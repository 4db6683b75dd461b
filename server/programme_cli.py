"""`tallypoint programme`: checking a programme file here, and publishing it to the service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from tallypoint.v1 import programme_pb2, programme_pb2_grpc

from server.backoffice.client import Address, Key, TlsCa, back_office
from server.command import load_settings
from server.promotions import Programme, load_programme

EXIT_FILE_WRONG: Final = 1

File = Annotated[Path, typer.Argument(help="A programme file (YAML).", exists=True, dir_okay=False)]

app = typer.Typer(no_args_is_help=True, help="The programme: its rates and promotions.")


@app.command()
def check(file: File) -> None:
    """Say what is wrong with a file, as file:line:column: field: message. Nothing is sent anywhere."""
    programme = _loaded(file)
    Console(highlight=False).print(
        f"{file}: programme {programme.code}, effective from {programme.effective_from}, "
        f"{len(programme.promotions)} promotions: valid",
        markup=False,
        soft_wrap=True,
    )


@app.command()
def publish(
    file: File,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where a development server keeps its keys.")] = None,
) -> None:
    """Store a file as the programme's next version; every worker uses it within seconds from its date on."""
    _loaded(file)
    settings = load_settings(data_dir=data_dir)
    with back_office(settings, address, key, tls_ca) as client:
        stub = programme_pb2_grpc.ProgrammeServiceStub(client.channel)
        request = programme_pb2.PublishProgrammeRequest(text=file.read_text(encoding="utf-8"), file_name=file.name)
        response = client.call(stub.PublishProgramme, request)
    version = response.version
    what = "was published before, as" if response.unchanged else "is now"
    Console(highlight=False).print(
        f"{file} {what} version {version.version} of programme {version.code}, "
        f"effective from {version.effective_at.ToJsonString()}",
        markup=False,
        soft_wrap=True,
    )


def _loaded(file: Path) -> Programme:
    loaded = load_programme(file.read_bytes(), str(file))
    if isinstance(loaded, Programme):
        return loaded
    console = Console(stderr=True, highlight=False)
    for error in loaded:
        console.print(str(error), markup=False, soft_wrap=True)
    console.print(f"{file}: {len(loaded)} errors", style="red", markup=False)
    raise typer.Exit(EXIT_FILE_WRONG)
