"""Locust's `--csv` files, with the run's last figures in them.

Locust closes the files at the end while the greenlet that writes them once a second is still at work: what came of the
last second is missing, and if the process then takes its time to end, the greenlet fails on a closed file.
"""

from __future__ import annotations

from typing import Any

import gevent
from locust import stats
from locust.stats import StatsCSVFileWriter


class CompleteFiles(StatsCSVFileWriter):
    """Writes the files as Locust does, and ends with them before they are closed."""

    _at_work: Any = None  # gevent does not say that whom it spawned can be killed

    def stats_writer(self) -> None:
        """Write the files once a second; Locust gives this a greenlet of its own."""
        self._at_work = gevent.getcurrent()
        super().stats_writer()

    def close_files(self) -> None:
        """Stop writing once a second, write the final figures, and close the files."""
        if self._at_work is not None:
            self._at_work.kill()
        for file, writer, write in (
            (self.requests_csv_filehandle, self.requests_csv_writer, self.requests_csv),
            (self.failures_csv_filehandle, self.failures_csv_writer, self.failures_csv),
            (self.exceptions_csv_filehandle, self.exceptions_csv_writer, self.exceptions_csv),
        ):
            file.seek(0)
            write(writer)
            file.truncate()
        super().close_files()


def complete_csv_files() -> None:
    """Let `--csv` write these files. Before Locust opens them, which it does after it has read the locustfiles."""
    vars(stats)["StatsCSVFileWriter"] = CompleteFiles
