"""What registers read, brought to its normal form or refused by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import rights_pb2

from server.base.card_scheme import CardCheck, CardScheme, parse_card_scheme
from server.base.errors import Refused
from server.edge.validation import check
from server.members.identifiers import IdentifierReader, KeyedHash, NormalIdentifier, mask_name

FOREIGN = api.REFUSAL_REASON_CARD_FOREIGN
MISREAD = api.REFUSAL_REASON_CARD_CHECK_DIGIT_WRONG

SCHEMES = ["ean13:22", "luhn16-19:9804,9805", "verhoeff12:77", "iso7064_mod11_10/11:6", "none8:5"]
READER = IdentifierReader.of_settings(SCHEMES, "UA")


@pytest.mark.parametrize(
    ("typed", "number"),
    [
        pytest.param("2200000000019", "2200000000019", id="EAN-13"),
        pytest.param("22 0000-0000 019", "2200000000019", id="spaces and dashes are ignored"),
        pytest.param("22–0000–0000019", "2200000000019", id="so are dashes of word processors"),
        pytest.param("2200000000019\r\n", "2200000000019", id="a scanner's line end"),
        pytest.param("]E02200000000019\t", "2200000000019", id="the kind of code that a scanner says"),
        pytest.param("\x022200000000019\x03", "2200000000019", id="the frame of a serial scanner"),
        pytest.param("\u200b２２０００００００００１９", "2200000000019", id="full width, and what nobody sees"),
        pytest.param("٢٢٠٠٠٠٠٠٠٠٠١٩", "2200000000019", id="digits of Arabic"),
        pytest.param("۲۲۰۰۰۰۰۰۰۰۰۱۹", "2200000000019", id="digits of Persian"),
        pytest.param("२२००००००-०००१९", "2200000000019", id="digits of Devanagari"),
        pytest.param("২২০০০০০০০০০১৯", "2200000000019", id="digits of Bengali"),
        pytest.param("]E0٢٢000000000\u200e١٩\r", "2200000000019", id="digits of two scripts, from a scanner"),
        pytest.param("9804000000000017", "9804000000000017", id="Luhn"),
        pytest.param("9805000000000000011", "9805000000000000011", id="Luhn, second prefix, longest"),
        pytest.param("770000000010", "770000000010", id="Verhoeff"),
        pytest.param("60000000013", "60000000013", id="ISO 7064 mod 11,10"),
        pytest.param("51234567", "51234567", id="no check digit"),
    ],
)
def test_our_card_is_read(typed: str, number: str) -> None:
    assert READER.card(typed) == NormalIdentifier(api.IDENTIFIER_KIND_CARD, number)


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        pytest.param("2200000000018", MISREAD, id="EAN-13 with another last digit"),
        pytest.param("2200000000109", MISREAD, id="two digits swapped"),
        pytest.param("220000000001", MISREAD, id="a digit lost"),
        pytest.param("9804000000000014", MISREAD, id="Luhn"),
        pytest.param("770000000016", MISREAD, id="Verhoeff"),
        pytest.param("60000000011", MISREAD, id="ISO 7064 mod 11,10"),
        pytest.param("4000000000000002", FOREIGN, id="a bank card"),
        pytest.param("2300000000018", FOREIGN, id="a neighbouring prefix"),
        pytest.param("ABCD12345678", FOREIGN, id="letters"),
        pytest.param("٤٠٠٠٠٠٠٠٠٠٠٠٠٠٠٢", FOREIGN, id="a bank card in Arabic digits"),
        pytest.param("٢٢٠٠٠٠٠٠٠٠٠١٨", MISREAD, id="another last digit in Arabic digits"),
        pytest.param("220000000001⑨", FOREIGN, id="a sign that is no decimal digit"),
        pytest.param("----", FOREIGN, id="no digits at all"),
    ],
)
def test_other_card_is_refused_with_what_to_do(typed: str, reason: api.RefusalReason) -> None:
    with pytest.raises(Refused) as refused:
        READER.card(typed, "member.card_numbers[2]")
    assert refused.value.reason == reason
    assert refused.value.violations[0][0] == "member.card_numbers[2]"
    assert refused.value.cashier_text.startswith("This is another shop's" if reason == FOREIGN else "Scan the card")
    assert typed not in refused.value.message, "messages are logged, so they hold no identifier"


@pytest.mark.parametrize(
    ("scheme", "card"),
    [
        pytest.param("ean13:00", "0022000000019", id="EAN-13"),
        pytest.param("luhn16-19:0", "0004000000000014", id="Luhn"),
        pytest.param("none8:007", "00712345", id="no check digit"),
    ],
)
def test_card_whose_zeros_a_spreadsheet_has_cut_is_told_from_a_foreign_one(scheme: str, card: str) -> None:
    reader = IdentifierReader.of_settings([scheme], "UA")
    assert reader.card(card).value == card
    with pytest.raises(Refused) as refused:
        reader.card(card.lstrip("0"))
    assert "its zeros in front are missing" in refused.value.violations[0][1]


@given(st.integers(0, 10**10 - 1), st.integers(0, 12), st.integers(1, 9))
def test_no_single_wrong_digit_of_an_ean_card_is_accepted(body: int, position: int, shift: int) -> None:
    digits = f"22{body:010d}"
    whole = next(f"{digits}{check}" for check in range(10) if _is_accepted(f"{digits}{check}"))
    wrong = whole[:position] + str((int(whole[position]) + shift) % 10) + whole[position + 1 :]
    assert not _is_accepted(wrong)


def _is_accepted(number: str) -> bool:
    try:
        READER.card(number)
    except Refused:
        return False
    return True


@pytest.mark.parametrize(
    "typed",
    [
        pytest.param("+380501234567", id="E.164"),
        pytest.param("050 123 45 67", id="national"),
        pytest.param("(050) 123-45-67", id="national with brackets"),
        pytest.param("0501234567", id="national, digits only"),
        pytest.param("00380501234567", id="international prefix"),
        pytest.param(" +380 (50) 123-45-67 ", id="international, spaced"),
        pytest.param("+380501234567\r\n", id="a scanner's line end"),
        pytest.param("+380\ufe0d501234567", id="a variation selector inside"),
        pytest.param("050\u200b123\u00ad45\u206067", id="what nobody sees inside"),
        pytest.param("\u202a+380 50 123-45-67\u202c", id="pasted from contacts, with its direction"),
    ],
)
def test_phone_has_one_form(typed: str) -> None:
    assert READER.phone(typed) == NormalIdentifier(api.IDENTIFIER_KIND_PHONE, "+380501234567")


def test_national_phones_are_read_as_of_the_region() -> None:
    assert IdentifierReader.of_settings(SCHEMES, "KZ").phone("8 701 234 5678").value == "+77012345678"


@pytest.mark.parametrize(
    "typed",
    [
        pytest.param("12345", id="too short"),
        pytest.param("+380001234567", id="no network has this code"),
        pytest.param("+999501234567", id="no country has this code"),
        pytest.param("050-FLOWERS", id="letters"),
        pytest.param("+380501234567;ext=5", id="an extension is not a person's phone"),
        pytest.param("----", id="nothing"),
    ],
)
def test_phone_that_cannot_exist_is_refused(typed: str) -> None:
    with pytest.raises(Refused) as refused:
        READER.phone(typed)
    assert refused.value.reason == api.REFUSAL_REASON_PHONE_INVALID
    assert refused.value.cashier_text
    assert typed not in refused.value.message


@pytest.mark.parametrize(
    ("identifier", "normal"),
    [
        pytest.param(
            api.Identifier(member_id="0192F0C4-5C1E-7CC3-98C4-DC0C0C07398F"),
            NormalIdentifier(api.IDENTIFIER_KIND_MEMBER_ID, "0192f0c4-5c1e-7cc3-98c4-dc0c0c07398f"),
            id="member id in capitals",
        ),
        pytest.param(
            api.Identifier(digital_token="wallet:AbC123"),
            NormalIdentifier(api.IDENTIFIER_KIND_DIGITAL_TOKEN, "wallet:AbC123"),
            id="token, case kept",
        ),
        pytest.param(
            api.Identifier(digital_token="]Q3wallet:AbC123\r"),
            NormalIdentifier(api.IDENTIFIER_KIND_DIGITAL_TOKEN, "wallet:AbC123"),
            id="token from a scanner that sends the kind and a line end",
        ),
        pytest.param(
            api.Identifier(member_id="0192f0c4-5c1e-7cc3-98c4-dc0c0c07398f\n"),
            NormalIdentifier(api.IDENTIFIER_KIND_MEMBER_ID, "0192f0c4-5c1e-7cc3-98c4-dc0c0c07398f"),
            id="member id with a line end",
        ),
        pytest.param(
            api.Identifier(phone="0501234567"),
            NormalIdentifier(api.IDENTIFIER_KIND_PHONE, "+380501234567"),
            id="phone",
        ),
    ],
)
def test_identifier_is_read_by_its_kind(identifier: api.Identifier, normal: NormalIdentifier) -> None:
    assert READER.read(identifier) == normal


MEMBER_ID = "0192f0c4-5c1e-7cc3-98c4-dc0c0c07398f"


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(MEMBER_ID.replace("7cc3", "7c\u200bc3"), id="zero-width space"),
        pytest.param(MEMBER_ID.replace("7cc3", "7c\u200dc3"), id="zero-width joiner"),
        pytest.param(MEMBER_ID.replace("-98c4", "\u00ad-98c4"), id="soft hyphen"),
        pytest.param(MEMBER_ID.replace("-98c4", "-\u00a098c4"), id="space that does not break"),
        pytest.param(MEMBER_ID.replace("0", "\uff10").replace("-", "\uff0d"), id="full width"),
        pytest.param(f"]d2]Q3{MEMBER_ID}\r\n", id="a prefix of two devices"),
        pytest.param(f"\x02]d2\x1d{MEMBER_ID}\x03", id="a prefix and its separator, framed"),
        pytest.param(f"\ufeff {MEMBER_ID.upper()}\u200f", id="pasted"),
        pytest.param("\u200b".join(MEMBER_ID), id="something unseen after every sign"),
        pytest.param("\u200b" * 12 + "]d2]Q3" + MEMBER_ID + "\u200b" * 26, id="as much as a call takes"),
    ],
)
def test_a_member_id_is_read_through_what_nobody_sees(read: str) -> None:
    """The limits of the call let through what the reader understands."""
    identifier = api.Identifier(member_id=read)
    check(identifier)
    assert READER.read(identifier).value == MEMBER_ID


@pytest.mark.parametrize(
    "read",
    [
        pytest.param("]d2\x1dwallet:AbC123", id="GS after the prefix"),
        pytest.param("]d2\x1cwallet:AbC123\x1e", id="FS after the prefix, RS at the end"),
        pytest.param("\x02]d2\x1f]Q3\x1dwallet:AbC123\x03", id="two prefixes, each with a separator"),
        pytest.param("]d2 wallet:AbC123", id="a space after the prefix"),
        pytest.param("\x1d]d2wallet:AbC123\x1d", id="GS around all"),
    ],
)
def test_what_frames_a_token_is_no_part_of_it(read: str) -> None:
    identifier = api.Identifier(digital_token=read)
    check(identifier)
    assert [form.value for form in READER.forms(identifier)] == ["wallet:AbC123"]


@pytest.mark.parametrize(
    ("identifier", "forms"),
    [
        (api.Identifier(digital_token="abcdef-12"), ["abcdef-12"]),
        (api.Identifier(digital_token="]C1abcdef-12"), ["abcdef-12", "]C1abcdef-12"]),
        (api.Identifier(digital_token="abcdef-12\n"), ["abcdef-12"]),
        (api.Identifier(phone="067 123 45 67"), ["+380671234567"]),
    ],
    ids=str,
)
def test_an_identifier_has_the_forms_under_which_it_may_be_kept(identifier: api.Identifier, forms: list[str]) -> None:
    assert [form.value for form in READER.forms(identifier)] == forms


@pytest.mark.parametrize(
    "identifier",
    [
        pytest.param(api.Identifier(), id="empty"),
        pytest.param(api.Identifier(member_id="not-a-uuid"), id="member id"),
        pytest.param(api.Identifier(member_id="+192f0c4-5c1e-7cc3-98c4-dc0c0c07398f"), id="member id with a sign"),
        pytest.param(api.Identifier(digital_token="short"), id="token too short"),
        pytest.param(
            api.Identifier(digital_token="sho\u200b\u200b\u200b\u200b\u200brt"), id="token of what nobody sees"
        ),
        pytest.param(api.Identifier(digital_token="with a space"), id="token with a space"),
        pytest.param(api.Identifier(digital_token="]d2with a space"), id="token with a space after a prefix"),
        pytest.param(api.Identifier(digital_token="]d2\x1dwallet\x1dAbC123"), id="token with GS inside"),
        pytest.param(api.Identifier(digital_token="wallet:AbC123 ]d2"), id="token before a prefix"),
        pytest.param(api.Identifier(member_id=""), id="member id of nothing"),
        pytest.param(api.Identifier(member_id="\u200b]Q3"), id="member id of nothing but what a scanner adds"),
    ],
)
def test_malformed_identifier_is_an_invalid_request(identifier: api.Identifier) -> None:
    with pytest.raises(Refused) as refused:
        READER.read(identifier)
    assert refused.value.reason == api.REFUSAL_REASON_INVALID_REQUEST
    assert refused.value.violations


@pytest.mark.parametrize(
    "typed", ["", "K-7", "30-1-1", MEMBER_ID[:-5], MEMBER_ID[:-1] + "O", f"]d2{MEMBER_ID[:-5]}seven"]
)
def test_what_is_plainly_no_member_id_is_told_with_all_else_that_is_wrong(typed: str) -> None:
    """The call's own limits refuse it, so whoever corrects a row learns of everything in it at once."""
    with pytest.raises(Refused) as refused:
        check(rights_pb2.CouponRow(code="", member=api.Identifier(member_id=typed)))
    assert [field for field, _ in refused.value.violations] == ["code", "member.member_id"]


