"""What this machine allows: CPU and memory (cgroups), shared memory, and who can reach a port (from /proc and /sys)."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import os
from collections.abc import Iterator
from pathlib import Path

LISTENING = "0A"  # in /proc/net/tcp


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota_cores(mount: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float:
    """Cores' worth of CPU time that the cgroup and all above it may use; infinity where nothing limits them.

    Version 2 has `cpu.max` ("quota period" or "max period"), version 1 `cpu.cfs_quota_us` (-1: none) and its period.
    """
    quotas = [quota for group in _groups("cpu", mount, membership) for quota in _quotas(group)]
    return min(quotas, default=math.inf)


def memory_bytes(mount: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes of memory that this process may use: the machine's, or what its cgroup or one above it allows.

    Version 2 has `memory.max` (bytes or "max"), version 1 `memory.limit_in_bytes` (far more than there is: none).
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for group in _groups("memory", mount, membership):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # another version's, or none of its own
                limits.append(int((group / name).read_text()))
    return min(limits)


def _groups(controller: str, mount: Path, membership: Path) -> Iterator[Path]:
    """The directories of this process's cgroup for that controller, and of all above it."""
    lines = membership.read_text().splitlines() if membership.exists() else []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and controller not in controllers.split(","):
            continue
        top = mount / controllers if controllers else mount
        here = top / path.lstrip("/")
        yield from (group for group in [here, *here.parents] if group.is_relative_to(top))


def _quotas(group: Path) -> list[float]:
    with contextlib.suppress(OSError, ValueError):  # a group without the controller, or none of its own
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
            return [] if quota == "max" else [int(quota) / int(period)]
        quota_us = int((group / "cpu.cfs_quota_us").read_text())
        return [] if quota_us < 0 else [quota_us / int((group / "cpu.cfs_period_us").read_text())]
    return []


def shared_memory_bytes(path: Path = Path("/dev/shm")) -> int | None:
    """Bytes free in shared memory; None where the system has no such directory."""
    if not path.is_dir():
        return None
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def listening_on(port: int, tables: Path = Path("/proc/net")) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The addresses of this machine on which somebody listens on a TCP port."""
    found = set()
    for name in ("tcp", "tcp6"):
        table = tables / name
        for row in table.read_text().splitlines()[1:] if table.exists() else []:
            _, local, _, state, *_ = row.split()
            address, _, hex_port = local.partition(":")
            if state == LISTENING and int(hex_port, 16) == port:
                found.add(_address(address))
    return sorted(found, key=str)


def _address(words: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """From the kernel's hexadecimal: 32-bit words in the machine's own byte order (little-endian where we run)."""
    packed = b"".join(bytes.fromhex(words[i : i + 8])[::-1] for i in range(0, len(words), 8))
    address = ipaddress.ip_address(packed)
    return getattr(address, "ipv4_mapped", None) or address
