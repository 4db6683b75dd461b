"""The account map: which account of the general ledger each account of the books stands for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from ledger.finance.accounts import PARTNER_PREFIX
from server.base.text_files import NotTextError, read_utf8

DEFAULT_FILE: Final = Path(__file__).with_name("account_map.toml")
MAX_COMMODITY_LETTERS: Final = 24
PLACEHOLDER: Final = "<code>"
_NAME: Final = r"^(Assets|Liabilities|Equity|Income|Expenses)(:[A-Z0-9][A-Za-z0-9-]*)+$"
_PARTNER_NAME: Final = r"^(Assets|Liabilities|Equity|Income|Expenses)(:([A-Z0-9]|<code>)([A-Za-z0-9-]|<code>)*)+$"
_NOT_NAME: Final = re.compile(r"[^A-Za-z0-9-]+")
_NOT_COMMODITY: Final = re.compile(r"[^A-Z0-9'._-]+")

_COMMODITY: Final = r"^[A-Z][A-Z0-9'._-]{0,22}[A-Z0-9]$"

Commodity = Annotated[str, Field(pattern=_COMMODITY)]

_ACCOUNT: Final = (
    "is not an account's name: Assets, Liabilities, Equity, Income or Expenses, and after it one part or more of Latin "
    "letters, digits and hyphens, each after a colon and with"
)
_UNIT: Final = (
    "is not a unit's name: 2 to 24 capital Latin letters, digits and signs ' . _ -, with a letter first and no sign "
    "last, such as BONUS"
)
_FORMS: Final[Mapping[str, str]] = {
    _NAME: f"{_ACCOUNT} a capital or a digit first, such as Liabilities:Loyalty:Points",
    _PARTNER_NAME: f"{_ACCOUNT} a capital, a digit or {PLACEHOLDER} first, such as Assets:Partners:{PLACEHOLDER}",
    _COMMODITY: _UNIT,
}
"""What is wrong with a text that does not fit a pattern."""
_WORDS: Final[Mapping[str, str]] = {
    "missing": "is missing: add it",
    "string_type": "must be a text in quotes",
    "model_type": "must be a table of names and values",
    "dict_type": "must be a table of names and values",
}
"""What is wrong, by the kind that pydantic gives it."""


class AccountMapError(ValueError):
    """The file is not an account map; the message names every field at fault."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GlAccount(_Strict):
    """An account of the general ledger: its number in the enterprise system, its name in beancount."""

    number: str = Field("", max_length=64)
    name: str = Field(pattern=_NAME, max_length=256)


class PartnerAccount(_Strict):
    """What the settlement accounts of all partners stand for; `<code>` stands for the partner's code.

    In a name the code begins with a capital, and what a name cannot have is a dash.
    """

    number: str = Field("", max_length=64)
    name: str = Field(pattern=_PARTNER_NAME, max_length=192)

    def of(self, code: str) -> GlAccount:
        """Return the account of one partner."""
        part = _NOT_NAME.sub("-", code).strip("-") or "0"
        number = self.number.replace(PLACEHOLDER, code)
        return GlAccount(number=number, name=self.name.replace(PLACEHOLDER, part[0].upper() + part[1:]))


class GlAccounts(_Strict):
    """What each account of the books stands for, by its name in small letters."""

    available: GlAccount
    pending: GlAccount
    debt: GlAccount
    issued: GlAccount
    redeemed: GlAccount
    expired: GlAccount
    adjusted: GlAccount
    partner: PartnerAccount
    clearing: GlAccount
    revalued: GlAccount


class AccountMap(_Strict):
    """An account map; see `account_map.toml` for what each account means."""

    accounts: GlAccounts
    partners: dict[str, GlAccount] = {}
    commodities: dict[str, Commodity] = {}

    def account(self, code: str) -> GlAccount:
        """Return what an account of the books stands for, such as ``available`` or ``partner:pharmacy``."""
        if code.startswith(PARTNER_PREFIX):
            partner = code.removeprefix(PARTNER_PREFIX)
            return self.partners.get(partner) or self.accounts.partner.of(partner)
        account = getattr(self.accounts, code)
        assert isinstance(account, GlAccount)
        return account

    def commodity(self, unit_code: str) -> str:
        """Return the name of a point unit in beancount: as the map says, or its code in capitals."""
        if unit_code in self.commodities:
            return self.commodities[unit_code]
        name = _NOT_COMMODITY.sub("-", unit_code.upper())[:MAX_COMMODITY_LETTERS].strip("'._-0123456789")
        return name if len(name) > 1 else f"POINTS-{name or '0'}"


def load_account_map(path: Path | None = None) -> AccountMap:
    """Read the account map, and over it the file of one's own, which may name any part of it.

    Raises:
        AccountMapError: The file is no account map.
        OSError: It cannot be read.
    """
    text = DEFAULT_FILE.read_text(encoding="utf-8")
    known: dict[str, Any] = tomllib.loads(text)
    if path is None:
        return AccountMap.model_validate(known)
    try:
        own = tomllib.loads(read_utf8(path))
        return AccountMap.model_validate(_merged_tables(known, own))
    except NotTextError as error:
        raise AccountMapError(str(error)) from None
    except tomllib.TOMLDecodeError as error:
        raise AccountMapError(f"{path}: this is not TOML: {error}") from None
    except ValidationError as error:
        faults = [f"  {'.'.join(map(str, fault['loc']))}: {_wording(fault)}" for fault in error.errors()]
        raise AccountMapError(f"{path}: this is not an account map:\n" + "\n".join(faults)) from None


def _wording(fault: ErrorDetails) -> str:
    """Return what is wrong with a field, and what is expected instead; pydantic's own words where there are none."""
    kind, where, value, context = fault["type"], fault["loc"], fault["input"], fault.get("ctx", {})
    if kind == "string_pattern_mismatch":
        return f"{value!r} {_FORMS[context['pattern']]}"
    if kind == "string_too_long":
        return f"must have at most {context['max_length']} characters, not {len(value)}"
    if kind == "extra_forbidden":
        known: Mapping[int, Iterable[str]] = {1: AccountMap.model_fields, 2: GlAccounts.model_fields}
        return f"is not known here: the names are {', '.join(known.get(len(where), GlAccount.model_fields))}"
    if kind == "model_type" and len(where) > 1:
        return f'{_WORDS[kind]}, such as {{number = "2410", name = "Liabilities:Loyalty:Points"}}'
    return _WORDS.get(kind) or fault["msg"]


def _merged_tables(known: Any, own: Any) -> Any:  # noqa: ANN401 - any TOML
    """Put one's own values over the known ones, table by table."""
    if isinstance(known, dict) and isinstance(own, dict):
        return known | {key: _merged_tables(known.get(key), value) for key, value in own.items()}
    return own
