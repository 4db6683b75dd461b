"""How our own commands call the back office: the address, the key, repeats, and errors that people can read."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeVar

import grpc
import typer
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from server.base.settings import Settings
from server.commands.common import fail

KEYS_FILE: Final = "development-keys.json"
CALL_TIMEOUT_SECONDS: Final = 30.0
MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
"""The largest answer, such as the general ledger of many years: 100 bytes and more a line."""
SERVICE_CONFIG: Final = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.5s",
                    "maxBackoff": "5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
                },
            }
        ]
    }
)
"""gRPC itself repeats calls while the service restarts or has too much work; all that we send may be repeated."""

CERTIFICATE_VARIABLES: Final = ("TALLYPOINT_ADMIN_TLS_CERT", "TALLYPOINT_ADMIN_TLS_KEY")
"""The PEM files of the certificate that our commands show, and of its key, where the server asks for one."""

Address = Annotated[
    str | None,
    typer.Option(
        envvar="TALLYPOINT_ADMIN_ADDRESS", help="The back office's host:port; not given means this machine's."
    ),
]
Key = Annotated[
    str | None,
    typer.Option(envvar="TALLYPOINT_ADMIN_KEY", help="A back-office key; a development server's is found by itself."),
]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        envvar="TALLYPOINT_ADMIN_TLS_CA",
        help="Use TLS and trust the certificates in this PEM file.",
        exists=True,
        dir_okay=False,
    ),
]

Response = TypeVar("Response")

_TLS_FAILS: Final = "TLS fails: look at --tls-ca (TALLYPOINT_ADMIN_TLS_CA) and at the name in the server's certificate"
_CAUSES_OF_SILENCE: Final = (
    ("connection refused", "nothing listens there"),
    ("errors resolving", "there is no such host"),
    ("dns resolution", "there is no such host"),
    ("handshake", _TLS_FAILS),
    ("verification", _TLS_FAILS),
    ("http/2", "something else listens there"),
    ("deadline exceeded", "no answer in time"),
    ("socket closed", "it breaks connections off, as it does when it stops, or takes TLS only (--tls-ca)"),
    ("failed to connect", "no connection comes about"),
)
"""What gRPC itself says where no service answers, in small letters, and what that means to people; the first counts."""


class CallFailed(Exception):
    """A call that was refused as a whole, or that nobody answered; as a text, all that the answer says.

    `reason` names it for programs, `message` says it for people, and `violations` are fields with what is wrong.
    """

    def __init__(
        self, code: grpc.StatusCode, reason: str, message: str, violations: Sequence[tuple[str, str]] = ()
    ) -> None:
        fields = [f"  {field}: {text}" for field, text in violations]
        super().__init__("\n".join([f"{reason}: {message}", *fields]))
        self.code = code
        self.reason = reason
        self.message = message
        self.violations = tuple(violations)

    @classmethod
    def of(cls, error: grpc.RpcError, address: str) -> CallFailed:
        """Read what gRPC says of a failed call to an address."""
        status = rpc_status.from_call(error)
        if status is None:
            said = error.details() or ""
            cause = _cause_of_silence(said)
            return cls(error.code(), error.code().name, _unreachable(address, cause) if cause else said)
        info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        for detail in status.details:
            if not detail.Unpack(info):
                detail.Unpack(bad_request)
        violations = [(violation.field, violation.description) for violation in bad_request.field_violations]
        return cls(error.code(), info.reason or error.code().name, status.message, violations)


@dataclass(frozen=True, slots=True)
class BackOfficeClient:
    """An open channel to the back office, and the key that goes with every call."""

    channel: grpc.Channel
    key: str
    address: str

    def call(
        self, method: Callable[..., Response], request: Message, timeout_seconds: float = CALL_TIMEOUT_SECONDS
    ) -> Response:
        """Call a method of a generated stub.

        Raises:
            typer.Exit: it is refused, or the service cannot be reached; the reason was printed.
        """
        try:
            return self.attempt(method, request, timeout_seconds)
        except CallFailed as failure:
            raise fail(str(failure)) from None

    def attempt(
        self, method: Callable[..., Response], request: Message, timeout_seconds: float = CALL_TIMEOUT_SECONDS
    ) -> Response:
        """Call a method of a generated stub; CallFailed if it is refused, or the service cannot be reached."""
        try:
            return method(request, timeout=timeout_seconds, metadata=(("authorization", f"Bearer {self.key}"),))
        except grpc.RpcError as error:
            raise CallFailed.of(error, self.address) from None


@contextmanager
def back_office(
    settings: Settings, address: str | None, key: str | None, tls_ca: Path | None
) -> Iterator[BackOfficeClient]:
    """Open a channel to the back office.

    Raises:
        typer.Exit: there is no key, it cannot be one, or this machine's back office wants TLS.
    """
    key = key or _development_key(settings.data_dir / KEYS_FILE)
    if not key:
        raise fail("no key: give --key, or set TALLYPOINT_ADMIN_KEY to a key with the role admin, crm or finance")
    if not key.isascii() or not key.isprintable():
        raise fail("the key is none of ours: it has line breaks or other characters that no key has")
    if tls_ca is None and address is None and settings.tls_cert is not None:
        raise fail(
            "the back office answers with TLS only: give --tls-ca, or set TALLYPOINT_ADMIN_TLS_CA, with the authority "
            "(PEM) that signed its certificate"
        )
    target = address or settings.backoffice_listen
    options = [("grpc.service_config", SERVICE_CONFIG), ("grpc.max_receive_message_length", MAX_ANSWER_BYTES)]
    if tls_ca is None:
        channel = grpc.insecure_channel(target, options)
    else:
        channel = grpc.secure_channel(target, _credentials(tls_ca), options)
    with channel:
        yield BackOfficeClient(channel, key, target)


def _cause_of_silence(said: str) -> str:
    """Return why nobody answered a call; empty if it was the service that said this."""
    return next((cause for words, cause in _CAUSES_OF_SILENCE if words in said.lower()), "")


def _unreachable(address: str, cause: str) -> str:
    return (
        f"the back office at {address} cannot be reached: {cause}: look whether it runs, and at --address "
        "(TALLYPOINT_ADMIN_ADDRESS)"
    )


def _credentials(tls_ca: Path) -> grpc.ChannelCredentials:
    """Trust an authority, and show our own certificate if the environment names one (setting tls_client_ca)."""
    certificate, private_key = (os.environ.get(variable) for variable in CERTIFICATE_VARIABLES)
    authority = _authority(tls_ca)
    if not certificate and not private_key:
        return grpc.ssl_channel_credentials(authority)
    if not certificate or not private_key:
        raise fail("{} and {} belong together: set both, or neither".format(*CERTIFICATE_VARIABLES))
    try:
        chain, key = Path(certificate).read_bytes(), Path(private_key).read_bytes()
    except OSError as error:
        raise fail(f"the certificate to show cannot be read: {error}") from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, private_key, lambda: b"")
    except (OSError, ValueError) as error:
        raise fail(
            f"{certificate} and {private_key} are no certificate and its key, in PEM and without a passphrase: {error}"
        ) from None
    return grpc.ssl_channel_credentials(authority, key, chain)


def _authority(path: Path) -> bytes:
    """Return the certificates of a file; gRPC would only say that it cannot connect if there were none."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (OSError, ValueError) as error:
        raise fail(f"{path} has no certificates to trust, in PEM: {error}") from None
    return path.read_bytes()


def _development_key(path: Path) -> str | None:
    if not path.exists():
        return None
    try:
        key = json.loads(path.read_bytes()).get("admin")
    except (OSError, ValueError, AttributeError) as error:
        raise fail(f"{path} has no keys of a development server: {error}; give --key, or remove the file") from None
    return key if isinstance(key, str) else None
