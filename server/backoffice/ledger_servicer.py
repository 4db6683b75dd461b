"""LedgerService: what stands in the books, for finance. Nothing here writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import journal_pb2, ledger_pb2

from ledger.entry.books import book_of_member
from ledger.entry.chain import EntryRecord
from ledger.entry.keys import business_key, return_key
from ledger.entry.model import Head, Lot, OpenHold, Unit
from ledger.reading.balances import read_accounts
from ledger.reading.journal import read_entries, read_heads, read_member_entries
from ledger.reading.lookups import find_receipts
from ledger.reading.totals import DayTotal, read_day_totals
from server.base.clock import Clock, utc_now
from server.base.database import connection
from server.base.errors import Refused, invalid_request
from server.checkout.balances import balance_message
from server.edge.caller import Caller, Role
from server.edge.moments import no_day
from server.edge.validation import read_optional_day
from server.members.identifiers import read_member_id
from server.members.records import living_id

if TYPE_CHECKING:
    from server.base.database import Pool

DEFAULT_PAGE_SIZE: Final = 100
_FINANCE: Final = frozenset({Role.FINANCE, Role.ADMIN})

ALLOWED: Final[Mapping[str, frozenset[Role]]] = {
    "ListBooks": _FINANCE,
    "ListEntries": _FINANCE,
    "FindReceipt": _FINANCE,
    "GetAccount": _FINANCE,
    "ListTotals": _FINANCE,
}


class LedgerServicer:
    """Answers the calls of LedgerService."""

    def __init__(self, pool: Pool, books: int, clock: Clock = utc_now) -> None:
        """Read over a pool; `books` is the ledger's number of books."""
        self._pool = pool
        self._books = books
        self._clock = clock

    async def list_books(self, request: ledger_pb2.ListBooksRequest, caller: Caller) -> ledger_pb2.ListBooksResponse:
        """Show the head of every book."""
        async with connection(self._pool) as conn:
            heads = await read_heads(conn)
        return ledger_pb2.ListBooksResponse(books=[_head_message(book, head) for book, head in sorted(heads.items())])

    async def list_entries(
        self, request: ledger_pb2.ListEntriesRequest, caller: Caller
    ) -> ledger_pb2.ListEntriesResponse:
        """Show a page of one book."""
        if request.book >= self._books:
            raise Refused(
                api.REFUSAL_REASON_NOT_FOUND,
                f"there is no book {request.book}: this ledger has books 0 to {self._books - 1}",
                violations=[("book", f"must be 0 to {self._books - 1}")],
            )
        limit = request.page_size or DEFAULT_PAGE_SIZE
        async with connection(self._pool) as conn:
            records = await read_entries(conn, request.book, request.after_number, limit)
        return ledger_pb2.ListEntriesResponse(entries=[_entry_message(record) for record in records])

    async def find_receipt(
        self, request: ledger_pb2.FindReceiptRequest, caller: Caller
    ) -> ledger_pb2.FindReceiptResponse:
        """Show the entry of a receipt; of an exchange, those of both its halves."""
        keys = _receipt_keys(request.receipt_key)
        async with connection(self._pool) as conn:
            places = await find_receipts(conn, keys)
            found = [places[key] for key in keys if key in places]
            records = [(await read_entries(conn, book, number - 1, 1))[0] for book, number in found]
        if not records:
            raise Refused(api.REFUSAL_REASON_NOT_FOUND, "no receipt with this key is booked")
        response = ledger_pb2.FindReceiptResponse(entry=_entry_message(records[0]))
        for record in records[1:]:
            response.goods_return.CopyFrom(_entry_message(record))
        return response

    async def get_account(self, request: ledger_pb2.GetAccountRequest, caller: Caller) -> ledger_pb2.GetAccountResponse:
        """Show what the ledger knows of a member; nothing for somebody without entries."""
        member_id, now = read_member_id(request.member_id, "member_id"), self._clock()
        book = book_of_member(member_id, self._books)
        async with connection(self._pool) as conn, conn.transaction(isolation="repeatable_read", readonly=True):
            accounts = await read_accounts(conn, book, member_id, now)
            entries = await read_member_entries(conn, book, member_id, request.newest_entries)
            living = await living_id(conn, member_id, self._books)
        return ledger_pb2.GetAccountResponse(
            balances=[balance_message(account.balance) for account in accounts],
            lots=[_lot_message(account.balance.unit, lot) for account in accounts for lot in account.lots],
            entries=[_entry_message(entry) for entry in entries],
            holds=[_hold_message(account.balance.unit, hold) for account in accounts for hold in account.holds],
            merged_into="" if living == member_id else str(living),
        )

    async def list_totals(self, request: ledger_pb2.ListTotalsRequest, caller: Caller) -> ledger_pb2.ListTotalsResponse:
        """Show the totals by day, unit and account."""
        first = read_optional_day(request.from_day, "from_day")
        last = read_optional_day(request.to_day, "to_day")
        async with connection(self._pool) as conn:
            totals = await read_day_totals(conn, first, last)
        return ledger_pb2.ListTotalsResponse(totals=[_total(one) for one in totals])


