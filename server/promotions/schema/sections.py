"""The sections of a programme file: its settings, its promotions, and the file as a whole."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from server.promotions.effects import FurtherSections
from server.promotions.kinds import (
    Audience,
    Clawback,
    FloorRest,
    LimitScope,
    Measure,
    Period,
    Rounding,
    RoundingPer,
    TierMeasure,
)
from server.promotions.schema.conditions import WhenSection
from server.promotions.schema.effects import (
    BasketDiscountSection,
    GiftSection,
    LineDiscountSection,
    PendingDays,
    PointsSection,
    SetSection,
    StepsSection,
    TierPointsSection,
    UnitsSection,
)
from server.promotions.schema.goods import (
    DatesSection,
    ExpirySection,
    GoodsSection,
    ScopeSection,
    Section,
)
from server.promotions.schema.values import (
    LANGUAGE,
    MESSAGE,
    Code,
    Currency,
    Day,
    Label,
    Language,
    MessageWords,
    Number,
    Percent,
    Positive,
    Scalar,
    Text,
    Truth,
    Whole,
    decimals,
    shown,
    wholes,
    wrong,
)

MAX_PROMOTIONS = 20_000
MAX_CAMPAIGNS = 20_000
MAX_LIMITS = 20
MAX_LEVELS = 20
MAX_PARTNERS = 1000
MAX_UNITS = 20
MAX_LANGUAGES = 50
STAY_EXPIRED = "stay_expired"


class PointSection(Section):
    """The point: `pays` is what one point is worth in money."""

    unit: Label
    """Its name, as printed."""
    precision: Annotated[int, wholes(at_most=6)] = 2
    """Decimals of a point."""
    pays: Positive
    """What one point is worth when it pays."""


class FurtherUnitSection(Section):
    """A point of another kind with a balance of its own, such as gift or deposit points."""

    unit: Code
    """Its code, which `points: {unit: ...}` names."""
    name: Text
    """Its name, as printed."""
    precision: Annotated[int, wholes(at_most=6)] = 2
    """Decimals of a point."""
    pays: Positive
    """What one point is worth when it pays."""
    sold: Truth = False
    """Registers may sell it for money, as deposits or gift cards."""
    pending_days: PendingDays = 0
    """Sold points become available so many days later."""
    expiry: ExpirySection | None = None
    """When sold points expire; never, if left out."""


class EarningSection(Section):
    """What the programme grants on everything that is not excluded."""

    base_percent: Annotated[Decimal, decimals(at_most=1000)] = Decimal(0)
    """Granted on every line that is not excluded."""
    base_group: Code | None = None
    """Promotions of this group replace the base percent where they give more."""
    rounding: Rounding = Rounding.HALF_UP
    """To the point's precision, once for each promotion."""
    rounding_per: RoundingPer = RoundingPer.LINE
    """Whether that is once on each line, or once a receipt and then spread over its lines."""
    earn_on_points_paid: Truth = False
    """Whether the part of a line paid with points earns."""
    pending_days: PendingDays = 0
    """Points become available so many days later."""
    expiry: ExpirySection | None = None
    """When points expire; never, if left out."""


class SpendingSection(Section):
    """How points pay."""

    max_share_percent: Percent = Decimal(100)
    """The most of the payable goods that points may pay."""
    step_points: Positive | None = None
    """Points are spent in multiples of this; a step has to pay whole minor units."""
    keep_one_minor_unit: Truth = True
    """At least one minor unit of the receipt is paid in money."""
    respect_price_floor: Truth = True
    """Points don't take a line below its lowest permitted price."""
    hold_ttl_seconds: Annotated[int, wholes(at_least=10, at_most=3600)] = 600
    """How long points are kept for a checkout that does not say how long."""


class GraceSection(Section):
    """For how many days points are good that come back after they had lapsed."""

    grace_days: Annotated[int, wholes(at_least=1, at_most=366)]
    """So many days from the return."""


def _expired_lots(value: object) -> object:
    """Let the word `stay_expired` stand for no grace."""
    if value == STAY_EXPIRED:
        return None
    if isinstance(value, dict):
        return value
    raise wrong(f"{shown(value)} is neither {STAY_EXPIRED} nor {{grace_days: N}}")


