"""What disks and hands do to files, as strategies; and a watch over every file that is written meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

HOSTILE = (
    *("../x", "../../etc/x", "/tmp/x", "/dev/zero", "..", ".", "~", "a/../../b", "x/y", "", " ", "-", "--json"),
    *("\0", "a\0b", "\n", "a\nb", "\x1b[2J", "\u202e", "\u2028", "é", "💥", "$(id)", "a" * 300, "a" * 5000),
)
"""Names that mean something to a shell, a terminal or a file system, and some that are too long."""
HUGE = (2**31, 2**63 - 1, 2**63, -(2**63), 10**20, -(10**20), 10**400, 0, -1, 1e308, -1e308, 5e-324)

names = st.sampled_from(HOSTILE) | st.text(max_size=8)
scalars = names | st.integers() | st.sampled_from(HUGE) | st.booleans() | st.floats()
json_values = st.recursive(
    st.none() | scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


def fuzz(cases: int, strategy: st.SearchStrategy, check: Callable[[Any], None]) -> None:
    """`check` on so many cases, the same ones at every call."""
    health = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    rules = settings(max_examples=cases, derandomize=True, deadline=None, database=None, suppress_health_check=health)

    @rules
    @given(strategy)
    def judge(case):
        check(case)

    judge()


@st.composite
def flips(draw, content: bytes) -> bytes:
    """One byte changed."""
    at, by = draw(st.integers(0, len(content) - 1)), draw(st.integers(1, 255))
    return content[:at] + bytes([content[at] ^ by]) + content[at + 1 :]


@st.composite
def cuts(draw, content: bytes) -> bytes:
    """A piece lost, doubled, or something put in."""
    start, end = sorted((draw(st.integers(0, len(content))), draw(st.integers(0, len(content)))))
    return draw(
        st.sampled_from(
            (content[:end], content[start:], content[:start] + content[end:], content[:end] + content[start:])
        )
        | st.binary(max_size=20).map(lambda more: content[:start] + more + content[start:])
    )


def garbage() -> st.SearchStrategy[bytes]:
    """Another file altogether."""
    deep = st.integers(1, 200_000).flatmap(lambda n: st.sampled_from((b"[" * n, b'{"a":' * n, b"[" * n + b"]" * n)))
    other = json_values.map(lambda value: json.dumps(value).encode() + b"\n")
    return st.binary(max_size=200) | other | deep | st.integers(1, 5000).map(lambda n: b"9" * n + b"\n")


@st.composite
def replaced_values(draw, value: Any) -> Any:
    """JSON values with one of them, at any depth, replaced, renamed or lost."""
    if not isinstance(value, (dict, list)) or not value or draw(st.integers(0, 5)) == 0:
        return draw(json_values)
    copy = value.copy()
    key = draw(st.sampled_from(sorted(copy)) if isinstance(copy, dict) else st.integers(0, len(copy) - 1))
    match draw(st.integers(0, 7)):
        case 0:
            del copy[key]
        case 1 if isinstance(copy, dict):
            copy[draw(names)] = copy.pop(key)
        case _:
            copy[key] = draw(replaced_values(copy[key]))
    return copy


def damaged_json(content: bytes) -> st.SearchStrategy[bytes]:
    """One JSON file, in every way."""
    return wrecks(content) | replaced_values(json.loads(content)).map(lambda value: json.dumps(value).encode())


@st.composite
def changed_arrays(draw, content: bytes) -> bytes:
    """A safetensors file; whole, with one array of other values, of another kind or shape, or lost."""
    if draw(st.booleans()):
        return draw(wrecks(content))
    arrays = load(content)
    name = draw(st.sampled_from(sorted(arrays)))
    array = arrays.pop(name)
    flat, float_ = array.ravel(), array.astype(float)
    others = (array[None], flat[:-1], np.zeros(0), float_, float_ * np.nan, np.zeros_like(array), array > 0)
    other = draw(st.none() | st.sampled_from(others))
    return save(arrays if other is None else {**arrays, name: other})


@st.composite
def damaged_lines(draw, content: bytes) -> bytes:
    """One JSON value a line; a line of it, or the whole."""
    if draw(st.booleans()):
        return draw(wrecks(content))
    lines = content.splitlines(keepends=True)
    at = draw(st.integers(0, len(lines) - 1))
    new = draw(replaced_values(json.loads(lines[at])).map(lambda value: json.dumps(value).encode() + b"\n"))
    return b"".join(
        [*lines[:at], *draw(st.sampled_from(([new], [], [lines[at]] * 2, [new, lines[at]]))), *lines[at + 1 :]]
    )


def wrecks(content: bytes) -> st.SearchStrategy[bytes]:
    """Any file."""
    return flips(content) | cuts(content) | garbage()


WRITES: list[str] | None = None
"""Paths written to, while someone watches."""
CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.truncate", "shutil.rmtree")


def _hook(event: str, arguments: tuple) -> None:
    if WRITES is None:
        return
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND):
        WRITES.append(os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes)) else "")
    elif event in CHANGES and not (event in ("os.remove", "os.rmdir") and arguments[-1] != -1):  # else shutil.rmtree's
        WRITES.extend(os.fsdecode(each) for each in arguments[:2] if isinstance(each, (str, bytes, os.PathLike)))


sys.addaudithook(_hook)


@contextlib.contextmanager
def writes_only_below(directory: Path | None):
    """AssertionError where Python writes, makes, moves or deletes a file elsewhere; None: anywhere at all."""
    global WRITES
    WRITES = []
    try:
        yield
    finally:
        written, WRITES = WRITES, None
    inside = None if directory is None else directory.resolve()
    strangers = [p for p in written if p and (inside is None or not Path(p).resolve().is_relative_to(inside))]
    assert [p for p in strangers if "__pycache__" not in p] == []