def _total(total: DayTotal) -> ledger_pb2.Total:
    return ledger_pb2.Total(
        booked_on=total.booked_on.isoformat(),
        unit=total.unit,
        account=total.account,  # type: ignore[arg-type]  # the API's Account numbers them, and partners above them
        debit_points_minor=total.debit_minor,
        credit_points_minor=total.credit_minor,
    )


def _receipt_keys(key: api.ReceiptKey) -> list[bytes]:
    """Return the keys of the sale and of the return with a number."""
    try:
        return [business_key(key), return_key(key)]
    except ValueError:
        fault = no_day(key.business_date, optional=False)
        raise invalid_request([("receipt_key.business_date", fault)]) from None


def _head_message(book: int, head: Head) -> ledger_pb2.BookHead:
    """Return the head of a book; an empty book has no time."""
    message = ledger_pb2.BookHead(book=book, number=head.number, hash=head.hash)
    if head.number:
        message.booked_at.FromDatetime(head.booked_at)
    return message


def _entry_message(record: EntryRecord) -> ledger_pb2.Entry:
    """Return an entry with its event."""
    entry = ledger_pb2.Entry(
        ref=api.EntryRef(book=record.book, number=record.number),
        kind=journal_pb2.EntryKind.Name(record.kind),
        member_id=str(record.member_id) if record.member_id else "",
        event=journal_pb2.Event.FromString(record.payload),
        hash=record.hash,
    )
    entry.ref.booked_at.FromDatetime(record.booked_at)
    entry.event_at.FromDatetime(record.event_at)
    return entry


def _lot_message(unit: Unit, lot: Lot) -> ledger_pb2.Lot:
    """Return a lot with what is left of it."""
    message = ledger_pb2.Lot(
        number=lot.number,
        ordinal=lot.ordinal,
        unit=unit.code,
        granted_points_minor=lot.granted_minor,
        remaining_points_minor=lot.remaining_minor,
        held_points_minor=lot.held_minor,
    )
    if lot.active_at is not None:
        message.active_at.FromDatetime(lot.active_at)
    if lot.expires_at is not None:
        message.expires_at.FromDatetime(lot.expires_at)
    return message


def _hold_message(unit: Unit, hold: OpenHold) -> ledger_pb2.OpenHold:
    """Return what a checkout holds."""
    message = ledger_pb2.OpenHold(
        number=hold.number,
        unit=unit.code,
        store_id=hold.store_id,
        terminal_id=hold.terminal_id,
        points_minor=hold.points_minor,
    )
    message.held_at.FromDatetime(hold.held_at)
    message.expires_at.FromDatetime(hold.expires_at)
    return message
