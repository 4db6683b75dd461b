"""The numbers of the semantics: one for the books and for the programme's defaults."""

from __future__ import annotations

from ledger.entry import semantics
from server.promotions import CURRENT_SEMANTICS


def test_the_books_and_the_programme_count_alike() -> None:
    assert semantics.CURRENT == CURRENT_SEMANTICS
