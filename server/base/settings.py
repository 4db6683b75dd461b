"""All settings of the process, from the environment, a file and the command line.

Order, first wins: command line, environment variables ``TALLYPOINT_*``, the file ``tallypoint.toml`` in the
working directory (another one with ``TALLYPOINT_SETTINGS_FILE``), the defaults below.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import ssl
import tomllib
from collections.abc import Iterable
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from server.base.card_scheme import parse_card_scheme
from server.base.text_files import read_utf8

DEFAULT_SETTINGS_FILE: Final = "tallypoint.toml"
PREFIX: Final = "TALLYPOINT_"
OTHER_VARIABLES: Final = frozenset(
    {
        "TALLYPOINT_SETTINGS_FILE",
        "TALLYPOINT_ADMIN_ADDRESS",
        "TALLYPOINT_ADMIN_KEY",
        "TALLYPOINT_ADMIN_TLS_CA",
        "TALLYPOINT_ADMIN_TLS_CERT",
        "TALLYPOINT_ADMIN_TLS_KEY",
        "TALLYPOINT_LOCUST_PREPARED",
        "TALLYPOINT_UNIT_EXAMPLES",
    }
)
"""Variables that commands, tests and load generators read; every other one with the prefix must be a setting."""
MIN_SECRET_LENGTH: Final = 32
_DSN_PASSWORD: Final = re.compile(r"(?<=:)[^:@/]+(?=@)|(?<=password=)[^&\s]+")

_REASON_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_REGION: Final = re.compile(r"[A-Z]{2}")


def split_address(address: str) -> tuple[str, int]:
    """Split ``host:port`` (``[host]:port`` for IPv6); port 0 takes any free port.

    Raises:
        ValueError: It is not of that form.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - the largest port
        raise ValueError(f"{address!r} is not host:port, such as 127.0.0.1:7443")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(address: str) -> bool:
    """Say whether only this machine can reach a listening address."""
    host, _ = split_address(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked_address(address: str) -> str:
    split_address(address)
    return address


def _checked_region(region: str) -> str:
    if not _REGION.fullmatch(region):
        raise ValueError(f"{region!r} is not an ISO 3166 code of two capital letters, such as UA")
    return region


def _checked_endpoint(endpoint: str) -> str:
    if not endpoint.startswith(("http://", "https://")):
        raise ValueError("does not begin with http:// or https://; write it as http://localhost:4318")
    return endpoint


def _has_port(dsn: str) -> bool:
    """Say whether what stands in the place of a port is one, or nothing."""
    try:
        return urlsplit(dsn).port != 0
    except ValueError:
        return False


def _checked_dsn(dsn: SecretStr) -> SecretStr:
    """Refuse what is no connection string, without showing it: it may hold a password."""
    text = dsn.get_secret_value()
    if not text.startswith(("postgresql://", "postgres://")) or not _has_port(text):
        raise ValueError("must be postgresql://user:password@host/database")
    return dsn


def _split(value: object) -> object:
    """Read a list from one environment variable, separated by spaces."""
    return value.split() if isinstance(value, str) else value


def _checked_codes(codes: tuple[str, ...]) -> tuple[str, ...]:
    for code in codes:
        if not _REASON_CODE.fullmatch(code):
            raise ValueError(f"{code!r} is not a code of up to 32 small letters, digits and _, such as goodwill")
    return codes


def _checked_schemes(schemes: tuple[str, ...]) -> tuple[str, ...]:
    for scheme in schemes:
        parse_card_scheme(scheme)
    return schemes


Dsn = Annotated[SecretStr, AfterValidator(_checked_dsn)]
Address = Annotated[str, AfterValidator(_checked_address)]
Region = Annotated[str, AfterValidator(_checked_region)]
Endpoint = Annotated[str, AfterValidator(_checked_endpoint)]
ReasonCodes = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_checked_codes)]


class _SettingsFile(TomlConfigSettingsSource):
    """The settings in a file, which says of itself what keeps it from being read."""

    def _read_file(self, file_path: Path | Traversable) -> dict[str, Any]:
        try:
            return tomllib.loads(read_utf8(Path(str(file_path))))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{file_path}: this is not TOML: {error}") from None


