"""`tallypoint members`: commands for administrators, which are clients of the back office."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final
from uuid import uuid4

import typer
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import correction_pb2, correction_pb2_grpc, member_pb2, member_pb2_grpc

from server.backoffice.client import Address, BackOfficeClient, Key, TlsCa, back_office
from server.command import Yes, confirm, load_settings
from server.members.identifiers import mask_name
from server.members.import_cli import import_members

UUID_LENGTH: Final = 36

app = typer.Typer(no_args_is_help=True, help="Members and their cards.")


@app.callback()
def _members() -> None:
    """Members and their cards."""


app.command("import")(import_members)


@app.command()
def merge(
    duplicate: Annotated[str, typer.Argument(help="Who goes: the member's id, a card number, or a phone with its +.")],
    survivor: Annotated[str, typer.Argument(help="Who stays: the id, a card number, or a phone.")],
    reason: Annotated[str, typer.Option(help="Why, for the record.")],
    yes: Yes = False,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where a development server keeps its keys.")] = None,
) -> None:
    """Make two records of one person one: points, cards and phones go to the second. It cannot be undone."""
    with back_office(load_settings(data_dir=data_dir), address, key, tls_ca) as client:
        goes, stays = find_member(client, duplicate), find_member(client, survivor)
        typer.echo(f"goes:  {_line(goes)}\nstays: {_line(stays)}")
        confirm("Merge them?", yes=yes)
        request = correction_pb2.MergeMembersRequest(
            request_id=str(uuid4()), duplicate_id=goes.member_id, survivor_id=stays.member_id, reason=reason
        )
        stub = correction_pb2_grpc.CorrectionServiceStub(client.channel)
        merged = client.call(stub.MergeMembers, request).survivor
    typer.echo(f"is now: {_line(merged)}")


def find_member(client: BackOfficeClient, text: str) -> member_pb2.Member:
    """Return a member's record by id, card number, or phone in international form."""
    identifier = api.Identifier()
    if text.startswith("+"):
        identifier.phone = text
    elif len(text) == UUID_LENGTH and "-" in text:
        identifier.member_id = text
    else:
        identifier.card_number = text
    stub = member_pb2_grpc.MemberServiceStub(client.channel)
    return client.call(stub.GetMember, member_pb2.GetMemberRequest(identifier=identifier)).member


def _line(member: member_pb2.Member) -> str:
    name = mask_name(member.profile.name) or "without a name"
    status = api.MemberStatus.Name(member.status).removeprefix("MEMBER_STATUS_").lower()
    balances = [f"{decimal(one.available_points_minor, one.precision)} {one.unit}" for one in member.balances]
    return ", ".join([member.member_id, name, status, f"cards: {len(member.cards)}", *balances])


def decimal(points_minor: int, precision: int) -> str:
    """Return points as people write them."""
    return f"{Decimal(points_minor).scaleb(-precision):,f}"