class _WordOrSection:
    """Reads `stay_expired`, or a section."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 - pydantic's own signature
        return core_schema.no_info_before_validator_function(_expired_lots, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"const": STAY_EXPIRED}, handler(schema)]}


class ReturnsSection(Section):
    """What becomes of points when goods come back."""

    clawback: Clawback = Clawback.DEBT
    """From where points earned on the goods are taken back."""
    expired_lots: Annotated[GraceSection | None, _WordOrSection()] = Field(
        default=None, json_schema_extra={"default": STAY_EXPIRED}
    )
    """What becomes of points given back that have lapsed since they were spent."""


class ExclusionsSection(Section):
    """Three separate sets of goods."""

    no_earning: GoodsSection | None = None
    """Goods that earn nothing."""
    no_discount: GoodsSection | None = None
    """Goods that get no discount."""
    no_points_payment: GoodsSection | None = None
    """Goods that points don't pay."""


class OfflineSection(Section):
    """Receipts taken offline whose identifier is no longer what it was, a case each."""

    unknown_identifier: Literal["book_without_member", "refuse"] = "book_without_member"
    """Nobody has this identifier."""
    blocked_member: Literal["book_without_member", "book_for_member", "refuse"] = "book_without_member"
    """The member is blocked."""
    replaced_card: Literal["book_for_successor", "book_without_member", "refuse"] = "book_for_successor"
    """The card was replaced by another."""
    merged_member: Literal["book_for_successor", "book_without_member", "refuse"] = "book_for_successor"
    """The member was merged into another."""
    erased_member: Literal["book_without_member", "refuse"] = "book_without_member"
    """The member was erased."""


class LimitSection(Section):
    """At most so much, for whom, in which calendar period."""

    at_most: Number
    """So many uses, so much money, or so many points."""
    measure: Measure = Field(default=Measure.COUNT, alias="of")
    """Uses (units, deals or receipts), money taken off, or points granted."""
    scope: LimitScope = Field(alias="for")
    """A receipt, a member, a store, or everybody together."""
    each: Period | None = None
    """Anew in each such calendar period; ever, if left out."""


Limits = Annotated[list[LimitSection], Field(max_length=MAX_LIMITS)]
DEFAULT_LANGUAGE = ""
"""Stands for the programme's language in texts that name none."""


def _language(value: object) -> object:
    return value if value == DEFAULT_LANGUAGE else LANGUAGE.parse(value)


def _texts(value: object) -> object:
    """Let one text stand for the text in the programme's language."""
    if isinstance(value, dict):
        if DEFAULT_LANGUAGE in value:
            raise wrong("has a text without a language", "write its language tag before it, like `en: text`")
        return value
    return {DEFAULT_LANGUAGE: value}


class _TextOrTexts:
    """Reads one text, or a text for each language."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 - pydantic's own signature
        return core_schema.no_info_before_validator_function(_texts, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        languages = {"type": "object", "minProperties": 1, "propertyNames": {"pattern": LANGUAGE.shape["pattern"]}}
        return {"anyOf": [MESSAGE.shape, {**languages, "additionalProperties": MESSAGE.shape}]}


Texts = Annotated[
    dict[Annotated[str, Scalar(_language, LANGUAGE.shape)], MessageWords],
    Field(min_length=1, max_length=MAX_LANGUAGES),
    _TextOrTexts(),
]
Messages = dict[Audience, Texts]


class NearMissSection(Section):
    """Texts for a promotion that fails by little."""

    within_amount: Positive | None = None
    """At most so much money is missing."""
    within_quantity: Annotated[int, wholes(at_least=1, at_most=1000)] | None = None
    """At most so many pieces are missing."""
    messages: Annotated[Messages, Field(min_length=1)]
    """A text for each audience; {missing} and {missing_quantity} stand for what is missing."""


class _Promotion(Section):
    """What is promoted, to whom and when, and its discounts and points."""

    id: Code
    """Its code; it stands in every discount and every point that it gives."""
    name: Text
    """Its name for people."""
    scope: ScopeSection | None = None
    """The goods that it works on; all, if left out."""
    valid: DatesSection = DatesSection()
    """First and last day."""
    when: WhenSection | None = None
    """Conditions."""
    line_discount: LineDiscountSection | None = None
    """A discount on each line by itself."""
    basket_discount: BasketDiscountSection | None = None
    """A discount on all goods in scope together."""
    units: UnitsSection | None = None
    """Of every so many units, some are cheaper."""
    together: SetSection | None = Field(default=None, alias="set")
    """Goods that are cheaper together."""
    gift: GiftSection | None = None
    """Goods that are free for whoever meets the condition."""
    steps: StepsSection | None = None
    """A discount that grows with what the goods in scope come to."""
    points: PointsSection | None = None
    """Points."""
    tier_points: TierPointsSection | None = None
    """Points that count towards levels only."""


class _Together(Section):
    """How one promotion gets along with others, and what is told of it."""

    priority: Whole = 100
    """Within a step, the smaller comes first."""
    group: Code | None = None
    """Of a group, the one applies that gives the shopper most."""
    exclusive: Truth = False
    """Applies alone, or not at all."""
    floor_rest: FloorRest | None = None
    """What a lowest permitted price cuts off a discount over several lines goes to the others, or is lost."""
    limits: Limits = Field(default_factory=list)
    """At most so much."""
    campaign: Code | None = None
    """The campaign whose limits and control group it shares."""
    control_percent: Percent = Decimal(0)
    """The share of members who don't get it, for comparison."""
    messages: Messages = Field(default_factory=dict)
    """A text for each audience, given when the promotion had an effect."""
    near_miss: NearMissSection | None = None
    """Texts for when it fails by little."""


