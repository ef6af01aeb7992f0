"""Peak memory of a process and its descendants: prints a new line whenever the peak has grown.

    python scripts/peak_memory.py PID

Sums the proportional set size (Linux: shared pages, such as Ray's object store, are counted once in all) every two
seconds until it is ended.
"""

import sys
import time
from pathlib import Path


def descendants(root: int) -> list[int]:
    """`root` and everything below it, this process left out."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, rest = stat.read_text().partition(" (")
            parent = int(rest.rpartition(") ")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        children.setdefault(parent, []).append(int(pid))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def proportional_kib(pid: int) -> int:
    """Pss of one process, KiB; 0 once it has gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def main() -> None:
    root, peak = int(sys.argv[1]), 0
    while Path(f"/proc/{root}").exists():
        now = sum(proportional_kib(pid) for pid in descendants(root))
        if now > peak:
            peak = now
            print(f"{peak / 2**20:.2f} GiB", flush=True)
        time.sleep(2)


if __name__ == "__main__":
    main()
