"""Prepares a running server for load tests: `python -m benchmarks.locust.prepare --help`.

Everything goes through the back-office API, as a chain would do it, and may be done again: the programme, members
and goods that are there stay as they are. Only the terminals' keys are new each time, so an earlier file's keys end.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, TypeVar

import grpc
import grpc.aio
import typer
from rich.console import Console
from tallypoint.v1 import (
    checkout_pb2,
    checkout_pb2_grpc,
    rights_pb2,
    rights_pb2_grpc,
    store_pb2,
    store_pb2_grpc,
)

from benchmarks.locust.baskets import Article, sample
from benchmarks.locust.prepared import DEFAULT_PATH, Prepared, Shopper, Terminal, receipt_of
from benchmarks.replay.client import CallFailed, Counters, bearing, call
from benchmarks.replay.dataset import DatasetMissing
from benchmarks.replay.people import CardShape, Person, card_number
from benchmarks.replay.seed import BackOffice, SeedFailed, batches
from server.commands.output.progress import progress

PROGRAMME: Final = Path(__file__).with_name("programme.yaml")
TIME_ZONE: Final = "America/New_York"
SETTLE_SECONDS: Final = 60.0
_REACH_SECONDS: Final = 15.0
_CALL_TIMEOUT_SECONDS: Final = 60.0
_CALLS_AT_ONCE: Final = 8
_ARTICLES_PER_CALL: Final = 5_000
_COUPONS_PER_CALL: Final = 5_000
_TERMINALS_PER_STORE: Final = 8
_NAMESPACE: Final = uuid.UUID("0c7a4a5e-37c0-5a0e-9b56-3a6a1e0c4f77")
_FIRST_CARD: Final = 7_000_000_000
_FIRST_UNKNOWN_CARD: Final = 9_900_000_000
_UNKNOWN_CARDS: Final = 100
_FIRST_BIRTHDAY: Final = date(1940, 1, 1)
_BIRTHDAYS: Final = 24_000
# American numbers 555-0100 to 555-0199 are set aside for fiction.
_AREA_CODES: Final = (
    201,
    203,
    205,
    207,
    208,
    209,
    210,
    214,
    215,
    216,
    217,
    218,
    219,
    224,
    225,
    228,
    229,
    231,
    234,
    239,
)
_NUMBERS_PER_AREA: Final = 100
_AGREEING_CONNECTIONS: Final = 12
_SECONDS_BETWEEN_PROBES: Final = 0.1
_NOT_YET: Final = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.FAILED_PRECONDITION})
"""What a worker says that has not read the newest keys, or the programme, yet."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Wanted:
    """How much there shall be of everything, and under which rules."""

    terminals: int = 64
    members: int = 5_000
    serial_coupons: int = 1_000
    baskets: int = 1_000
    programme: Path = PROGRAMME
    currency: str = "USD"
    generic_coupon: str = "LOCUST5"
    coupon_series: str = "locust-once"
    card_scheme: str = "ean13:2"


@dataclass(frozen=True)
class Reached:
    """A server's two ports, and a key of role `admin`."""

    pos_address: str
    backoffice_address: str
    admin_key: str
    tls_ca: str = ""

    @property
    def tls_ca_pem(self) -> str:
        """The certificate authority itself; nothing for a connection without TLS."""
        return Path(self.tls_ca).read_text(encoding="utf-8") if self.tls_ca else ""

    def channel(self, address: str) -> grpc.aio.Channel:
        """Open a connection of its own."""
        options = (("grpc.use_local_subchannel_pool", 1),)
        if self.tls_ca:
            credentials = grpc.ssl_channel_credentials(self.tls_ca_pem.encode())
            return grpc.aio.secure_channel(address, credentials, options=options)
        return grpc.aio.insecure_channel(address, options=options)


async def prepare(server: Reached, wanted: Wanted, folder: Path, console: Console) -> Prepared:
    """Fill a running server with all that a load test needs. The folder keeps the sample of baskets.

    Raises:
        SeedFailed: the server cannot be reached, did not take something, or does not work by it after a minute.
        CallFailed: the server refused a call, or did not answer.
        DatasetMissing: there is no sample yet, and no data set to draw it from.
    """
    await _reach(server)
    baskets, articles = sample(wanted.baskets, folder, console)
    people = [_person(number, CardShape.parse(wanted.card_scheme)) for number in range(wanted.members)]
    async with server.channel(server.backoffice_address) as channel:
        office = _Office(channel, server.admin_key, console)
        backoffice = BackOffice(channel, server.admin_key, office.counters)
        version = await backoffice.publish(wanted.programme.read_text(encoding="utf-8"), wanted.programme.name)
        await office.put_articles(articles)
        await backoffice.import_members(people, console)
        coupons = await office.generate_coupons(wanted.coupon_series, wanted.serial_coupons)
        terminals = await office.open_terminals(wanted.terminals)
    prepared = Prepared(
        pos_address=server.pos_address,
        tls_ca_pem=server.tls_ca_pem,
        currency=wanted.currency,
        terminals=terminals,
        shoppers=[Shopper(str(who.member_id), who.card_number, who.phone) for who in people],
        unknown_cards=_unknown_cards(CardShape.parse(wanted.card_scheme)),
        generic_coupons=[wanted.generic_coupon] if wanted.generic_coupon else [],
        serial_coupons=coupons,
        baskets=baskets,
    )
    await _settle(server, prepared, version)
    return prepared


