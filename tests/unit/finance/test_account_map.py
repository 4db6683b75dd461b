"""The account map: the defaults, one's own file over them, and mistakes named by field."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ledger.finance.accounts import SUMMED_ACCOUNTS
from ledger.finance.general_ledger import REVALUED
from server.finance.account_map import AccountMapError, load_account_map

WORDS_OF_THE_CHECKER = re.compile(r"String should|Input should|Field required|Extra inputs|\[A-Z|\^")


def written(folder: Path, text: str) -> Path:
    file = folder / "accounts.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_every_account_of_the_books_has_a_default() -> None:
    names = {code: load_account_map().account(code).name for code in (*SUMMED_ACCOUNTS.values(), REVALUED)}
    assert names["available"] == names["pending"] == "Liabilities:Loyalty:Points"
    assert names["issued"] == "Income:Loyalty:Deferred"


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    own = load_account_map(
        written(
            tmp_path, '[accounts]\nexpired = {number = "701"}\npending = {name = "Liabilities:Pending", number = "9"}\n'
        )
    )
    default = load_account_map()
    assert (own.account("expired").number, own.account("expired").name) == ("701", default.account("expired").name)
    assert own.account("pending").name == "Liabilities:Pending"
    assert own.account("available") == default.account("available")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("[accounts", "this is not TOML", id="no TOML"),
        pytest.param(
            '[accounts]\nbonus = {name = "Assets:A"}',
            "accounts.bonus: is not known here: the names are available, pending, debt, ",
            id="unknown account",
        ),
        pytest.param(
            '[accounts]\npending = {title = "A"}',
            "accounts.pending.title: is not known here: the names are number, name",
            id="unknown part of an account",
        ),
        pytest.param("bonus = 1", "bonus: is not known here: the names are accounts, partners, ", id="unknown table"),
        pytest.param(
            '[accounts]\npending = {name = "Revenue:A"}',
            "accounts.pending.name: 'Revenue:A' is not an account's name: Assets, Liabilities, Equity, Income or "
            "Expenses, and after it one part or more of Latin letters, digits and hyphens, each after a colon and with "
            "a capital or a digit first, such as Liabilities:Loyalty:Points",
            id="root",
        ),
        pytest.param(
            '[accounts]\npartner = {name = "assets:<code>"}',
            "with a capital, a digit or <code> first, such as Assets:Partners:<code>",
            id="a partner's account",
        ),
        pytest.param(
            f'[partners]\nfuel = {{name = "Assets:{"A" * 250}"}}',
            "partners.fuel.name: must have at most 256 characters, not 257",
            id="too long",
        ),
        pytest.param("[accounts]\npending = {number = 9}", "pending.number: must be a text in quotes", id="number"),
        pytest.param('[partners]\nfuel = {number = "9"}', "partners.fuel.name: is missing: add it", id="no name"),
        pytest.param(
            '[accounts]\npending = "Assets:A"',
            'accounts.pending: must be a table of names and values, such as {number = "2410", name = "Liab',
            id="no table",
        ),
        pytest.param("accounts = 1", "accounts: must be a table of names and values", id="no accounts"),
        pytest.param("partners = 1", "partners: must be a table of names and values", id="no partners"),
        pytest.param(
            '[commodities]\nbonus = "b"',
            "commodities.bonus: 'b' is not a unit's name: 2 to 24 capital Latin letters, digits and signs ' . _ -, "
            "with a letter first and no sign last, such as BONUS",
            id="commodity",
        ),
    ],
)
def test_mistakes_are_named(text: str, said: str, tmp_path: Path) -> None:
    file = written(tmp_path, text)
    with pytest.raises(AccountMapError) as error:
        load_account_map(file)
    assert str(error.value).startswith(f"{file}: ")
    assert said in str(error.value)
    assert not WORDS_OF_THE_CHECKER.search(str(error.value))


@pytest.mark.parametrize(
    ("unit_code", "commodity"),
    [
        pytest.param("bonus", "BONUS", id="capitals"),
        pytest.param("bonus+2.eur", "BONUS-2.EUR", id="letters that beancount does not know"),
        pytest.param("b", "POINTS-B", id="too short"),
        pytest.param("2bonus", "BONUS", id="begins with a digit"),
        pytest.param("x" * 40, "X" * 24, id="too long"),
        pytest.param("балы", "POINTS-0", id="no letter that beancount knows"),
    ],
)
def test_commodities_are_named_after_units(unit_code: str, commodity: str) -> None:
    assert load_account_map().commodity(unit_code) == commodity


def test_the_map_names_commodities(tmp_path: Path) -> None:
    own = load_account_map(written(tmp_path, '[commodities]\nbonus = "BALY"'))
    assert (own.commodity("bonus"), own.commodity("other")) == ("BALY", "OTHER")


@pytest.mark.parametrize(
    ("code", "name"),
    [
        pytest.param("pharmacy", "Assets:Partners:Pharmacy", id="a capital in front"),
        pytest.param("city pharmacy/7", "Assets:Partners:City-pharmacy-7", id="what a name cannot have is a dash"),
        pytest.param("7-eleven", "Assets:Partners:7-eleven", id="a digit in front"),
        pytest.param("аптека", "Assets:Partners:0", id="nothing that a name can have"),
    ],
)
def test_every_partner_has_an_account_of_its_own(code: str, name: str) -> None:
    account = load_account_map().account(f"partner:{code}")
    assert (account.number, account.name) == ("1420", name)


def test_a_file_names_accounts_of_partners(tmp_path: Path) -> None:
    own = load_account_map(
        written(
            tmp_path,
            '[accounts]\npartner = {number = "14-<code>", name = "Assets:Coalition:P<code>"}\n'
            '[partners]\nfuel = {number = "99", name = "Liabilities:Fuel"}\n',
        )
    )
    assert own.account("partner:pharmacy").number == "14-pharmacy"
    assert own.account("partner:pharmacy").name == "Assets:Coalition:PPharmacy"
    assert (own.account("partner:fuel").number, own.account("partner:fuel").name) == ("99", "Liabilities:Fuel")


def test_a_partner_s_name_must_be_a_name(tmp_path: Path) -> None:
    with pytest.raises(AccountMapError, match=r"accounts\.partner\.name"):
        load_account_map(written(tmp_path, '[accounts]\npartner = {name = "assets:<code>"}\n'))