class PromotionSection(_Together, FurtherSections, _Promotion):  # fields of the last base come first
    """One promotion: goods, dates, conditions, effects, and how it gets along with others."""


class CampaignSection(Section):
    """Promotions that share limits, and perhaps a control group."""

    id: Code
    """Its code, which promotions name."""
    name: Text
    """Its name for people."""
    limits: Limits = Field(default_factory=list)
    """At most so much for all its promotions together."""
    control_percent: Percent = Decimal(0)
    """The share of members who get none of its promotions, for comparison."""


class PartnerSection(Section):
    """A coalition partner, who grants points in its own stores at its own expense."""

    code: Code
    """Its code, which stores and promotions name."""
    name: Text
    """Its name for people."""
    base_percent: Annotated[Decimal, decimals(at_most=1000)] | None = None
    """The base percent in its stores; none if left out."""
    accepts_points: Truth = True
    """Whether points pay in its stores."""


class WindowSection(Section):
    """The time that counts towards a level: a calendar period, or the last months."""

    each: Period | None = None
    """The current calendar period."""
    months: Annotated[int, wholes(at_least=1, at_most=12)] | None = None
    """The current calendar month and those before it, so many in all."""


class KeptSection(Section):
    """For how long a level is certain once it was reached."""

    until_end_of: Period | None = None
    """To the end of this calendar period; of the window's own if left out."""
    periods_later: Annotated[int, wholes(at_most=10)] = 0
    """So many periods later: 1 with `year` is the end of next year."""


class LevelSection(Section):
    """A level."""

    code: Code
    """Its code, which conditions name."""
    name: Text
    """Its name, as printed."""
    at_least: Number
    """From so much on; 0 means that everybody has it."""


class TiersSection(Section):
    """Levels, reached by what a member spends, how often they come, or tier points."""

    by: TierMeasure
    """Money paid, receipts, or tier points."""
    window: WindowSection = WindowSection()
    """The time that counts; 12 months if left out."""
    kept: KeptSection = KeptSection()
    """For how long a level is certain."""
    levels: Annotated[list[LevelSection], Field(min_length=1, max_length=MAX_LEVELS)]
    """The levels, lowest first."""


class ProgrammeSection(Section):
    """A loyalty programme: what a point is, how points are earned and spent, and the promotions."""

    programme: Code
    """The programme's code."""
    name: Text
    """Its name."""
    effective_from: Day
    """The day from which this version counts."""
    currency: Currency
    """ISO 4217 code of the currency of all amounts."""
    language: Language | None = None
    """The language of texts that name none."""
    point: PointSection
    """The programme's own point."""
    units: Annotated[list[FurtherUnitSection], Field(default_factory=list, max_length=MAX_UNITS)]
    """Points of other kinds."""
    earning: EarningSection = EarningSection()
    """What the programme grants by itself."""
    spending: SpendingSection = SpendingSection()
    """How points pay."""
    returns: ReturnsSection = ReturnsSection()
    """What becomes of points when goods come back."""
    exclusions: ExclusionsSection = ExclusionsSection()
    """Goods that earn nothing, get no discount, or are not paid with points."""
    offline: OfflineSection = OfflineSection()
    """Receipts taken offline."""
    tiers: TiersSection | None = None
    """Levels of members."""
    partners: Annotated[list[PartnerSection], Field(default_factory=list, max_length=MAX_PARTNERS)]
    """Coalition partners."""
    cash_rounding: Positive | None = None
    """The step to which registers round what is paid in cash; so much may be missing in cash without a word."""
    control_percent: Percent = Decimal(0)
    """The share of members who get no promotion at all, for comparison; the base percent they get."""
    campaigns: Annotated[list[CampaignSection], Field(default_factory=list, max_length=MAX_CAMPAIGNS)]
    """Campaigns: promotions that share limits."""
    promotions: Annotated[list[PromotionSection], Field(default_factory=list, max_length=MAX_PROMOTIONS)]
    """The promotions."""
