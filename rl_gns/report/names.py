"""What directories are called on a page: no two alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def distinct(paths: Sequence[Path]) -> list[str]:
    """Of each the shortest end of its path that no other directory's path ends with: `run`, or `a/run` and `b/run`."""
    whole = [path.resolve() for path in paths]
    return [_end(each, set(whole) - {each}) for each in whole]


def _end(path: Path, others: set[Path]) -> str:
    for n in range(1, len(path.parts)):
        if all(other.parts[-n:] != path.parts[-n:] for other in others):
            return str(Path(*path.parts[-n:]))
    return str(path)


def once(paths: Sequence[Path]) -> list[Path]:
    """Those that lead to another directory than all before them, as they were given."""
    first: dict[Path, Path] = {}
    for path in paths:
        first.setdefault(path.resolve(), path)
    return list(first.values())
