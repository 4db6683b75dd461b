"""What a shopper shows at the till, brought to its one normal form or refused by name.

Card numbers are digits only and carry their scheme's check digit; phone numbers are E.164; tokens of digital
cards keep their letters; member ids are UUIDs. What scanners and copying add unseen is dropped from all of them by
`server.base.scanned_text`. Nothing here reads or writes anything.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple
from uuid import UUID

import phonenumbers
import stdnum.ean
import stdnum.iso7064.mod_11_10
import stdnum.luhn
import stdnum.util
import stdnum.verhoeff
from tallypoint.v1 import common_pb2 as api

from server.base.card_scheme import CardCheck, CardScheme, parse_card_scheme
from server.base.errors import Refused
from server.base.scanned_text import ascii_digits, scanned_code, visible_text

REMEMBERED: Final = 8192
"""Reading a card costs some 8 µs and a phone 30, and a checkout sends the same one three or four times."""
_TOKEN: Final = re.compile(r"[!-~]{8,128}")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

ASK_OTHER_CARD: Final = "This is another shop's card. Ask for ours or the phone number."
SCAN_AGAIN: Final = "Scan the card again or type the number anew."
ASK_PHONE_AGAIN: Final = "This phone number does not exist. Ask the shopper to say it again, with its area code."
SCAN_DIGITAL_CARD_AGAIN: Final = "Ask the shopper to open the digital card again and scan it anew."


class NormalIdentifier(NamedTuple):
    """An identifier in its one normal form; `kind` is the API's IdentifierKind."""

    kind: api.IdentifierKind
    value: str


class _WrongCard(NamedTuple):
    """A card number that is not one: the scheme that it seems to be of, if any, and what is wrong with it."""

    scheme: CardScheme | None
    fault: str


class KeyedHash:
    """HMAC-SHA256 with the service's secret: what we look personal data and keys up by.

    A hash without a key would give phone numbers away to anybody who can count.
    """

    def __init__(self, secret: bytes) -> None:
        """Keep the secret; at least 16 bytes."""
        if len(secret) < 16:  # noqa: PLR2004  - half of the hash's own length is the least that RFC 2104 supports
            raise ValueError("the secret for keyed hashes needs at least 16 bytes")
        self._secret = secret

    def of_identifier(self, identifier: NormalIdentifier) -> bytes:
        """Return the 32 bytes under which an identifier is kept."""
        return self.of_text(_PURPOSES[identifier.kind], identifier.value)

    def of_text(self, purpose: str, text: str) -> bytes:
        """Return the 32 bytes of a text; equal texts of different purposes have different hashes."""
        return hmac.digest(self._secret, f"{purpose}:{text}".encode(), "sha256")

    def of_message(self, method: str, content: bytes) -> bytes:
        """Return the 32 bytes that tell one message body of a method from any other."""
        return hmac.digest(self._secret, f"message {method}:".encode() + content, "sha256")


_PURPOSES: Final[Mapping[api.IdentifierKind, str]] = {
    api.IDENTIFIER_KIND_CARD: "card",
    api.IDENTIFIER_KIND_PHONE: "phone",
    api.IDENTIFIER_KIND_DIGITAL_TOKEN: "token",
}


def _ean_check(number: str) -> bool:
    # stdnum's own validation accepts only the lengths of trade items; cards of 16 digits use the same digit.
    return bool(stdnum.ean.calc_check_digit(number[:-1]) == number[-1])


_CHECKS: Final[Mapping[CardCheck, Callable[[str], bool]]] = {
    CardCheck.LUHN: stdnum.luhn.is_valid,
    CardCheck.EAN: _ean_check,
    CardCheck.VERHOEFF: stdnum.verhoeff.is_valid,
    CardCheck.ISO7064_MOD11_10: stdnum.iso7064.mod_11_10.is_valid,
    CardCheck.NONE: bool,
}


def _lacks_zeros(number: str, scheme: CardScheme) -> bool:
    """Say whether a number is one of a scheme's whose zeros in front were cut, as spreadsheets do."""
    whole = (number.zfill(length) for length in scheme.lengths if length > len(number))
    return any(scheme.gave_out(card) and _CHECKS[scheme.check](card) for card in whole)


