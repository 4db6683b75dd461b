"""ProgrammeService: checking, publishing and showing programme files, and explaining what they gave."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import programme_pb2 as pb

from server.base.clock import Clock, utc_now
from server.base.errors import Refused
from server.checkout.explanations import explain
from server.edge.caller import Caller, Role
from server.promotions import ProgrammeError, load_programme
from server.rules.rollout import EVERYBODY, NOBODY, Mode, Rollout, ShareBy, in_force
from server.rules.shadow import Place, Sums, read_sums
from server.rules.stranding import Named, Stranded
from server.rules.versions import ProgrammeStore, ProgrammeVersion, text_of, version_in_effect

if TYPE_CHECKING:
    from server.base.database import Pool
    from server.rules.book import RulesBook

_ADMIN: Final = frozenset({Role.ADMIN})
_BACK_OFFICE: Final = frozenset({Role.ADMIN, Role.CRM, Role.FINANCE})

ALLOWED: Final[Mapping[str, frozenset[Role]]] = {
    "CheckProgramme": _BACK_OFFICE,
    "PublishProgramme": _ADMIN,
    "SetRollout": _ADMIN,
    "RollbackProgramme": _ADMIN,
    "ListProgrammeVersions": _BACK_OFFICE,
    "GetProgrammeVersion": _BACK_OFFICE,
    "GetShadowReport": _BACK_OFFICE,
    "ExplainReceipt": _BACK_OFFICE,
}


_MODES: Final = {Mode.LIVE: pb.ROLLOUT_MODE_LIVE, Mode.SHADOW: pb.ROLLOUT_MODE_SHADOW}
_SHARES: Final = {ShareBy.STORES: pb.ROLLOUT_BY_STORES, ShareBy.RECEIPTS: pb.ROLLOUT_BY_RECEIPTS}


class ProgrammeServicer:
    """Answers the calls of ProgrammeService."""

    def __init__(self, programmes: ProgrammeStore, pool: Pool, rules: RulesBook, clock: Clock = utc_now) -> None:
        """Take what keeps the versions, a pool to read from, and the compiled versions."""
        self._programmes = programmes
        self._pool = pool
        self._rules = rules
        self._clock = clock

    async def check_programme(self, request: pb.CheckProgrammeRequest, caller: Caller) -> pb.CheckProgrammeResponse:
        """Say what is wrong with a file, and what is probably not meant."""
        examined = await self._programmes.examine(_text(request), request.file_name, self._clock())
        has_lines = not request.HasField("document")
        return pb.CheckProgrammeResponse(
            problems=[_problem(error, has_lines=has_lines) for error in examined.errors],
            warnings=[_problem(warning, has_lines=has_lines) for warning in examined.warnings],
            strands=[_strand(one) for one in examined.losses.strands],
            losses=examined.losses.others,
        )

    async def publish_programme(
        self, request: pb.PublishProgrammeRequest, caller: Caller
    ) -> pb.PublishProgrammeResponse:
        """Store a file as the next version."""
        rollout = _rollout(request.rollout, caller) if request.HasField("rollout") else None
        text, now = _text(request), self._clock()
        version, is_new = await self._programmes.publish(
            text, request.file_name, now, rollout, _named_strands(request.strands)
        )
        loaded = await asyncio.to_thread(load_programme, text, request.file_name)
        warnings = (
            [] if isinstance(loaded, list) else await self._programmes.warnings(loaded, text, request.file_name, now)
        )
        return pb.PublishProgrammeResponse(
            version=await self._version_shown(version),
            unchanged=not is_new,
            warnings=[_problem(one, has_lines=not request.HasField("document")) for one in warnings],
        )

    async def set_rollout(self, request: pb.SetRolloutRequest, caller: Caller) -> pb.SetRolloutResponse:
        """Say for whom a version counts from now on."""
        rollout = _rollout(request.rollout, caller)
        named = _named_strands(request.strands)
        version = await self._programmes.set_rollout(request.version, rollout, self._clock(), named)
        return pb.SetRolloutResponse(version=await self._version_shown(version))

    async def rollback_programme(
        self, request: pb.RollbackProgrammeRequest, caller: Caller
    ) -> pb.RollbackProgrammeResponse:
        """Let the version before count again."""
        now = self._clock()
        plan = await self._programmes.roll_back(request.to_version or None, now, caller.name)
        versions = await self._list()
        return pb.RollbackProgrammeResponse(
            version=next(one for one in versions if one.version == plan.version),
            switched_off=plan.switch_off,
            due=[one for one in versions if one.effective_at.ToDatetime(now.tzinfo) > now],
        )

    async def list_programme_versions(
        self, request: pb.ListProgrammeVersionsRequest, caller: Caller
    ) -> pb.ListProgrammeVersionsResponse:
        """List the versions, newest first."""
        return pb.ListProgrammeVersionsResponse(versions=await self._list())

    async def get_programme_version(
        self, request: pb.GetProgrammeVersionRequest, caller: Caller
    ) -> pb.GetProgrammeVersionResponse:
        """Show a version with its text."""
        version, text = await self._programmes.get(request.version)
        rollouts = [_rollout_message(said) for said in version.rollouts]
        return pb.GetProgrammeVersionResponse(version=await self._version_shown(version), text=text, rollouts=rollouts)

    async def get_shadow_report(self, request: pb.GetShadowReportRequest, caller: Caller) -> pb.GetShadowReportResponse:
        """Show what a version would have changed as a shadow."""
        rows = await read_sums(self._pool, request.version)
        return pb.GetShadowReportResponse(rows=[_sums_message(place, sums) for place, sums in rows])

    async def explain_receipt(self, request: pb.ExplainReceiptRequest, caller: Caller) -> pb.ExplainReceiptResponse:
        """Say why a booked receipt gave what it gave."""
        return await explain(self._pool, self._rules, request)

    async def _list(self) -> list[pb.ProgrammeVersion]:
        now, versions = self._clock(), await self._programmes.list_versions()
        effective = version_in_effect(versions, now)
        return [_message(one, one.version == effective, in_force(one.rollouts, now)) for one in versions]

    async def _version_shown(self, version: ProgrammeVersion) -> pb.ProgrammeVersion:
        return next(one for one in await self._list() if one.version == version.version)


def _text(request: pb.CheckProgrammeRequest | pb.PublishProgrammeRequest) -> str:
    return text_of(request.document) if request.HasField("document") else request.text


def _strand(one: Stranded) -> pb.StrandedPoints:
    return pb.StrandedPoints(
        unit=one.unit, points_minor=one.points_minor, members=one.members, text=str(one), reason=one.reason
    )


def _named_strands(strands: Iterable[pb.StrandedPoints]) -> list[Named]:
    return [Named(one.unit, one.points_minor, one.members) for one in strands]


def _problem(error: ProgrammeError, *, has_lines: bool) -> pb.ProgrammeProblem:
    problem = pb.ProgrammeProblem(field=error.field, message=error.message, hint=error.hint)
    if has_lines:
        problem.line, problem.column = error.line, error.column
    return problem


def _rollout(message: pb.Rollout, caller: Caller) -> Rollout:
    """Return for whom a version is to count; Refused INVALID_REQUEST for a share of nothing in particular."""
    mode = Mode(message.mode or Mode.LIVE)
    is_partial = mode is Mode.LIVE and NOBODY < message.share_millionths < EVERYBODY
    if is_partial and not message.by:
        raise Refused(
            api.REFUSAL_REASON_INVALID_REQUEST,
            "a share is drawn from stores or from receipts: say which",
            violations=[("rollout.by", "is needed for a share between 0 and 1000000")],
        )
    by = ShareBy(message.by or ShareBy.STORES)
    return Rollout(mode, NOBODY if mode is Mode.SHADOW else message.share_millionths, by, None, caller.name)


def _rollout_message(rollout: Rollout) -> pb.Rollout:
    message = pb.Rollout(
        mode=_MODES[rollout.mode],
        share_millionths=rollout.share_millionths,
        by=_SHARES[rollout.share_by],
        set_by=rollout.set_by,
    )
    if rollout.from_at is not None:
        message.from_at.FromDatetime(rollout.from_at)
    return message


def _message(version: ProgrammeVersion, is_in_effect: bool, rollout: Rollout) -> pb.ProgrammeVersion:
    message = pb.ProgrammeVersion(
        code=version.code,
        version=version.version,
        text_sha256=version.text_sha256.hex(),
        semantics=version.semantics,
        rollout=_rollout_message(rollout),
        in_effect=is_in_effect,
    )
    message.effective_at.FromDatetime(version.effective_at)
    message.published_at.FromDatetime(version.published_at)
    return message


def _sums_message(place: Place, sums: Sums) -> pb.ShadowSums:
    return pb.ShadowSums(
        day=place.day.isoformat(),
        store_id=place.store_id,
        receipts=sums.receipts,
        differing=sums.differing,
        live_discount_minor=sums.live_discount_minor,
        shadow_discount_minor=sums.discount_minor,
        live_points_minor=sums.live_points_minor,
        shadow_points_minor=sums.points_minor,
        failed=sums.failed,
    )
