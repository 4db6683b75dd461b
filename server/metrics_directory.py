"""Chooses where the processes keep their measurements; must run before `prometheus_client` is imported."""

from __future__ import annotations

import os
from pathlib import Path


def use_metrics_directory(data_dir: Path) -> None:
    """Put this process and its children into prometheus_client's multiprocess mode, with empty files."""
    directory = data_dir.resolve() / "metrics"
    directory.mkdir(parents=True, exist_ok=True)
    for file in directory.glob("*.db"):
        file.unlink(missing_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
