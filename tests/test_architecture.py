"""The table of the house: who may import whom, inside and outside, read from the source alone."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 300

# Room -> modules and packages. A module that is in no room is an error: a new room is a decision.
ROOMS = {
    "cli": ["rl_gns.cli", "rl_gns.verbs", "rl_gns.__main__", "rl_gns.flags", "rl_gns.options"],
    "root": ["rl_gns"],
    "study": ["rl_gns.study"],
    "distributed": ["rl_gns.distributed"],
    "trainer": ["rl_gns.trainer"],
    "rollout": ["rl_gns.rollout"],
    "learn": ["rl_gns.learn"],
    "report": ["rl_gns.report"],
    "noise": ["rl_gns.noise"],
    "base": [
        "rl_gns.records",
        "rl_gns.result",
        "rl_gns.chaos",
        "rl_gns.measurement",
        "rl_gns.measurement_all",
        "rl_gns.comparison",
        "rl_gns.control_channel",
        "rl_gns.segments",
        "rl_gns.config",
        "rl_gns.digits",
        "rl_gns.config_rules",
        "rl_gns.config_file",
        "rl_gns.on_disk",
        "rl_gns.checkpoint",
        "rl_gns.lock",
        "rl_gns.rundir",
    ],
    "envs": ["envs"],
    "envs.options": ["envs.options"],
}

# What a room may import of ours besides itself: rooms, or single modules (with a dot). Top to bottom.
INSIDE = {
    "cli": ["root", "study", "distributed", "trainer", "rollout", "learn", "report", "noise", "base", "envs"],
    "root": [],
    "study": ["root", "distributed", "trainer", "rollout", "learn", "noise", "base", "envs"],
    "distributed": [
        "rollout",
        "trainer",
        "learn",
        "rl_gns.segments",
        "rl_gns.records",
        "rl_gns.config",
        "rl_gns.chaos",
    ],
    "trainer": ["learn", "noise", "rl_gns.records", "rl_gns.config"],
    "rollout": [
        "rl_gns.learn.model",
        "rl_gns.segments",
        "rl_gns.control_channel",
        "rl_gns.records",
        "rl_gns.config",
        "envs",
    ],
    "learn": ["noise", "rl_gns.segments", "rl_gns.control_channel", "rl_gns.records", "rl_gns.config"],
    "report": ["noise", "base"],
    "noise": ["rl_gns.records", "rl_gns.config", "rl_gns.control_channel"],
    "base": ["envs.options"],
    "envs": ["envs.options"],
    "envs.options": [],
}
TYPES_ONLY = {
    "trainer": ["rl_gns.rollout.sources"],
    "root": ["rl_gns.config", "rl_gns.learn.meter", "rl_gns.records"],
}  # if TYPE_CHECKING

# What a room may import of others besides the standard library.
OUTSIDE = {
    "cli": ["numpy", "rich", "tyro"],
    "root": [],
    "study": ["numpy", "rich", "scipy", "torch"],
    "distributed": ["numpy", "ray", "torch"],
    "trainer": ["numpy", "torch"],
    "rollout": ["gymnasium", "numpy", "torch"],
    "learn": ["numpy", "torch"],
    "report": ["jinja2", "matplotlib", "numpy", "scipy"],
    "noise": ["numpy", "scipy"],
    "base": ["numpy", "safetensors", "tomli_w"],
    "envs": ["ale_py", "gymnasium", "numpy"],
    "envs.options": [],
}
NO_DISK = {"trainer": {"glob", "io", "os", "pathlib", "shutil", "tempfile"}}  # nor open()


@dataclass(frozen=True)
class Import:
    source: str
    line: int
    target: str
    types_only: bool


def modules(root: Path) -> dict[str, Path]:
    found = {}
    for package in ("rl_gns", "envs"):
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: set[str]) -> Iterator[Import]:
    """Every import of a module, those inside functions too; `from a import b` is a.b where that is a module."""

    def walk(node: ast.AST, types_only: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
                for statement in child.body:
                    yield from walk(ast.Module([statement], []), True)
                yield from walk(ast.Module(child.orelse, []), types_only)
            elif isinstance(child, ast.Import):
                yield from (Import(name, child.lineno, alias.name, types_only) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                package = name if path.name == "__init__.py" else name.rpartition(".")[0]
                up = package.split(".")[: len(package.split(".")) - child.level + 1] if child.level else []
                base = ".".join([*up, *([child.module] if child.module else [])])
                for alias in child.names:
                    full = f"{base}.{alias.name}"
                    yield Import(name, child.lineno, full if full in known else base, types_only)
            else:
                yield from walk(child, types_only)

    return walk(ast.parse(path.read_text(encoding="utf-8")), False)


def within(module: str, home: str) -> bool:
    return module == home or (home != "rl_gns" and module.startswith(home + "."))


def room_of(module: str) -> str | None:
    fitting = [(len(home), room) for room, homes in ROOMS.items() for home in homes if within(module, home)]
    return max(fitting)[1] if fitting else None


def allowed(room: str, target: str, permits: list[str]) -> bool:
    homes = [home for permit in permits for home in ROOMS.get(permit, [permit])]
    return room_of(target) == room or any(within(target, home) for home in homes)


def violations(root: Path) -> list[str]:
    known = modules(root)
    wrong = []
    for name, path in known.items():
        room = room_of(name)
        if room is None:
            wrong.append(f"{name} is in no room")
            continue
        for found in imports(name, path, set(known)):
            where = f"{name}:{found.line} ({room}) imports {found.target}"
            top = found.target.partition(".")[0]
            if top in ("rl_gns", "envs"):
                permits = INSIDE[room] + (TYPES_ONLY.get(room, []) if found.types_only else [])
                if not allowed(room, found.target, permits):
                    wrong.append(where)
            elif top in NO_DISK.get(room, ()) or (top not in sys.stdlib_module_names and top not in OUTSIDE[room]):
                wrong.append(where)
        if room in NO_DISK:
            calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
            wrong += [f"{name}:{f.lineno} opens a file" for f in calls if isinstance(f, ast.Name) and f.id == "open"]
    return wrong + [" -> ".join(cycle) for cycle in cycles(known)]


def cycles(known: dict[str, Path]) -> list[list[str]]:
    edges = {
        name: {found.target for found in imports(name, path, set(known)) if not found.types_only} & set(known) - {name}
        for name, path in known.items()
    }
    found, done = [], set()

    def visit(name: str, trail: list[str]) -> None:
        if name in trail:
            found.append([*trail[trail.index(name) :], name])
        elif name not in done:
            for target in sorted(edges[name]):
                visit(target, [*trail, name])
            done.add(name)

    for name in known:
        visit(name, [])
    return found


def too_long(root: Path) -> list[str]:
    hidden = {path.name for path in root.iterdir() if path.name.startswith(".")} | {"runs", "dist", "build"}
    files = (path for path in root.rglob("*.py") if path.relative_to(root).parts[0] not in hidden)
    lengths = ((path, len(path.read_text(encoding="utf-8").splitlines())) for path in files)
    return [f"{path.relative_to(root)}: {n} lines" for path, n in lengths if n > MAX_LINES]


def test_the_house_stands():
    assert violations(ROOT) == []


def test_no_file_is_longer_than_a_sitting():
    assert too_long(ROOT) == []


def test_the_tables_name_the_same_rooms():
    assert set(ROOMS) == set(INSIDE) == set(OUTSIDE) >= set(TYPES_ONLY) | set(NO_DISK)


@pytest.mark.parametrize(
    "path, code, complaint",
    [
        ("rl_gns/noise/scale.py", "import torch", "torch"),
        ("rl_gns/noise/scale.py", "def f():\n    from rl_gns.learn import meter", "rl_gns.learn"),
        ("rl_gns/learn/ppo.py", "import ray.util", "ray.util"),
        ("rl_gns/study/train.py", "from rl_gns.report.page import write", "rl_gns.report.page"),
        ("rl_gns/study/train.py", "import ray", "ray"),
        ("rl_gns/rollout/sources.py", "from rl_gns.learn.learner import Learner", "rl_gns.learn.learner"),
        ("rl_gns/rollout/sources.py", "from ..learn import learner", "rl_gns.learn"),
        ("rl_gns/trainer.py", "from pathlib import Path", "pathlib"),
        ("rl_gns/trainer.py", "def f():\n    return open('x')", "opens a file"),
        ("rl_gns/trainer.py", "from rl_gns.rollout.sources import SegmentSource", "rl_gns.rollout.sources"),
        ("rl_gns/distributed/tasks.py", "import envs", "envs"),
        ("rl_gns/report/page.py", "import torch", "torch"),
        ("rl_gns/config.py", "from envs import atari", "envs"),
        ("rl_gns/records.py", "import pandas", "pandas"),
        ("rl_gns/noise/scale.py", "from rl_gns import RunConfig", "rl_gns"),
        ("rl_gns/__init__.py", "from rl_gns.config import RunConfig", "rl_gns.config"),
        ("envs/chain.py", "from rl_gns.config import RunConfig", "rl_gns.config"),
        ("envs/options.py", "import numpy", "numpy"),
        ("rl_gns/extras.py", "", "is in no room"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, path, code, complaint):
    plant(tmp_path, {path: code})
    assert len(violations(tmp_path)) == 1 and complaint in violations(tmp_path)[0]


def test_what_is_allowed_is_not_a_violation(tmp_path):
    types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rl_gns.rollout.sources import SegmentSource"
    plant(
        tmp_path,
        {
            "rl_gns/trainer.py": types,
            "rl_gns/rollout/sources.py": "import envs\nfrom rl_gns.learn import model\nfrom . import collector",
            "rl_gns/rollout/collector.py": "import gymnasium as gym",
            "rl_gns/learn/model.py": "import torch.nn as nn",
            "rl_gns/distributed/session.py": "def f():\n    import ray",
            "rl_gns/cli.py": "from rl_gns import __version__",
            "rl_gns/config.py": "from envs.options import AtariOptions",
            "envs/options.py": "import dataclasses",
            "envs/__init__.py": "from envs.options import AtariOptions",
        },
    )
    assert violations(tmp_path) == []


def test_a_cycle_is_found(tmp_path):
    plant(tmp_path, {"rl_gns/noise/a.py": "from rl_gns.noise import b", "rl_gns/noise/b.py": "import rl_gns.noise.a"})
    assert violations(tmp_path) == ["rl_gns.noise.a -> rl_gns.noise.b -> rl_gns.noise.a"]


def test_a_long_file_is_found(tmp_path):
    plant(tmp_path, {"rl_gns/noise/a.py": "x = 1\n" * (MAX_LINES + 1), ".venv/b.py": "x = 1\n" * 999})
    assert too_long(tmp_path) == ["rl_gns/noise/a.py: 301 lines"]


def plant(root: Path, files: dict[str, str]) -> None:
    for path, code in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(code)
