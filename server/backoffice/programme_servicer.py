"""ProgrammeService: checking, publishing and showing programme files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tallypoint.v1 import programme_pb2

from server.clock import Clock, utc_now
from server.edge import Caller, Role
from server.rules import ProgrammeStore, ProgrammeVersion

_ADMIN: Final = frozenset({Role.ADMIN})
_BACK_OFFICE: Final = frozenset({Role.ADMIN, Role.CRM, Role.FINANCE})

ALLOWED: Final[Mapping[str, frozenset[Role]]] = {
    "CheckProgramme": _BACK_OFFICE,
    "PublishProgramme": _ADMIN,
    "ListProgrammeVersions": _BACK_OFFICE,
    "GetProgrammeVersion": _BACK_OFFICE,
}


class ProgrammeServicer:
    """Answers the calls of ProgrammeService."""

    def __init__(self, programmes: ProgrammeStore, clock: Clock = utc_now) -> None:
        """Take what keeps the versions."""
        self._programmes = programmes
        self._clock = clock

    async def check_programme(
        self, request: programme_pb2.CheckProgrammeRequest, caller: Caller
    ) -> programme_pb2.CheckProgrammeResponse:
        """Say what is wrong with a file."""
        errors = await self._programmes.check(request.text, request.file_name)
        return programme_pb2.CheckProgrammeResponse(
            problems=[
                programme_pb2.ProgrammeProblem(
                    line=error.line, column=error.column, field=error.field, message=error.message, hint=error.hint
                )
                for error in errors
            ]
        )

    async def publish_programme(
        self, request: programme_pb2.PublishProgrammeRequest, caller: Caller
    ) -> programme_pb2.PublishProgrammeResponse:
        """Store a file as the next version."""
        version, is_new = await self._programmes.publish(request.text, request.file_name, self._clock())
        return programme_pb2.PublishProgrammeResponse(version=_message(version), unchanged=not is_new)

    async def list_programme_versions(
        self, request: programme_pb2.ListProgrammeVersionsRequest, caller: Caller
    ) -> programme_pb2.ListProgrammeVersionsResponse:
        """List the versions, newest first."""
        versions = await self._programmes.list_versions()
        return programme_pb2.ListProgrammeVersionsResponse(versions=[_message(version) for version in versions])

    async def get_programme_version(
        self, request: programme_pb2.GetProgrammeVersionRequest, caller: Caller
    ) -> programme_pb2.GetProgrammeVersionResponse:
        """Show a version with its text."""
        version, text = await self._programmes.get(request.version)
        return programme_pb2.GetProgrammeVersionResponse(version=_message(version), text=text)


def _message(version: ProgrammeVersion) -> programme_pb2.ProgrammeVersion:
    message = programme_pb2.ProgrammeVersion(
        code=version.code, version=version.version, text_sha256=version.text_sha256.hex()
    )
    message.effective_at.FromDatetime(version.effective_at)
    message.published_at.FromDatetime(version.published_at)
    return message
