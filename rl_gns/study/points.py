"""Runs to goals, as `rl-gns fit` takes them: from a CSV file, a sweep's own or any other."""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_gns.config import ConfigError

POINTS = "points.csv"
"""In a sweep's directory."""


@dataclass(frozen=True)
class GoalRun:
    """One run to one goal; the fields are the columns of the file."""

    game: str
    goal_return: float
    batch_env_steps: float
    """B: env steps averaged into one optimizer step."""
    optimizer_steps: float
    """S at the goal or, where it was not reached, when the run was stopped."""
    learning_rate: float | None = None
    epochs: int = 1
    reached: bool = True
    seed: int | None = None
    num_envs: int | None = None
    env_steps: float | None = None
    variant: str = ""
    """Of a sweep whose runs differ in more than B, rate and seed; empty where there is none."""


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise ValueError(f"must lie between {low:g} and {high:g}")
        return value

    return read


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)  # a float would round the last digits of a long seed
        except ValueError:
            value = float(text)
            if not (math.isfinite(value) and value == int(value)):
                raise ValueError("must be a whole number") from None
        _number(low, high)(text)
        return int(value)

    return read


def _truth(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise ValueError("must be true or false")
    return words[text.lower()]


REQUIRED: dict[str, Callable[[str], Any]] = {
    "game": str,
    "goal_return": _number(-1e12, 1e12),
    "batch_env_steps": _number(1, 1e15),
    "optimizer_steps": _number(1, 1e15),
}
OPTIONAL: dict[str, Callable[[str], Any]] = {
    "learning_rate": _number(1e-12, 1e6),
    "epochs": _whole(1, 1_000_000),
    "reached": _truth,
    "seed": _whole(0, 2**63),
    "num_envs": _whole(1, 10**12),
    "env_steps": _number(1, 1e18),
    "variant": str,
}
COLUMNS = REQUIRED | OPTIONAL


def read_points(path: Path) -> list[GoalRun]:
    """The runs of a CSV file, or of the one in a sweep's directory; ConfigError says what is wrong and where."""
    if path.is_dir() and not (path / POINTS).is_file():
        raise ConfigError(f"{path}: no {POINTS} here; rl-gns fit takes a sweep's directory or a CSV file")
    return read_csv(path / POINTS if path.is_dir() else path)


def read_csv(path: Path) -> list[GoalRun]:
    """One run a line under a line of column names; a column that is there is filled in throughout."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = [(number, cells) for number, cells in _lines(file) if any(cell.strip() for cell in cells)]
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"{path}: not a CSV file: {error}") from None
    if not lines:
        raise ConfigError(f"{path}: the file is empty; the columns needed are {', '.join(REQUIRED)}")
    names = _names(path, [cell.strip() for cell in lines[0][1]])
    if len(lines) == 1:
        raise ConfigError(f"{path}: there is no run below the column names")
    return [_run(f"{path}, line {number}", names, cells) for number, cells in lines[1:]]


def _lines(file):
    reader = csv.reader(file)
    for cells in reader:
        yield reader.line_num, cells


def _names(path: Path, names: list[str]) -> list[str]:
    missing = [name for name in REQUIRED if name not in names]
    for name in names:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, missing, n=1, cutoff=0.5)
            near = near or difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.5)
            known = f"the nearest is {near[0]}" if near else f"known are {', '.join(COLUMNS)}"
            raise ConfigError(f"{path}: {name[:80]!r}: no such column; {known}")
        if names.count(name) > 1:
            raise ConfigError(f"{path}: {name}: this column is there twice")
    if missing:
        raise ConfigError(f"{path}: {missing[0]}: this column is missing; needed are {', '.join(REQUIRED)}")
    return names


def _run(where: str, names: list[str], cells: list[str]) -> GoalRun:
    if len(cells) != len(names):
        raise ConfigError(f"{where}: {len(cells)} cells under {len(names)} column names")
    return GoalRun(**{name: _cell(where, name, cell.strip()) for name, cell in zip(names, cells, strict=True)})


def _cell(where: str, name: str, text: str) -> Any:
    if not text:
        raise ConfigError(f"{where}: {name}: the cell is empty; fill it in, or leave out the whole column")
    try:
        return COLUMNS[name](text)
    except (ValueError, OverflowError) as error:
        why = str(error) if str(error).startswith("must") else "is not a number"
        raise ConfigError(f"{where}: {name}: {text[:80]!r} {why}") from None
