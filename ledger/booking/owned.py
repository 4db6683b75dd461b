"""What the preferred writer of a book keeps in memory, so that it need not read what it wrote itself.

Balances, counters and the newest keys are known as of the book's head. The fence makes that safe: a batch that was
decided on them is written only if the book still has that head. If it has another one, somebody else appended; the
book is then followed entry by entry, and what is known of the members in those entries is forgotten.

The same tail tells of changed members. Who decided with a member's record that was looked up some time ago says as of
which entry it was (`stale`), and is told if the member has changed since: so a cached record is as good as one that
was read under the fence.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from tallypoint.v1 import journal_pb2

from ledger.entry import usage
from ledger.entry.model import (
    Account,
    BookState,
    Command,
    Counter,
    Decision,
    Head,
    KeyRecord,
    Purchase,
)

MAX_MEMBERS: Final = 20_000
"""Members of one book who are kept, about 1 kB each; those who came longest ago are forgotten first."""

MAX_KEYS: Final = 10_000
"""Keys of the newest entries, twice: registers resend within minutes. Older ones are found by the database."""

MAX_CHANGES: Final = 50_000
"""Members known to have changed; above this, everything known is forgotten."""

MAX_TAIL: Final = 1_000
"""Entries of other writers that are followed one by one; after more, everything known is forgotten."""

NEVER_READ: Final = -1
"""The head as of which a record counts that was read just now, and not kept."""

DUE_MARGIN: Final = timedelta(seconds=1)
"""Accounts that time changes so soon are read with their lots: the batch is booked a little later than it is made."""

_MEMBER_CHANGE: Final = int(journal_pb2.ENTRY_KIND_MEMBER_CHANGE)


@dataclass(slots=True)
class _Member:
    accounts: dict[int, Account]
    """By unit; without lots and holds, which are read for those who need them."""
    counters: dict[str, Counter] | None
    """None if no batch has read them."""


@dataclass(slots=True)
class OwnedBook:
    """What is known of one book as of ``head``; nothing is while that is None."""

    book: int
    head: Head | None = None
    _since: int = 0
    _members: dict[uuid.UUID, _Member] = field(default_factory=dict)
    _changes: dict[uuid.UUID, int] = field(default_factory=dict)
    _young: dict[bytes, KeyRecord] = field(default_factory=dict)
    _old: dict[bytes, KeyRecord] = field(default_factory=dict)

    @property
    def known_number(self) -> int:
        """The number of the newest entry known; `NEVER_READ` if the book is not followed."""
        return NEVER_READ if self.head is None else self.head.number

    def reset(self) -> None:
        """Forget everything."""
        self.head = None
        self._members.clear()
        self._changes.clear()
        self._young.clear()
        self._old.clear()

    def forget(self, commands: Iterable[Command]) -> None:
        """Forget the members of commands whose batch was not written: deciding has changed what was known of them."""
        for command in commands:
            if command.member_id is not None:
                self._members.pop(command.member_id, None)

    def stale(self, command: Command, as_of: int) -> bool:
        """Say whether a command's member has, or may have, changed since entry ``as_of``."""
        if as_of == NEVER_READ or self.head is None:
            return as_of != NEVER_READ
        return as_of < self._since or self._changes.get(command.member_id, 0) > as_of  # type: ignore[arg-type]  # None is no key

    # --- before a batch --------------------------------------------------------------------------------------------

    def unknown(self, commands: Sequence[Command], now: datetime) -> list[Command]:
        """Return the commands for which something must be read."""
        if self.head is None:
            return list(commands)
        due = max(now, self.head.booked_at) + DUE_MARGIN
        return [command for command in commands if not self._knows(command, due)]

    def _knows(self, command: Command, due: datetime) -> bool:
        if not isinstance(command, Purchase) or command.refusal is not None:
            return False
        if (
            command.spend is not None
            or command.checkout_key is not None
            or command.claims
            or command.budget_keys
            or command.further_spends
        ):
            return False
        if command.member_id is None:
            return True
        member = self._members.get(command.member_id)
        if member is None or (member.counters is None and usage.is_counted(command)):
            return False
        for account in member.accounts.values():
            if account.next_change_at is not None and account.next_change_at <= due:
                return False
        return True

    def begin(self, head: Head) -> None:
        """Begin to follow the book from a head that was just read."""
        self.head, self._since = head, head.number

    def complete(self, state: BookState, commands: Iterable[Command], read: Collection[Command]) -> None:
        """Add to a state what is known of the commands for which nothing was read."""
        were_read = {command.member_id for command in read}
        for command in commands:
            self._add_keys(state, command)
            member_id = command.member_id
            member = None if member_id is None else self._members.get(member_id)
            if member is None or member_id is None:
                continue
            if member_id not in were_read:
                for unit, account in member.accounts.items():
                    state.accounts[(member_id, unit)] = account
            if member.counters is not None and member_id not in state.counters:
                state.counters[member_id] = member.counters

    def _add_keys(self, state: BookState, command: Command) -> None:
        for known, key in ((state.messages, command.message_id), (state.receipts, command.business_key)):
            record = None if key is None else self._young.get(key) or self._old.get(key)
            if key is not None and record is not None:
                known.setdefault(key, record)

    # --- after a batch ---------------------------------------------------------------------------------------------

    def absorb(self, state: BookState, decision: Decision, commands: Iterable[Command]) -> None:
        """Take over what a batch that is durable has left behind."""
        self.head = state.head
        accounts: dict[uuid.UUID, dict[int, Account]] = {}
        for (member_id, unit), account in state.accounts.items():
            account.lots = account.holds = None
            accounts.setdefault(member_id, {})[unit] = account
        for command in commands:
            if isinstance(command, Purchase) and command.member_id is not None:
                known = self._members.pop(command.member_id, None)
                counters = state.counters.get(command.member_id)
                if counters is None and usage.is_counted(command):
                    counters = {}
                elif counters is None and known is not None:
                    counters = known.counters
                self._members[command.member_id] = _Member(accounts.get(command.member_id, {}), counters)
        for command in commands:
            if command.member_id is not None and not isinstance(command, Purchase):
                self._members.pop(command.member_id, None)
        self._note_entries(decision)
        while len(self._members) > MAX_MEMBERS:
            del self._members[next(iter(self._members))]

    def _note_entries(self, decision: Decision) -> None:
        """Note who has changed, and the keys."""
        for entry in decision.entries:
            if entry.kind == _MEMBER_CHANGE and entry.member_id is not None:
                self._changes[entry.member_id] = entry.number
            record = KeyRecord(entry.content_hash, self.book, entry.number)
            if entry.message_id is not None:
                self._young[entry.message_id] = record
            if entry.business_key is not None:
                self._young[entry.business_key] = record
        if len(self._young) > MAX_KEYS:
            self._old, self._young = self._young, {}

    def follow(self, head: Head, tail: Sequence[tuple[int, int, uuid.UUID | None]]) -> None:
        """Take note of what others appended since the known head: number, kind and member of each entry, in order.

        Too much of it is as good as nothing known.
        """
        if self.head is None or self.head.number + len(tail) != head.number or len(self._changes) > MAX_CHANGES:
            self.reset()
            return
        if not tail and head.hash != self.head.hash:  # not the book that we knew
            self.reset()
            return
        for number, kind, member_id in tail:
            if member_id is None:
                continue
            self._members.pop(member_id, None)
            if kind == _MEMBER_CHANGE:
                self._changes[member_id] = number
        self.head = head
