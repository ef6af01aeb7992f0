"""One writer a directory: a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import IO

from rl_gns.config import ConfigError

WRITE_LOCK = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
"""Linux's `struct flock` for a whole file. The lock belongs to the open file, and others can ask for it without taking
it."""


def take_lock(file: Path, directory: Path) -> IO[str]:
    """The file that stands for `directory`, locked until it is closed; ConfigError where another process has it."""
    lock = open(file, "w")  # noqa: SIM115 - the caller's to close
    try:
        fcntl.fcntl(lock, fcntl.F_OFD_SETLK, WRITE_LOCK)
    except BlockingIOError:
        lock.close()
        raise ConfigError(f"--run-dir: {directory} is in use by another process of this machine") from None
    return lock


def is_held(file: Path) -> bool:
    """A live process holds the lock. Asking takes nothing."""
    try:
        with open(file, "rb") as lock:
            answer = fcntl.fcntl(lock, fcntl.F_OFD_GETLK, WRITE_LOCK)
    except FileNotFoundError:
        return False
    return struct.unpack_from("h", answer)[0] != fcntl.F_UNLCK