class IdentifierReader:
    """Reads identifiers by the chain's settings: its card schemes and the region of its national phone numbers."""

    def __init__(self, card_schemes: Sequence[CardScheme], default_region: str) -> None:
        """Take the schemes in the order in which they are tried, and an ISO 3166 region such as "UA"."""
        if default_region not in phonenumbers.SUPPORTED_REGIONS:
            raise ValueError(f"default_region {default_region!r} is not an ISO 3166 code of two letters such as UA")
        self._schemes = tuple(card_schemes)
        self._region = default_region
        self._cards = lru_cache(maxsize=REMEMBERED)(self._read_card)

    @classmethod
    def of_settings(cls, card_schemes: Sequence[str], default_region: str) -> IdentifierReader:
        """Return the reader of the settings with these names; ValueError if one of them is malformed."""
        return cls([parse_card_scheme(text) for text in card_schemes], default_region)

    def read(self, identifier: api.Identifier) -> NormalIdentifier:
        """Return the normal form of what a register sent.

        Raises:
            Refused: CARD_FOREIGN, CARD_CHECK_DIGIT_WRONG, PHONE_INVALID or INVALID_REQUEST, with a text that says
                what the cashier should do.
        """
        kind = identifier.WhichOneof("kind")
        if kind == "card_number":
            return self.card(identifier.card_number)
        if kind == "phone":
            return self.phone(identifier.phone)
        if kind == "digital_token":
            return self.digital_token(identifier.digital_token)
        if kind == "member_id":
            return NormalIdentifier(api.IDENTIFIER_KIND_MEMBER_ID, str(read_member_id(identifier.member_id)))
        raise Refused(
            api.REFUSAL_REASON_INVALID_REQUEST,
            "the identifier is empty: set a card number, phone, member id or digital token",
            violations=[("identifier.kind", "exactly one kind must be set")],
        )

    def forms(self, identifier: api.Identifier) -> tuple[NormalIdentifier, ...]:
        """Return all forms under which an identifier may be kept, today's first; refused as `read` refuses.

        Releases up to 0.4 kept tokens of digital cards with what the scanner says before them. Who registered so is
        still found by the same scanner.
        """
        token = identifier.digital_token
        normal = self.read(identifier)
        if not token or normal.value == token or not _TOKEN.fullmatch(token):
            return (normal,)
        return normal, NormalIdentifier(api.IDENTIFIER_KIND_DIGITAL_TOKEN, token)

    def card(self, text: str, field: str = "identifier.card_number") -> NormalIdentifier:
        """Return a card number as digits, its check digit verified; CARD_FOREIGN or CARD_CHECK_DIGIT_WRONG if not.

        A number with one of our prefixes and a wrong length was misread, so it is answered as a wrong check digit.
        """
        card = self._cards(text)
        if isinstance(card, NormalIdentifier):
            return card
        if card.scheme is None:
            names = ", ".join(scheme.name for scheme in self._schemes) or "none is set"
            raise Refused(
                api.REFUSAL_REASON_CARD_FOREIGN,
                f"{field} fits none of the card schemes ({names})",
                cashier_text=ASK_OTHER_CARD,
                violations=[(field, f"is not a number of one of our card schemes ({names})")],
            )
        raise Refused(
            api.REFUSAL_REASON_CARD_CHECK_DIGIT_WRONG,
            f"{field} is no whole card number of scheme {card.scheme.name}: {card.fault}; it was misread or mistyped",
            cashier_text=SCAN_AGAIN,
            violations=[(field, f"{card.fault}: scan or type it again")],
        )

    def _read_card(self, text: str) -> NormalIdentifier | _WrongCard:
        number = ascii_digits(stdnum.util.clean(scanned_code(text), " -"))
        is_number = number.isascii() and number.isdigit()
        ours = [scheme for scheme in self._schemes if is_number and scheme.gave_out(number)]
        if not ours:
            cut = next((scheme for scheme in self._schemes if is_number and _lacks_zeros(number, scheme)), None)
            return _WrongCard(cut, f"its zeros in front are missing: it has {len(number)} digits" if cut else "")
        complete = [scheme for scheme in ours if len(number) in scheme.lengths]
        if any(_CHECKS[scheme.check](number) for scheme in complete):
            return NormalIdentifier(api.IDENTIFIER_KIND_CARD, number)
        return _WrongCard(ours[0], "its check digit is wrong" if complete else f"it has {len(number)} digits")

    def phone(self, text: str, field: str = "identifier.phone") -> NormalIdentifier:
        """Return a phone number in E.164; PHONE_INVALID if no network gives it out."""
        number = _e164(text, self._region)
        if number is None:
            raise Refused(
                api.REFUSAL_REASON_PHONE_INVALID,
                f"{field} is not a phone number that exists (national numbers are read as of {self._region})",
                cashier_text=ASK_PHONE_AGAIN,
                violations=[(field, f"does not exist: write it as +380501234567, or as dialled in {self._region}")],
            )
        return NormalIdentifier(api.IDENTIFIER_KIND_PHONE, number)

    def digital_token(self, text: str, field: str = "identifier.digital_token") -> NormalIdentifier:
        """Return a digital card's token; INVALID_REQUEST if it is not 8 to 128 printable ASCII characters."""
        token = scanned_code(text)
        last_word = visible_text(text).rpartition(" ")[2]  # spaces may stand around a token and a scanner's prefix
        if scanned_code(last_word) != token or not _TOKEN.fullmatch(token):
            raise Refused(
                api.REFUSAL_REASON_INVALID_REQUEST,
                f"{field} is not a token: it needs 8 to 128 printable ASCII characters without spaces",
                cashier_text=SCAN_DIGITAL_CARD_AGAIN,
                violations=[(field, "needs 8 to 128 printable ASCII characters without spaces")],
            )
        return NormalIdentifier(api.IDENTIFIER_KIND_DIGITAL_TOKEN, token)


def read_member_id(text: str, field: str = "identifier.member_id") -> UUID:
    """Return a member id; INVALID_REQUEST if the text is no UUID."""
    word = scanned_code(text)
    if not _UUID.fullmatch(word):
        raise Refused(
            api.REFUSAL_REASON_INVALID_REQUEST,
            f"{field} is not a UUID",
            violations=[(field, "must be a UUID such as 0192f0c4-5c1e-7cc3-98c4-dc0c0c07398f")],
        )
    return UUID(word)


def mask_name(name: str) -> str:
    """Return a name as a cashier may see it: "Olena Koval" becomes "O*** K."."""
    words = name.split()
    if not words:
        return ""
    return " ".join([f"{words[0][0]}***", *(f"{word[0]}." for word in words[1:])])


@lru_cache(maxsize=REMEMBERED)
def _e164(text: str, region: str) -> str | None:
    word = scanned_code(text)
    if any(character.isalpha() for character in word):
        return None
    try:
        number = phonenumbers.parse(word, region)
    except phonenumbers.NumberParseException:
        return None
    if number.extension or not phonenumbers.is_valid_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
