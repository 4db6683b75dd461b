"""Chooses where the processes keep their measurements; must run before `prometheus_client` is imported."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


def use_metrics_directory(data_dir: Path) -> None:
    """Put this process and its children into prometheus_client's multiprocess mode, in a directory of their own."""
    directory = data_dir.resolve() / "metrics" / str(os.getpid())
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    os.environ[VARIABLE] = str(directory)


def remove_old_directories() -> None:
    """Remove what servers before us left; to be called when it is certain that none of them runs."""
    directory = os.environ.get(VARIABLE)
    if directory is not None:
        for other in Path(directory).parent.iterdir():
            if other != Path(directory):
                shutil.rmtree(other, ignore_errors=True)
