"""Where a run's numbers come from: command, commit, versions, machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rl_gns.learn.learner import Learner

PACKAGES = ("rl-gns", "torch", "ray", "gymnasium", "ale-py", "numpy", "scipy")


def provenance(learner: Learner) -> dict[str, Any]:
    """JSON values for provenance.json, of the process that computes; what the learner resolved (`auto` settings) is
    part of the bits."""
    return {
        **whereabouts(),
        "resolved": {"device": learner.device, "precision": learner.precision, "threads": learner.threads},
    }


def whereabouts() -> dict[str, Any]:
    """Date, commit, versions and machine of this process."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "machine": {"cpu": _cpu(), "cores": len(os.sched_getaffinity(0)), "system": platform.system()},
    }


def command() -> list[str]:
    """What the user ran."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def _git(*arguments: str) -> str | None:
    """What git says of the checkout that this package runs from; None where it was installed without one."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