class _Office:
    """The back office as an administrator uses it, a few calls at once."""

    def __init__(self, channel: grpc.aio.Channel, key: str, console: Console) -> None:
        self.counters = Counters()
        self._stores = store_pb2_grpc.StoreServiceStub(channel)
        self._rights = rights_pb2_grpc.RightsServiceStub(channel)
        self._key = key
        self._console = console

    async def put_articles(self, articles: Sequence[Article]) -> None:
        put = bearing(self._stores.PutProducts, self._key, _CALL_TIMEOUT_SECONDS)
        with progress("Articles", len(articles), "articles", self._console) as advance:
            for batch in batches(articles, _ARTICLES_PER_CALL):
                products = [store_pb2.Product(**article._asdict()) for article in batch]
                await call(self.counters, put, "PutProducts", store_pb2.PutProductsRequest(products=products))
                advance(len(batch))

    async def generate_coupons(self, series: str, count: int) -> list[str]:
        generate = bearing(self._rights.GenerateCoupons, self._key, _CALL_TIMEOUT_SECONDS)
        codes: list[str] = []
        if not series:
            return codes
        with progress("Coupons", count, "coupons", self._console) as advance:
            while len(codes) < count:
                request = rights_pb2.GenerateCouponsRequest(
                    request_id=str(uuid.uuid4()), series=series, count=min(count - len(codes), _COUPONS_PER_CALL)
                )
                made = (await call(self.counters, generate, "GenerateCoupons", request)).codes
                codes += made
                advance(len(made))
        return codes

    async def open_terminals(self, count: int) -> list[Terminal]:
        """Make stores of eight terminals each; return the terminals with their keys, neighbours in different stores."""
        put = bearing(self._stores.PutStore, self._key, _CALL_TIMEOUT_SECONDS)
        stores = [f"locust-{number}" for number in range(1, -(-count // _TERMINALS_PER_STORE) + 1)]
        places = [(store, f"lane-{number}") for number in range(1, _TERMINALS_PER_STORE + 1) for store in stores]
        with progress("Stores", len(stores), "stores", self._console) as advance:
            requests = [
                store_pb2.PutStoreRequest(store=store_pb2.Store(store_id=store, name=store, time_zone=TIME_ZONE))
                for store in stores
            ]
            await _some_at_once(lambda each: call(self.counters, put, "PutStore", each), requests, advance)
        with progress("Terminals", count, "terminals", self._console) as advance:
            return await _some_at_once(self._issue_key, places[:count], advance)

    async def _issue_key(self, place: tuple[str, str]) -> Terminal:
        issue = bearing(self._stores.IssueTerminalKey, self._key, _CALL_TIMEOUT_SECONDS)
        request = store_pb2.IssueTerminalKeyRequest(store_id=place[0], terminal_id=place[1])
        return Terminal(*place, (await call(self.counters, issue, "IssueTerminalKey", request)).key)


async def _some_at_once(
    work: Callable[[Item], Awaitable[Result]], items: Sequence[Item], advance: Callable[[int], None]
) -> list[Result]:
    done: list[Result] = []
    for batch in batches(items, _CALLS_AT_ONCE):
        done += await asyncio.gather(*map(work, batch))
        advance(len(batch))
    return done


def _person(number: int, shape: CardShape) -> Person:
    """Return the member of a number, the same in every run; every second one has a phone, while numbers last."""
    area, last_digits = divmod(number // 2, _NUMBERS_PER_AREA)
    has_phone = number % 2 == 0 and area < len(_AREA_CODES)
    return Person(
        member_id=uuid.uuid5(_NAMESPACE, f"shopper:{number}"),
        name=f"Load Shopper {number}",
        birthday=_FIRST_BIRTHDAY + timedelta(days=number * 7919 % _BIRTHDAYS),
        card_number=card_number(_FIRST_CARD + number, shape),
        phone=f"+1{_AREA_CODES[area]}55501{last_digits:02d}" if has_phone else "",
    )


def _unknown_cards(shape: CardShape) -> list[str]:
    return [card_number(_FIRST_UNKNOWN_CARD + number, shape) for number in range(_UNKNOWN_CARDS)]


async def _reach(server: Reached) -> None:
    """Make sure that both ports can be reached before anything is changed: new keys end the old ones."""
    if server.tls_ca:
        hint = f"does it speak TLS, with a certificate for this name, by an authority in {server.tls_ca}?"
    else:
        hint = "if it speaks TLS, give --tls-ca"
    for name, address in (("POS", server.pos_address), ("back-office", server.backoffice_address)):
        async with server.channel(address) as channel:
            try:
                await asyncio.wait_for(channel.channel_ready(), _REACH_SECONDS)
            except TimeoutError:
                raise SeedFailed(
                    f"no connection to the {name} port, {address}, in {_REACH_SECONDS:.0f} s: "
                    f"is a server there? And {hint}"
                ) from None


async def _settle(server: Reached, prepared: Prepared, version: int) -> None:
    """Wait until all workers work by the newest key and rules: each new connection may meet another worker."""
    give_up_at = time.monotonic() + SETTLE_SECONDS
    agreed = 0
    while agreed < _AGREEING_CONNECTIONS:
        missing = await _missing(server, prepared, version)
        if missing is None:
            agreed += 1
            continue
        agreed = 0
        if time.monotonic() > give_up_at:
            raise SeedFailed(f"after {SETTLE_SECONDS:.0f} s a worker does not know what was prepared: {missing}")
        await asyncio.sleep(_SECONDS_BETWEEN_PROBES)


async def _missing(server: Reached, prepared: Prepared, version: int) -> str | None:
    """What the worker behind a new connection does not know yet, in words; None if it knows all."""
    now = int(datetime.now(UTC).timestamp())
    request = checkout_pb2.QuoteRequest(receipt=receipt_of(prepared.baskets[-1], prepared.currency, now))
    async with server.channel(server.pos_address) as channel:
        stub = checkout_pb2_grpc.CheckoutServiceStub(channel)
        for key in (prepared.terminals[0].key, prepared.terminals[-1].key):
            try:
                answer = await call(Counters(), bearing(stub.Quote, key), "Quote", request)
            except CallFailed as error:
                if error.failure.code not in _NOT_YET:
                    raise
                return str(error)
            if answer.programme_version != version:
                return f"it is at programme version {answer.programme_version}, not {version}"
            if any(notice.code == "UNKNOWN_SKU" for notice in answer.notices):
                return "it does not know the articles"
    return None


app = typer.Typer(add_completion=False)


@app.command()
def main(  # noqa: PLR0913, PLR0917 - one parameter is one option of the command
    pos: Annotated[str, typer.Option(help="The server's POS port.")] = "127.0.0.1:7443",
    backoffice: Annotated[str, typer.Option(help="Its back-office port.")] = "127.0.0.1:7444",
    admin_key: Annotated[str, typer.Option(envvar="TALLYPOINT_ADMIN_KEY", help="A key of role admin.")] = "",
    tls_ca: Annotated[Path | None, typer.Option(exists=True, help="The server's certificate authority, PEM.")] = None,
    terminals: Annotated[int, typer.Option(min=1, max=20_000, help="Registers; each user of Locust takes one.")] = 64,
    members: Annotated[int, typer.Option(min=1, help="Shoppers with a card, shared out among the registers.")] = 5_000,
    coupons: Annotated[int, typer.Option(min=0, help="Coupons that count once.")] = 1_000,
    baskets: Annotated[int, typer.Option(min=1, max=150_000, help="Real baskets to draw.")] = 1_000,
    programme: Annotated[Path, typer.Option(exists=True, help="The programme to publish, if it is not in effect.")] = (
        PROGRAMME
    ),
    currency: Annotated[str, typer.Option(help="That programme's currency.")] = "USD",
    generic_coupon: Annotated[str, typer.Option(help="A code of it that everybody may use; empty for none.")] = (
        "LOCUST5"
    ),
    coupon_series: Annotated[str, typer.Option(help="A series of its coupons; empty for none.")] = "locust-once",
    card_scheme: Annotated[str, typer.Option(help="Cards to make, as the server's settings write them.")] = "ean13:2",
    output: Annotated[Path, typer.Option(help="The file to write, for the locustfile.")] = DEFAULT_PATH,
) -> None:
    """Put stores, registers, members, a programme and coupons on a running server, and write the locustfile's file."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if not admin_key:
        raise typer.BadParameter("give a key of role admin, or set TALLYPOINT_ADMIN_KEY", param_hint="--admin-key")
    server = Reached(pos, backoffice, admin_key, str(tls_ca or ""))
    wanted = Wanted(
        terminals, members, coupons, baskets, programme, currency, generic_coupon, coupon_series, card_scheme
    )
    try:
        prepared = asyncio.run(prepare(server, wanted, output.parent, console))
    except (SeedFailed, CallFailed, DatasetMissing, ValueError) as error:
        console.print(f"[red]Not prepared.[/red] {error}")
        raise typer.Exit(2) from error
    prepared.save(output)
    console.print(f"Ready: {output}. Now: locust -f benchmarks/locust/locustfile.py --prepared {output}")


if __name__ == "__main__":
    app()
