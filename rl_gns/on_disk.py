"""What is read from disk, held against what a run writes there: damage is one line, and never a number."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from rl_gns.config import ConfigError

DAMAGE = (ArithmeticError, AttributeError, LookupError, RecursionError, SafetensorError, TypeError, ValueError)
"""What reading a file raises that does not hold what was written to it."""
GREATEST = 1 << 63
"""No count of a run comes near it."""


@contextlib.contextmanager
def understood(path: Path) -> Iterator[None]:
    """ConfigError naming `path` where its contents turn out, inside, not to be what rl-gns writes."""
    try:
        with np.errstate(divide="raise", over="raise", invalid="raise"):
            yield
    except ConfigError:
        raise
    except DAMAGE as error:
        raise ConfigError(f"{path}: damaged, or of another version ({type(error).__name__}: {error})") from error


def parse_json(text: str | bytes) -> Any:
    """Strict JSON: ValueError for NaN, for infinities and what overflows to them, and where it is nested too deep."""
    try:
        return DECODER.decode(text.decode() if isinstance(text, bytes) else text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not finite")
    return value


DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)


def checked_record(value: Any, record: type) -> dict[str, Any]:
    """`value`, if it is a JSON object whose fields are fields of the dataclass `record` and of their types; ValueError
    names the first that is not. Older versions wrote fewer fields; a float may be null (NaN and infinities are)."""
    if not isinstance(value, dict):
        raise ValueError(f"not a {record.__name__}")
    known = _fields(record)
    for name, each in value.items():
        if name not in known:
            raise ValueError(f"{name[:40]}: no such field")
        if not known[name](each):
            raise ValueError(f"{name}: {str(each)[:40]} is not what a run writes there")
    return value


def check_follows(record: dict[str, Any], before: dict[str, Any] | None) -> None:
    """ValueError where update, E or S do not go on from the line before: a line is missing, or one of them is wrong."""
    if record["update"] != (before["update"] + 1 if before else 0):
        raise ValueError(f"update {record['update']} stands out of turn")
    if before is None:
        return
    if record["env_steps"] != before["env_steps"] + record["used_env_steps"]:
        raise ValueError("env_steps is not that of the line before and used_env_steps")
    if record["optimizer_steps"] < before["optimizer_steps"]:
        raise ValueError("optimizer_steps falls")


@functools.cache
def _fields(record: type) -> dict[str, Callable[[Any], bool]]:
    hints = typing.get_type_hints(record)
    return {field.name: _fits(hints[field.name]) for field in dataclasses.fields(record)}


def _fits(hint: Any) -> Callable[[Any], bool]:
    """Whether a JSON value is one of that type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        choices = [_fits(each) for each in arguments]
        return lambda v: any(fits(v) for fits in choices)
    if origin in (list, dict):
        inner = _fits(arguments[-1])
        return lambda v: isinstance(v, origin) and all(map(inner, v.values() if origin is dict else v))
    if dataclasses.is_dataclass(hint):
        known = _fields(hint)
        return lambda v: isinstance(v, dict) and all(name in known and known[name](each) for name, each in v.items())
    if hint is int:
        return lambda v: type(v) is int and -GREATEST < v < GREATEST
    if hint is float:
        return lambda v: v is None or (type(v) in (int, float) and -1e100 < v < 1e100)
    return lambda v: hint is Any or isinstance(v, hint)
