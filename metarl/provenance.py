"""Record versions, commit, command, machine and time with every saved result."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from metarl.config import RunConfig, config_to_dict

PACKAGES = ("mujoco", "torch", "numpy", "gymnasium", "stable-baselines3", "sb3-contrib", "wandb")
PACKAGES += ("mujoco-warp", "warp-lang")  # for the gpu simulator


def _version(package: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


VERSION = _version("metarl-robotics") or "0+unknown"
"""Version of metarl; unknown in a checkout that is not installed."""


def provenance(config: RunConfig | None = None) -> dict[str, Any]:
    """Return versions, commit, command, machine and time as plain types, with the configuration if given."""
    record: dict[str, Any] = {
        "metarl": VERSION,
        "commit": commit(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "machine": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "processor": _processor(),
            "cores": cores(),
        },
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
    }
    if config is not None:
        record["config"] = config_to_dict(config)
    return record


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def commit() -> str | None:
    """Return the commit of the source tree, with `+changes` if it was edited since; None outside a checkout."""
    source = Path(__file__).resolve().parent.parent
    if not (source / ".git").exists():
        return None
    try:
        head = _git(source, "rev-parse", "HEAD")
        return head + ("+changes" if _git(source, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