@pytest.mark.parametrize(
    ("name", "masked"),
    [
        pytest.param("Olena Koval", "O*** K.", id="two names"),
        pytest.param("Olena", "O***", id="one"),
        pytest.param("  Åsa  von  Ek ", "Å*** v. E.", id="three, spaced"),
        pytest.param("Ї", "Ї***", id="one letter"),
        pytest.param("", "", id="unknown"),
    ],
)
def test_name_is_masked(name: str, masked: str) -> None:
    assert mask_name(name) == masked


def test_keyed_hash_tells_secrets_and_kinds_apart() -> None:
    card = NormalIdentifier(api.IDENTIFIER_KIND_CARD, "380501234567")
    token = NormalIdentifier(api.IDENTIFIER_KIND_DIGITAL_TOKEN, "380501234567")
    ours, theirs = KeyedHash(b"a" * 32), KeyedHash(b"b" * 32)
    hashes = {ours.of_identifier(card), ours.of_identifier(token), theirs.of_identifier(card)}
    assert len(hashes) == 3
    assert ours.of_identifier(card) == KeyedHash(b"a" * 32).of_identifier(card)


def test_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16 bytes"):
        KeyedHash(b"short")


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        pytest.param("ean13:2", CardScheme("ean13:2", ("2",), range(13, 14), CardCheck.EAN), id="one length"),
        pytest.param(
            "luhn16-19:9804,9805",
            CardScheme("luhn16-19:9804,9805", ("9804", "9805"), range(16, 20), CardCheck.LUHN),
            id="lengths and prefixes",
        ),
        pytest.param("none:", CardScheme("none:", ("",), range(4, 41), CardCheck.NONE), id="anything"),
        pytest.param(
            "iso7064_mod11_10/12:7",
            CardScheme("iso7064_mod11_10/12:7", ("7",), range(12, 13), CardCheck.ISO7064_MOD11_10),
            id="a check whose name ends in digits",
        ),
    ],
)
def test_card_scheme_is_parsed(text: str, scheme: CardScheme) -> None:
    assert parse_card_scheme(text) == scheme


@pytest.mark.parametrize("text", ["ean13", "crc32:1", "ean13:2a", "luhn19-16:1", "luhn3:1", "luhn99:1", "ean13:2,", ""])
def test_malformed_card_scheme_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="card scheme"):
        parse_card_scheme(text)


def test_unknown_region_is_refused() -> None:
    with pytest.raises(ValueError, match="ISO 3166"):
        IdentifierReader.of_settings(SCHEMES, "XX")
