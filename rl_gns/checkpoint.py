"""A checkpoint's folder: arrays.safetensors, state.json, and SHA256SUMS over both. No pickle.

    {"a": [array, 1]}  ->  state.json {"dict": {"a": {"list": [{"array": "/a/0", "shape": [3]}, {"value": 1}]}}}

`sha256sum -c SHA256SUMS` checks one by hand. A flipped bit of a weight would otherwise be another policy.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from rl_gns.on_disk import DAMAGE, parse_json

FILES = ("arrays.safetensors", "state.json")
SUMS = "SHA256SUMS"


def write_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` (nested dicts and lists of arrays and JSON values) as a folder, synced."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    arrays: dict[str, np.ndarray] = {}
    plain = json.dumps(_split(state, "", arrays), allow_nan=False)
    contents = dict(zip(FILES, (save(arrays), plain.encode()), strict=True))
    for name, content in {**contents, SUMS: _sums(contents)}.items():
        with open(folder / name, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The state that `write_checkpoint` wrote there; OSError or ValueError where it is not that any more. Those of
    before 2026-11-24 have no SHA256SUMS and are taken as they are."""
    contents = {name: (folder / name).read_bytes() for name in FILES}
    if (folder / SUMS).exists() and (folder / SUMS).read_bytes() != _sums(contents):
        raise ValueError(f"its files are not those of its {SUMS}")
    try:
        return _join(parse_json(contents["state.json"]), load(contents["arrays.safetensors"]))
    except DAMAGE as error:
        raise ValueError(f"damaged ({type(error).__name__}: {error})") from None


def put_checkpoint(draft: Path, final: Path) -> None:
    """The draft takes its place, or another checkpoint's."""
    if final.exists():
        remove_checkpoint(final)
    os.replace(draft, final)
    descriptor = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_checkpoint(folder: Path) -> None:
    """Gone at once: what a kill leaves of it is a draft, and no checkpoint that lacks a file."""
    gone = folder.with_name(f".{folder.name}.old.tmp")
    os.replace(folder, gone)
    shutil.rmtree(gone)


def _sums(contents: dict[str, bytes]) -> bytes:
    return "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in contents.items()).encode()


def _split(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """The JSON skeleton of `value`; each array moves to `arrays` and leaves its name behind."""
    if isinstance(value, np.ndarray):
        arrays[name] = np.ascontiguousarray(value)
        return {"array": name, "shape": list(value.shape)}
    if isinstance(value, dict):
        return {"dict": {k: _split(v, f"{name}/{k}", arrays) for k, v in value.items()}}
    if isinstance(value, (list, tuple)):
        return {"list": [_split(v, f"{name}/{i}", arrays) for i, v in enumerate(value)]}
    return {"value": value.item() if isinstance(value, np.generic) else value}


def _join(node: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    if "array" in node:
        return arrays[node["array"]].reshape(node["shape"])
    if "dict" in node:
        return {k: _join(v, arrays) for k, v in node["dict"].items()}
    if "list" in node:
        return [_join(v, arrays) for v in node["list"]]
    return node["value"]
