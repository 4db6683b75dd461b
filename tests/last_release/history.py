"""What happens in the fixture: three months of a shop, with every kind of entry and all that release 0.4 gets wrong.

Names of receipts say what they are for; tests look them up by these names.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from tallypoint.v1 import checkout_pb2, common_pb2, correction_pb2, member_pb2, programme_pb2, rights_pb2

from tests.last_release.shop import Shop, Sold, card, line, named_id

FIRST_MORNING: Final = datetime(2026, 9, 2, 8, tzinfo=UTC)
LAST_EVENING: Final = datetime(2026, 11, 28, 18, tzinfo=UTC)
PROGRAMME: Final = (Path(__file__).parent / "programmes" / "1.yaml").read_text(encoding="utf-8")
CARDS: Final = {
    name: card(number)
    for name, number in {
        "anna": "2000000000015",
        "borys": "2000000000022",
        "cyril": "2000000000039",
        "dana": "2000000000046",
        "dana again": "2000000000053",
        "eva": "2000000000060",
        "eva anew": "2000000000077",
        "fedir": "2000000000084",
        "hanna": "2000000000091",
        "ihor": "2000000000107",
        "spender": "2000000000114",
        "walker": "2000000000121",
    }.items()
}
SALES: Final[dict[str, Sold | None]] = {}
"""What was sold, by the name of the receipt; a refused one is None."""

ODD_CODES: Final = ("\uff4f\uff44\uff44\uff13", "odd-e\u0301", "odd\u2013five")
"""Codes of coupons as word processors spoil them; this release takes them as they are."""

TILL_READS_PROGRAMMES_SECONDS: Final = 2.5


def happen(shop: Shop, run: Callable[..., object]) -> None:
    """Let it all happen; `run` runs a command of the release, such as a close."""
    _open(shop)
    _prices(shop)
    _september(shop)
    _rights(shop)
    _points(shop)
    run("finance", "point-value", "set", "--value=1.00", "--breakage=12.5%", "--from-month=2026-09")
    _october(shop)
    _returns_in_october(shop)
    run("finance", "close", "month", "2026-09", "--yes")
    _overspending(shop)
    _people(shop)
    _offline(shop)
    _reconciliation(run)
    _to(shop, 11, 2)
    run("finance", "close", "month", "2026-10", "--yes")
    _november(shop)
    _to(shop, 11, 23)
    run("finance", "point-value", "set", "--value=0.90", "--breakage=10%", "--from-month=2026-11")
    run("finance", "close", "day", "2026-11-20", "--yes")
    _last_evening(shop)


def sell(shop: Shop, name: str, who: str, *lines: dict[str, Any], **more: Any) -> Sold | None:
    """Sell to a member, or with an empty name to nobody."""
    SALES[name] = shop.sell(name, CARDS[who] if who else None, *lines, **more)
    return SALES[name]


def _publish(shop: Shop, *changes: tuple[str, str], rollout: programme_pb2.Rollout | None = None) -> None:
    """Publish the programme with some of its text changed, and wait until tills have read it."""
    text = PROGRAMME
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    shop.publish(text, rollout)
    time.sleep(TILL_READS_PROGRAMMES_SECONDS)


def _to(shop: Shop, month: int, day: int, hour: int = 10) -> None:
    shop.clock.set(datetime(2026, month, day, hour, tzinfo=UTC))


def _open(shop: Shop) -> None:
    """Stores, goods, people, and the first version of the programme."""
    for store, group in (("kyiv-1", "city"), ("kyiv-2", "city"), ("choc-1", "village")):
        shop.open_store(store, [group])
    shop.open_store("fuel-1", partner="fuel")
    goods = {
        "b1": "cases", "b2": "cases", "b6": "cases", "choc": "sweets", "cap": "capped", "shirt": "floors",
        "mug": "floors", "brie": "dairy/cheese", "milk": "dairy/milk", "bread": "bakery", "bun": "bakery",
        "coffee": "grocery/coffee", "tea": "grocery/tea", "cup": "home", "wood": "diy", "tv": "home", "apple": "fruit",
        "perch": "fish", "oil": "car", "beef": "meat", "club": "services", "cp": "home", "cake": "cakes",
        "giftcard": "gift-cards", "soap": "home",
    }  # fmt: skip
    shop.put_products(goods, smoke=("tobacco", "tobacco"))
    shop.enrol("anna", card_numbers=["2000000000015", "2000 0000-0014 5"], phone="067 123 45 01", birthday="1990-09-05")
    shop.enrol("borys", card_numbers=["2000000000022"], digital_token="TOKEN-Borys~1", language="en")
    shop.enrol("cyril", card_numbers=["2000000000039"], birthday="0001-01-01", phone="+380671234503")
    shop.enrol("dana", card_numbers=["2000000000046"], phone="+380671234504")
    shop.enrol("dana again", card_numbers=["2000000000053"], phone="0671234505")
    shop.enrol("eva", card_numbers=["2000000000060"], birthday="1900-01-01")
    shop.enrol("fedir", card_numbers=["2000000000084"], status=common_pb2.MEMBER_STATUS_EARN_ONLY)
    shop.enrol("hanna", card_numbers=["2000000000091"], full_name="Ганна\u200b Шум\u00ad")
    shop.enrol("ihor", card_numbers=["2000000000107"])
    shop.enrol("spender", card_numbers=["2000000000114"])
    shop.enrol("odd token", digital_token="]C1odd-token-")
    shop.enrol("walker", card_numbers=["2000000000121"])
    _publish(shop)


def _prices(shop: Shop) -> None:
    """Each price that this release gets wrong, on one line and, where it matters, on several."""
    sell(shop, "one unit of five", "borys", line("b1", 1000, 5))
    sell(shop, "third free and a card price", "borys", line("b2", 3000, 3))
    sell(shop, "third free and a card price, apart", "", *[line("b2", 1000)] * 3)
    sell(shop, "two deals", "borys", line("b6", 5000, 5))
    sell(shop, "two deals, apart", "", *[line("b6", 1000)] * 5)
    sell(shop, "own threshold", "borys", line("bread", 45000), line("choc", 5000), store="choc-1")
    sell(shop, "capped basket", "borys", line("cap", 12000), line("cap", 23000), line("cap", 30000))
    floor = line("shirt", 5000, floor_amount_minor=4500)
    sell(shop, "floor cuts an amount", "borys", floor, line("mug", 2000))
    sell(shop, "part of a piece", "borys", line("b2", 3500, 3.5), line("bread", 1234, 1.234, weighed=True))


def _september(shop: Shop) -> None:
    """Ordinary trade."""
    sell(shop, "cheese", "anna", line("brie", 12345, 0.617, weighed=True), line("soap", 3300, 3))
    sell(shop, "basket of 500", "anna", line("bread", 20000, 4), line("coffee", 31000), line("smoke", 9900))
    sell(shop, "breakfast", "borys", line("bread", 2500), line("coffee", 9000), line("tea", 4000, 2), line("cup", 1500))
    sell(shop, "steps", "borys", line("wood", 25000, 5))
    sell(shop, "twenty for 0.49", "walker", line("soap", 980, 20))
    sell(shop, "twenty for 0.49, apart", "walker", *[line("soap", 49)] * 20)
    sell(shop, "by nobody", "", line("bread", 2500), line("apple", 700, 0.35, weighed=True))
    sell(shop, "of an unknown article", "walker", line("no-such", 700))
    changed = shop.receipt(line("brie", 10000), line("bread", 2000))
    changed.lines[1].discount_minor = 500
    _raw(shop, "with a discount of the register's own", "walker", changed)
    sell(shop, "fruit", "anna", line("apple", 30000, 2.1, weighed=True), line("beef", 15000))
    _to(shop, 9, 5)
    sell(shop, "birthday", "anna", line("soap", 10000))
    sell(shop, "milk, twice", "borys", line("milk", 4000, 2))
    sell(shop, "milk, beyond the limit", "borys", line("milk", 6000, 3))
    sell(shop, "budget", "borys", line("bun", 60000, 10))
    sell(shop, "budget is spent", "walker", line("bun", 60000, 10))
    sell(shop, "fish counts", "borys", line("perch", 50000))
    sell(shop, "gold", "borys", line("tv", 500000))
    _to(shop, 9, 14)
    sell(shop, "oil", "walker", line("oil", 20000))
    sell(shop, "at the fuel station", "walker", line("soap", 20000), store="fuel-1")
    sell(shop, "club card", "walker", line("club", 20000))
    sell(shop, "club price", "walker", line("cp", 10000))
    sell(shop, "gift card", "walker", line("giftcard", 50000), deposits=_units("deposit", 50000))
    sell(shop, "paid by gift card", "walker", line("soap", 30000), spend_units=_units("deposit", 30000))
    sell(shop, "gift card, unspent", "ihor", line("giftcard", 10000), deposits=_units("deposit", 10000))
    sell(shop, "paid by gift points", "anna", line("soap", 10000), spend_units=_units("gift", 30))


def _rights(shop: Shop) -> None:
    """Coupons of all kinds, offers, and segments."""
    _to(shop, 9, 16)
    row = rights_pb2.CouponRow
    shop.coupons("sorry", row(code="s-ß1 x", member=CARDS["anna"]), row(code="SORRY-2", member=CARDS["walker"]))
    shop.coupons("cakes", row(code="cake 1", uses=3), row(code="CAKE2", valid_until="2026-12-31"))
    shop.coupons("cakes", *[row(code=code, uses=5) for code in ODD_CODES])
    offers = [rights_pb2.OfferAssignment(promotion_id="your-coffee", member=CARDS["anna"], valid_until="2026-12-31")]
    shop.rights.PutOffers(rights_pb2.PutOffersRequest(offers=offers), metadata=shop.admin)
    friends = rights_pb2.PutSegmentRequest(
        segment="friends",
        action=rights_pb2.SEGMENT_ACTION_ADD,
        members=[CARDS[name] for name in ("anna", "borys", "walker", "spender", "dana")],
    )
    shop.rights.PutSegment(friends, metadata=shop.admin)
    time.sleep(TILL_READS_PROGRAMMES_SECONDS)
    sell(shop, "offer", "anna", line("coffee", 9000))
    for name in ("anna", "borys", "walker", "spender", "dana"):
        sell(shop, f"friend {name}", name, line("tv", 40000))
    sell(shop, "sorry", "anna", line("soap", 12000), coupons=["S-ß1X"])
    sell(shop, "leaflet", "walker", line("soap", 20000), coupons=["welcome"])
    sell(shop, "leaflet, again", "walker", line("soap", 20000), coupons=["WELCOME"])
    sell(shop, "leaflet of anna", "anna", line("soap", 20000), coupons=["WELCOME"])
    sell(shop, "cake", "", line("cake", 6000), coupons=["CAKE1"])
    for code in ODD_CODES:
        sell(shop, f"with the code {code!a}", "", line("cake", 6000), coupons=[code])
    sell(shop, "issues coupons", "walker", line("beef", 20000))
    issued = SALES["issues coupons"]
    assert issued is not None
    first, second = [coupon.code for coupon in issued.answer.issued_coupons]
    _to(shop, 9, 20)
    sell(shop, "uses an issued coupon", "walker", line("soap", 10000), coupons=[first])
    shop.hold("keeps a coupon", CARDS["walker"], 0, line("soap", 10000), coupon_codes=[second], ttl_seconds=3600)
    sell(shop, "of a coupon that another lane keeps", "walker", line("soap", 9000), store="kyiv-2", coupons=[second])
    shop.cancel("keeps a coupon")
    shop.rights.BlockCoupons(rights_pb2.BlockCouponsRequest(codes=["CAKE2"]), metadata=shop.admin)


def _points(shop: Shop) -> None:
    """Points by hand, spending, and holds that end in every way."""
    _to(shop, 9, 22)
    for name in ("anna", "borys"):
        shop.adjust(f"many points for {name}", name, 40000, expires_on="2027-08-31")
    shop.adjust("many points for spender, approved", "spender", 90000, expires_on="2027-08-31")
    approval = correction_pb2.ApproveAdjustmentRequest(request_id=named_id("many points for spender, approved"))
    shop.corrections.ApproveAdjustment(approval, metadata=shop.finance)
    shop.adjust("wrong points of borys", "borys", -1500, "complaint")
    shop.adjust("much, waits for approval", "dana", 90_000_000)
    shop.adjust("much, rejected", "dana", 91_000_000)
    rejection = correction_pb2.RejectAdjustmentRequest(request_id=named_id("much, rejected"), note="too much")
    shop.corrections.RejectAdjustment(rejection, metadata=shop.admin)
    sell(shop, "spent", "anna", line("soap", 20000, 2), line("bread", 5000), spend=7500)
    shop.hold("captured", CARDS["anna"], 3000, line("soap", 8000))
    sell(shop, "captures in part", "anna", line("soap", 8000), spend=2000, checkout_id=named_id("captured")[:8])
    shop.hold("replaced", CARDS["anna"], 1000, line("soap", 8000))
    shop.hold("replaced", CARDS["anna"], 1200, line("soap", 9000), takeover_reason="")
    shop.cancel("replaced")
    shop.hold("taken over", CARDS["borys"], 1000, line("soap", 8000))
    shop.hold("takes over", CARDS["borys"], 900, line("soap", 8000), store="kyiv-2", takeover_reason="lane is down")
    shop.cancel("takes over", store="kyiv-2")
    shop.hold("lapses", CARDS["borys"], 800, line("soap", 8000), ttl_seconds=60)
    sell(shop, "asks more than there is", "ihor", line("soap", 10000), spend=5000)
    sell(shop, "earn only", "fedir", line("soap", 10000), spend=100)
    move = correction_pb2.TransferPointsRequest(
        request_id=named_id("moves"),
        from_member_id=named_id("borys"),
        to_member_id=named_id("dana"),
        points_minor=2500,
        reason_code="family",
    )
    shop.corrections.TransferPoints(move, metadata=shop.admin)


def _october(shop: Shop) -> None:
    """A second version that lets points pay a fifth, a shadow, a share, and ordinary trade under them."""
    _to(shop, 9, 28)
    share = ("spending: {max_share_percent: 100", "spending: {max_share_percent: 20")
    october = ("effective_from: 2026-08-01", "effective_from: 2026-10-01")
    _publish(shop, share, october)
    shadow = programme_pb2.Rollout(mode=programme_pb2.ROLLOUT_MODE_SHADOW)
    _publish(shop, share, october, ("base_percent: 1\n", "base_percent: 2\n"), rollout=shadow)
    part = programme_pb2.Rollout(
        mode=programme_pb2.ROLLOUT_MODE_LIVE, share_millionths=500_000, by=programme_pb2.ROLLOUT_BY_STORES
    )
    _publish(shop, share, october, ("base_percent: 1\n", "base_percent: 3\n"), rollout=part)
    _to(shop, 10, 3)
    for store in ("kyiv-1", "kyiv-2", "choc-1"):
        sell(shop, f"october in {store}", "anna", line("soap", 10000, 4), line("brie", 8000), store=store)
        sell(shop, f"october of nobody in {store}", "", line("brie", 8000), store=store)
    sell(shop, "spent a fifth", "anna", line("soap", 10000), spend=2000)


def _returns_in_october(shop: Shop) -> None:
    """Returns of all kinds, those that this release gets wrong among them."""
    _to(shop, 10, 4)
    shop.take_back("back: a part of the basket", SALES["basket of 500"], (1, 2))
    shop.take_back("back: the rest of the basket", SALES["basket of 500"])
    shop.take_back("back: too much of the basket", SALES["basket of 500"], (1, 1))
    shop.take_back("back: by weight", SALES["cheese"], (1, 0.2), (2, 1))
    shop.take_back("back: two of five in two deals", SALES["two deals"], (1, 2))
    shop.take_back("back: one of the third free", SALES["third free and a card price"], (1, 1))
    shop.take_back("back: of nobody", SALES["by nobody"], (1, 1), store="kyiv-2")
    shop.take_back("back: spent", SALES["spent"], (1, 1))
    shop.take_back("back: asked more than there was", SALES["asks more than there is"])
    shop.take_back("back: tier points are kept", SALES["fish counts"])
    shop.take_back("back: club card", SALES["club card"])
    sell(shop, "club price after the card came back", "walker", line("cp", 10000))
    shop.take_back("back: gift card, spent", SALES["gift card"])
    shop.take_back("back: gift card, unspent", SALES["gift card, unspent"], (1, 1))
    shop.take_back("back: coupon of a limit", SALES["leaflet"])
    sell(shop, "leaflet after it came back", "walker", line("soap", 20000), coupons=["WELCOME"])
    shop.take_back("back: below the coupon's threshold", SALES["issues coupons"], (1, 1))
    shop.take_back("back: fruit with draw entries", SALES["fruit"], (1, 1.1))
    shop.take_back("back: personal coupon", SALES["sorry"])
    shop.take_back("back: of an issued coupon's receipt", SALES["uses an issued coupon"])


def _overspending(shop: Shop) -> None:
    """Receipts that spend more than their goods and the rules allow, and what comes back of them."""
    _to(shop, 10, 6)
    raw = shop.receipt
    _raw(shop, "overspent", "spender", raw(line("soap", 1000)), spend=10000)
    _raw(shop, "overspent and kept", "borys", raw(line("soap", 1000)), spend=3000)
    _raw(shop, "overspent on excluded goods", "spender", raw(line("soap", 1000), line("smoke", 9000)), spend=5000)
    _raw(shop, "overspent in part", "spender", raw(line("soap", 10000, 4)), spend=4000)
    shop.hold("overspends", CARDS["spender"], 400, line("soap", 2000))
    more = {"checkout_id": named_id("overspends")[:8]}
    _raw(shop, "overspent with a hold", "spender", raw(line("soap", 500)), spend=400, **more)
    _raw(shop, "overspent gift points", "anna", raw(line("soap", 500)), spend_units=_units("gift", 70))
    shop.take_back("back: overspent", SALES["overspent"])
    shop.take_back("back: overspent on excluded goods", SALES["overspent on excluded goods"], (1, 1))
    shop.take_back("back: overspent in part, one of four", SALES["overspent in part"], (1, 1))
    shop.take_back("back: overspent in part, two more", SALES["overspent in part"], (1, 2))
    shop.take_back("back: overspent gift points", SALES["overspent gift points"])


def _people(shop: Shop) -> None:
    """Members who are merged, blocked and given other cards."""
    _to(shop, 10, 20)
    sell(shop, "of dana, who is merged", "dana again", line("soap", 20000))
    merge = correction_pb2.MergeMembersRequest(
        request_id=named_id("merge"), duplicate_id=named_id("dana again"), survivor_id=named_id("dana"), reason="twice"
    )
    shop.corrections.MergeMembers(merge, metadata=shop.admin)
    sell(shop, "of the merged card", "dana again", line("soap", 5000))
    sell(shop, "of eva's old card", "eva", line("soap", 5000))
    replace = member_pb2.ReplaceCardRequest(
        message_id=named_id("replace"),
        member_id=named_id("eva"),
        old_card_number="2000000000060",
        new_card_number="2000000000077",
    )
    shop.members.ReplaceCard(replace, metadata=shop.admin)
    sell(shop, "of eva's new card", "eva anew", line("soap", 5000))
    sell(shop, "of hanna", "hanna", line("soap", 5000))
    block = member_pb2.SetMemberStatusRequest(
        message_id=named_id("block"),
        member_id=named_id("hanna"),
        status=common_pb2.MEMBER_STATUS_BLOCKED,
        reason="fraud",
    )
    shop.members.SetMemberStatus(block, metadata=shop.admin)
    shop.take_back("back: of a merged member", SALES["of dana, who is merged"], (1, 1))


def _offline(shop: Shop) -> None:
    """Journals that arrive late: for cards that no longer count, from far-off days, and twice."""
    _to(shop, 10, 28)
    september, far = datetime(2026, 9, 29, 9, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)
    late = [
        _commit(shop, "late, of september", "anna", shop.receipt(line("brie", 8000), event_at=september), "2026-09-29"),
        _commit(shop, "late, spends", "anna", shop.receipt(line("soap", 8000), event_at=september), spend=9000),
        _commit(shop, "late, of a blocked member", "hanna", shop.receipt(line("soap", 8000), event_at=september)),
        _commit(shop, "late, of a replaced card", "eva", shop.receipt(line("soap", 8000), event_at=september)),
        _commit(shop, "late, of a merged card", "dana again", shop.receipt(line("soap", 8000), event_at=september)),
        _commit(shop, "from 2099", "walker", shop.receipt(line("soap", 700), event_at=far)),
        _commit(shop, "of the last day", "walker", shop.receipt(line("soap", 700)), "9999-12-31"),
        _commit(shop, "of the first day", "walker", shop.receipt(line("soap", 700)), "0001-01-01"),
        _commit(shop, "from 1970", "", shop.receipt(line("soap", 700), event_at=datetime(1970, 1, 2, tzinfo=UTC))),
    ]
    shop.batch("a journal", "kyiv-1", late)
    shop.batch("the journal again", "kyiv-1", late[:3])
    empty = shop.receipt(line("soap", 0, 0))
    _raw(shop, "of nothing", "walker", empty)
    tendered = shop.receipt(line("soap", 30000))
    tendered.tenders.add(kind=common_pb2.TENDER_KIND_POINTS, amount_minor=10000)
    tendered.tenders.add(kind=common_pb2.TENDER_KIND_CASH, amount_minor=50000)
    _raw(shop, "whose tenders contradict", "walker", tendered)


def _reconciliation(run: Callable[..., object]) -> None:
    """Z reports, of which one fits, one does not, and one is of a mistyped year."""
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        file.write("store,terminal,business_date,receipts,first_number,last_number,turnover\n")
        file.write("kyiv-2,t1,2026-10-03,2,63,64,640.00\nkyiv-1,t1,2026-09-05,9,20,28,100.00\n")
        file.write("kyiv-1,t1,2027-11-06,1,1,1,100.00\n")
        file.flush()
        run("reconcile", "load", file.name)
    run("reconcile", "run", "2026-09-01", "2026-10-27")


def _november(shop: Shop) -> None:
    """Points lapse, goods come back after that, and a third version takes other points back."""
    _to(shop, 11, 14)
    sell(shop, "after september's points lapsed", "walker", line("soap", 40000))
    shop.take_back("back: whose points have lapsed", SALES["oil"])
    own = ("returns: {clawback: debt}", "returns: {clawback: own_lot_only, expired_lots: {grace_days: 30}}")
    _publish(shop, own, ("effective_from: 2026-08-01", "effective_from: 2026-11-16"))
    _publish(shop, own, ("effective_from: 2026-08-01", "effective_from: 2027-01-01"))
    _to(shop, 11, 17)
    shop.take_back("back: under other settings", SALES["october in kyiv-1"], (1, 2))
    token = common_pb2.Identifier(digital_token="]C1odd-token-")
    SALES["by an odd token"] = shop.sell("by an odd token", token, line("soap", 5000))
    for index in range(4):
        sell(shop, f"november {index}", "anna", line("soap", 4000 + index * 777), line("milk", 4000, 2))
    sell(shop, "spent in november", "anna", line("soap", 6000), line("brie", 4000), spend=1500)
    paper = shop.key("kyiv-1")
    shop.take_back("back: an exchange's number", SALES["november 1"], (1, 1), receipt_key=paper)
    sell(shop, "an exchange's number, refused", "anna", line("soap", 5000), receipt_key=paper)


def _last_evening(shop: Shop) -> None:
    """What is still open when the release changes."""
    shop.clock.set(LAST_EVENING - timedelta(minutes=5))
    shop.hold("left open", CARDS["anna"], 300, line("soap", 6000), ttl_seconds=3600)
    shop.hold("left open, too large for the receipt", CARDS["borys"], 1000, line("soap", 6000), ttl_seconds=3600)
    cake = [line("cake", 6000), line("soap", 8000)]
    shop.hold("left open with a coupon", CARDS["walker"], 0, *cake, coupon_codes=["CAKE1"], ttl_seconds=3600)
    sell(shop, "last", "anna", line("soap", 3000, 3), line("brie", 5000))
    shop.take_back("back: on the last evening", SALES["spent in november"], (2, 1))


def _units(unit: str, points_minor: int) -> list[common_pb2.UnitPoints]:
    return [common_pb2.UnitPoints(unit=unit, points_minor=points_minor)]


def _commit(
    shop: Shop, name: str, who: str, receipt: common_pb2.Receipt, business_date: str = "", **more: Any
) -> checkout_pb2.CommitRequest:
    """Return a receipt that was never quoted."""
    return checkout_pb2.CommitRequest(
        message_id=named_id(f"commit {name}"),
        receipt_key=shop.key("kyiv-1", business_date),
        identifier=CARDS[who] if who else None,
        receipt=receipt,
        spend_points_minor=more.pop("spend", 0),
        **more,
    )


def _raw(shop: Shop, name: str, who: str, receipt: common_pb2.Receipt, **more: Any) -> None:
    """Commit a receipt that was never quoted."""
    SALES[name] = shop.commit(name, _commit(shop, name, who, receipt, **more))
