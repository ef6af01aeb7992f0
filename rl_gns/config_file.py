"""Settings from files: TOML in and out, each key checked by name and type, presets found by name."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Literal

import tomli_w

from rl_gns.config import ConfigError, RunConfig, to_dict

LONGEST = 80
"""Characters of a value or a key in an error's line."""
DEEPEST = 16
"""Files that may stand on each other (a choice)."""
GREATEST = 1 << 63
"""TOML's integers have 64 bits; Python's reader takes longer ones."""


def to_toml(config: RunConfig) -> str:
    """The whole config as TOML that `load` reads back to an equal one."""
    return tomli_w.dumps(to_dict(config))


def from_table(values: dict[str, Any], base: Any, prefix: str = "") -> Any:
    """`base` (a dataclass of settings) with the given ones replaced, each checked by name and type; ConfigError names
    the first that is wrong."""
    return _from_table(values, base, prefix, keys(base, prefix))


def _from_table(values: dict[str, Any], base: Any, prefix: str, known: list[str]) -> Any:
    hints = typing.get_type_hints(type(base))
    changes = {}
    for name, value in values.items():
        name, key = name.replace("-", "_"), f"{prefix}{name}"
        if name not in hints:
            raise ConfigError(unknown_key(key, known))
        if name in changes:
            raise ConfigError(f"{key}: given twice, with '-' and with '_'; once is enough")
        current = getattr(base, name)
        if not dataclasses.is_dataclass(current):
            changes[name] = coerce(key, value, hints[name])
        elif isinstance(value, dict):
            changes[name] = _from_table(value, current, f"{prefix}{name}.", known)
        else:
            raise ConfigError(f"{key}: {shown(value)} is not a table of settings")
    try:
        return dataclasses.replace(base, **changes)
    except ValueError as error:
        raise ConfigError(f"{prefix}{error}") from None


def keys(config: Any, prefix: str = "") -> list[str]:
    """Every setting's dotted name."""
    found = []
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        found += keys(value, f"{prefix}{f.name}.") if dataclasses.is_dataclass(value) else [f"{prefix}{f.name}"]
    return found


def unknown_key(key: str, known: list[str]) -> str:
    """One line for a misspelt key, with the nearest right one."""
    key = key[:LONGEST]
    leaf = {name.rsplit(".", 1)[-1]: name for name in reversed(known)}
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    near = near or [leaf[m] for m in difflib.get_close_matches(key.rsplit(".", 1)[-1], list(leaf), n=1, cutoff=0.5)]
    return f"{key}: no such setting" + (f"; the nearest is {near[0]}" if near else "")


def shown(value: Any) -> str:
    """A value for an error's line, cut to `LONGEST` characters."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # Python prints no integer of over 4,300 digits
        return f"that {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def coerce(key: str, value: Any, hint: Any) -> Any:
    """A TOML or JSON value as the field's type; 1.5 is no int, 1 is a float, "1" is neither. Integers have 64 bits."""
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            near = difflib.get_close_matches(shown(value).strip("'"), choices, n=1, cutoff=0.0)
            raise ConfigError(f"{key}: {shown(value)} is none of {', '.join(choices)}; the nearest is {near[0]}")
        return value
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{key}: {shown(value)} is no list of numbers")
        return tuple(coerce(key, v, typing.get_args(hint)[0]) for v in value)
    if isinstance(value, int) and not -GREATEST <= value < GREATEST:
        raise ConfigError(f"{key}: {shown(value)} has more than 64 bits")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wanted = hint if isinstance(hint, (type, types.UnionType)) else object
    if isinstance(value, bool) is not (hint is bool) or not isinstance(value, wanted):
        raise ConfigError(f"{key}: {shown(value)} is no {getattr(hint, '__name__', 'such value')}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}: {value} is not finite")
    return value


def config_dirs() -> list[Path]:
    """Where shipped presets lie: inside an installed wheel, or beside the package in a checkout."""
    here = Path(__file__).resolve().parent
    return [d for d in (here / "configs", here.parent / "configs") if d.is_dir()]


def presets() -> dict[str, Path]:
    """Name (`pong`, `quickstart/pong`) -> file of every shipped preset."""
    return {str(p.relative_to(d).with_suffix("")): p for d in config_dirs() for p in sorted(d.rglob("*.toml"))}


def find(name: str, key: str = "--config") -> Path:
    """A preset's file by name, or a path to the user's own; ConfigError names `key`."""
    if (found := presets().get(name)) is not None:
        return found
    if os.path.isfile(name):
        return Path(name)
    near = difflib.get_close_matches(name, list(presets()), n=1, cutoff=0.0)
    raise ConfigError(
        f"{key}: {name!r} is neither a preset nor a file" + (f"; the nearest is {near[0]}" if near else "")
    )


def load_toml(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A TOML file as a dict, or ConfigError naming file and line. `base = "NAME"` in it puts its settings on top of
    those of that preset or file; `above` are the files on top of this one."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # tomllib lets more than its own errors through
        raise ConfigError(f"{path}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deep") from None
    if "base" not in values:
        return values
    name = values.pop("base")
    below = find(str(name), f"{path.name}: base").resolve()
    if len(above) == DEEPEST:
        raise ConfigError(f"{path}: base: {DEEPEST} files deep; put their settings together")
    if below in (path.resolve(), *above):
        raise ConfigError(f"{path.name}: base: {name} stands on this file itself")
    return _on_top(values, load_toml(below, (path.resolve(), *above)))


def _on_top(values: dict[str, Any], below: dict[str, Any]) -> dict[str, Any]:
    tables = [name for name in values if isinstance(values[name], dict) and isinstance(below.get(name), dict)]
    return below | values | {name: _on_top(values[name], below[name]) for name in tables}


def load(path: Path) -> RunConfig:
    """The RunConfig that a TOML file describes, on top of the defaults; ConfigError names the file."""
    values = load_toml(path)
    if "sweep" in values:
        raise ConfigError(f"{path.name}: a sweep's file, for `rl-gns sweep`; this verb takes a single run's")
    try:
        return from_table(values, RunConfig())
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from None