class Settings(BaseSettings):
    """The settings of one deployment. Secrets print as asterisks."""

    model_config = SettingsConfigDict(env_prefix="TALLYPOINT_", extra="forbid", frozen=True)

    # Databases.
    ledger_dsn: Dsn | None = Field(None, description="The ledger database, postgresql://user:password@host/database.")
    crm_dsn: Dsn | None = Field(None, description="The CRM database, likewise.")
    embedded: bool = Field(False, description="A database without a DSN is the embedded PostgreSQL's, in data_dir.")
    data_dir: Path = Field(Path(".data"), description="Embedded databases, development keys and metrics files.")
    books: int = Field(4, ge=1, le=1024, description="Books of the ledger; fixed when the database is created.")
    migrate_on_start: bool = Field(True, description="Apply missing migrations before the workers start.")

    # Listening.
    pos_listen: Address = Field("127.0.0.1:7443", description="Registers and kiosks: CheckoutService.")
    backoffice_listen: Address = Field("127.0.0.1:7444", description="Members, stores, programmes, ledger.")
    metrics_listen: Address = Field("127.0.0.1:7445", description="Prometheus, at /metrics.")
    workers: int = Field(2, ge=1, le=256, description="Processes that share the POS port.")
    tls_cert: Path | None = Field(None, description="The server's certificate chain, PEM.")
    tls_key: Path | None = Field(None, description="The server's private key, PEM.")
    tls_client_ca: Path | None = Field(None, description="If set, clients must show a certificate of this CA (PEM).")
    allow_plaintext: bool = Field(False, description="Permit listening beyond loopback without TLS.")

    # Identity.
    secret_key: SecretStr | None = Field(None, description="Keys the hashes of identifiers and access keys.")
    development: bool = Field(
        False, description="Make a secret and access keys of its own, for trying out; embedded databases too."
    )

    # Limits of the edge.
    max_message_bytes: int = Field(8 * 1024 * 1024, ge=64 * 1024, description="The largest request.")
    max_concurrent_calls: int = Field(2000, ge=1, description="Calls under way in one process; more are refused.")
    default_timeout_seconds: float = Field(3.0, gt=0, description="The deadline of a call that names none.")
    drain_timeout_seconds: float = Field(15.0, ge=0, description="How long calls under way may take at shutdown.")
    connection_age_seconds: int = Field(
        300,
        ge=0,
        description="Registers are asked to connect anew after this time, which spreads them over workers; 0: never.",
    )

    # The country.
    default_region: Region = Field("UA", description="Whose national phone numbers are read.")
    card_schemes: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_checked_schemes)] = (
        Field(("ean13:2",), description="The chain's loyalty cards: check, digits, prefix; such as luhn16-19:9804.")
    )

    # Corrections.
    adjustment_reasons: ReasonCodes = Field(
        ("goodwill", "missing_receipt", "complaint", "campaign", "test", "fraud"),
        description="Why points may be granted or taken by hand.",
    )
    adjustment_limit_points: int = Field(
        1000, ge=0, le=10**9, description="Whole points that one person may adjust in a day without approval."
    )
    transfer_reasons: ReasonCodes = Field(
        ("family", "gift", "complaint"), description="Why points may be moved from one member to another."
    )

    # Time.
    sweep_interval_seconds: int = Field(
        60,
        ge=0,
        description="How often points whose time has come are booked, and old message ids forgotten; 0: never.",
    )
    message_key_days: int = Field(
        90, ge=1, description="How long a message sent again gets its stored answer, and an ended hold is known."
    )

    # Watching.
    slow_call_milliseconds: int = Field(250, ge=0, description="Calls that take longer are logged; 0: none.")
    trace_endpoint: Endpoint | None = Field(
        None, description="Where traces go, OTLP over HTTP, such as http://localhost:4318."
    )
    trace_share: float = Field(
        0.01, ge=0, le=1, description="The share of calls that are traced, if their callers' are not."
    )

    # Workings.
    event_loop: Literal["uvloop", "asyncio"] = Field("uvloop", description="The event loop of the children.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least level logged.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the hook's signature; not a source of ours
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the command line, then the environment, then the file."""
        path = Path(os.environ.get("TALLYPOINT_SETTINGS_FILE", DEFAULT_SETTINGS_FILE))
        if "TALLYPOINT_SETTINGS_FILE" in os.environ and not path.is_file():
            raise ValueError(f"TALLYPOINT_SETTINGS_FILE is {path}, and there is no such file")
        return init_settings, env_settings, _SettingsFile(settings_cls, toml_file=path)

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: set both, or neither")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca needs tls_cert and tls_key")
        for path in (self.tls_cert, self.tls_key, self.tls_client_ca):
            if path is not None and not path.is_file():
                raise ValueError(f"{path}: there is no such file")
        if self.secret_key is not None and len(self.secret_key.get_secret_value()) < MIN_SECRET_LENGTH:
            raise ValueError(f"secret_key must have at least {MIN_SECRET_LENGTH} characters")
        return self

    @property
    def secret_bytes(self) -> bytes:
        """The service's secret, with which identifiers and access keys are hashed.

        Raises:
            StartRefusedError: There is none.
        """
        if self.secret_key is None:
            raise StartRefusedError(_NO_KEY_TEXT)
        return self.secret_key.get_secret_value().encode()

    def masked(self) -> dict[str, Any]:
        """Return all settings for showing, as plain values, without secrets and passwords."""
        shown = self.model_dump(mode="json")
        for name in ("ledger_dsn", "crm_dsn"):
            dsn = getattr(self, name)
            shown[name] = None if dsn is None else mask_dsn(dsn.get_secret_value())
        return shown


class StartRefusedError(Exception):
    """The process does not start with these settings; the message says what to set."""


_NO_KEY_TEXT: Final = (
    "no secret: set TALLYPOINT_SECRET_KEY to at least 32 random characters (for example of 'openssl rand -hex 32') "
    "and keep it, or start with --development to try things out"
)


def mask_dsn(dsn: str) -> str:
    """Return a connection string without its password."""
    return _DSN_PASSWORD.sub("********", dsn)


def unknown_variables(environment: Iterable[str]) -> dict[str, str]:
    """Return the variables that begin as ours do and are none, each with the nearest of ours, or an empty text."""
    settings = {variable_of(name) for name in Settings.model_fields}
    ours = {name.removeprefix(PREFIX): name for name in sorted(settings | OTHER_VARIABLES)}
    return {
        name: "".join(ours[near] for near in difflib.get_close_matches(name.upper().removeprefix(PREFIX), ours, n=1))
        for name in sorted(environment)
        # A setting may be written in small letters, too; what commands read may not.
        if name.upper().startswith(PREFIX) and name.upper() not in settings and name not in OTHER_VARIABLES
    }


def variable_of(setting: str) -> str:
    """Return the environment variable of a setting."""
    return f"{PREFIX}{setting.upper()}"


def check_databases(settings: Settings, *names: Literal["ledger_dsn", "crm_dsn"]) -> None:
    """Refuse databases that are neither named nor embedded: a misspelt name must not start an empty ledger.

    Raises:
        StartRefusedError: One of them is not known.
    """
    if settings.embedded or settings.development:
        return
    missing = [variable_of(name) for name in names if getattr(settings, name) is None]
    if not missing:
        return
    near = sorted({close for name in missing for close in difflib.get_close_matches(name, os.environ, cutoff=0.9)})
    perhaps = f" (is it meant by {' and '.join(near)}, which is set?)" if near else ""
    raise StartRefusedError(
        f"no database: set {' and '.join(missing)} to postgresql://user:password@host/database{perhaps}, or give "
        f"--embedded (TALLYPOINT_EMBEDDED=true) for the PostgreSQL that comes along, with its data in "
        f"{settings.data_dir}"
    )


def _check_secret(settings: Settings) -> None:
    if settings.secret_key is None and not settings.development:
        raise StartRefusedError(_NO_KEY_TEXT)


def _check_certificate(settings: Settings) -> None:
    """Refuse a certificate that no port could open with; gRPC would say so in each child, again and again."""
    if settings.tls_cert is None or settings.tls_key is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key, lambda: b"")
    except (OSError, ValueError) as error:
        raise StartRefusedError(
            f"no port can open with the certificate {settings.tls_cert} and the key {settings.tls_key}, which must "
            f"belong together, in PEM, the key without a passphrase: {error}"
        ) from None


def _check_region(settings: Settings) -> None:
    """Refuse a region without phone numbers, of which each child would die."""
    from phonenumbers import SUPPORTED_REGIONS  # noqa: PLC0415 - slow to import; other commands do without

    if settings.default_region not in SUPPORTED_REGIONS:
        raise StartRefusedError(
            f"default_region is {settings.default_region}, which is no country with phone numbers: set "
            f"TALLYPOINT_DEFAULT_REGION to an ISO 3166 code of two capital letters, such as UA (or GB, not UK)"
        )


def _check_encryption(settings: Settings) -> None:
    if settings.tls_cert is not None or settings.allow_plaintext:
        return
    for name in ("pos_listen", "backoffice_listen"):
        address = getattr(settings, name)
        if not is_loopback(address):
            raise StartRefusedError(
                f"{name} is {address}, which other machines can reach, and there is no certificate: set "
                f"TALLYPOINT_TLS_CERT and TALLYPOINT_TLS_KEY, or listen on 127.0.0.1, or, if something in front "
                f"already encrypts, set TALLYPOINT_ALLOW_PLAINTEXT=true"
            )


def check_production(settings: Settings) -> None:
    """Refuse settings that are not safe outside development, and those that no child would start with.

    Raises:
        StartRefusedError: There is no secret or no database, the certificate cannot be used, the region is none, or
            keys and receipts would cross a network unencrypted. Each fault has a line.
    """
    faults = []
    for check in (_check_region, _check_secret, _check_both_databases, _check_certificate, _check_encryption):
        try:
            check(settings)
        except StartRefusedError as error:
            faults.append(str(error))
    if faults:
        raise StartRefusedError("\n".join(faults))


def _check_both_databases(settings: Settings) -> None:
    check_databases(settings, "ledger_dsn", "crm_dsn")
