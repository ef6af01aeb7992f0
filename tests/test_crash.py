"""Drivers that are killed, disks that are full or refuse, clocks that jump: no update lost or doubled, no half file."""

import ast
import os
import random
import re
import shutil
import signal
import subprocess
import time

import pytest
from driver import driver
from test_architecture import ROOT
from tiny import CARTPOLE, CHAIN, config, fingerprint, finished, numbers

from rl_gns.checkpoint import read_checkpoint
from rl_gns.config_file import to_toml
from rl_gns.on_disk import parse_json
from rl_gns.rundir import RunDir
from rl_gns.study.build import make_learner
from rl_gns.study.status import look
from rl_gns.study.verify_resume import first_unequal
from rl_gns.trainer import Trainer

CHEAP = {"checkpoint": {"every_env_steps": 500}, "noise": {"every": 10, "across_env_steps": 0}}
CHEAP |= {"batch": {"size": 256, "minibatches": 1, "epochs": 1, "segment_steps": 16}, "total_env_steps": 16_000}
SETTINGS = config(CARTPOLE, CHEAP)
BY_CLOCK, BY_FILE, BY_SIZE = 10, 8, 2
LINE = re.compile(r"rl-gns: --run-dir: \S+: [^\n]+; (make room|give one)[^\n]+")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    path = tmp_path_factory.mktemp("settings") / "run.toml"
    path.write_text(to_toml(SETTINGS))
    return path


@pytest.fixture(scope="module")
def forks():
    with driver() as made:
        yield made


def train(settings, path, **how):
    return {"run": ["train", "--config", str(settings), "--json", "--run-dir", str(path)], **how}


def ended(forks, order=None):
    """(exit code, what it said beside its progress) of a command, or of the one that has begun."""
    code, said = forks.run(order) if order else forks.wait()
    return code, [line for line in said.splitlines() if ": env steps " not in line]


@pytest.fixture(scope="module")
def unbroken(settings, forks, tmp_path_factory):
    path = tmp_path_factory.mktemp("unbroken") / "run"
    assert ended(forks, train(settings, path)) == (0, [])
    return path


def check_files(path):
    """Whatever stands under its name is whole; what is not is a draft, and at most a log's last line is cut short."""
    for file in path.rglob("*"):
        below = file.relative_to(path).parts
        if file.is_dir() or any(part.startswith(".") for part in below):
            continue
        if file.suffix == ".json" and below[0] != "checkpoints":
            parse_json(file.read_bytes())
    for folder in RunDir(path).checkpoints():
        read_checkpoint(folder)
    assert [r["update"] for r in RunDir(path).records()] == list(range(len(list(RunDir(path).records()))))
    if (path / "config.toml").exists():
        RunDir(path).config()


def check_same(unbroken, path):
    """Every update once, with its numbers; everything in the last checkpoint; the result; and no drafts."""
    there, here = RunDir(unbroken), RunDir(path)
    assert [numbers(r) for r in there.records()] == [numbers(r) for r in here.records()]
    assert [p.name for p in there.checkpoints()] == [p.name for p in here.checkpoints()]
    assert first_unequal(there.load_checkpoint(), here.load_checkpoint(), "checkpoint") is None
    assert numbers(there.read_result()) == numbers(here.read_result())
    assert [p for p in path.rglob("*.tmp")] == []


def updates(path):
    return len(list(RunDir(path).records()))


def wait_for(path, wanted, seconds=240.0):
    """Until so many updates are recorded."""
    deadline = time.monotonic() + seconds
    log = path / "metrics.jsonl"
    while not log.exists() or log.read_bytes().count(b"\n") < wanted:
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow
def test_a_driver_killed_at_twenty_random_moments_is_the_unbroken_run(settings, forks, unbroken, tmp_path):
    """Some updates on and a moment later; between two changes to its directory; in the middle of a file."""
    draw, path, stood_at = random.Random(6), tmp_path / "run", []
    hows = ["clock"] * BY_CLOCK + ["events"] * BY_FILE + ["limit"] * BY_SIZE
    draw.shuffle(hows)
    biggest = max(p.stat().st_size for p in unbroken.rglob("*.safetensors"))
    for how in hows:
        if how == "clock":
            ahead = (updates(path) if path.exists() else 0) + draw.randrange(3)
            pid = forks.start(train(settings, path))
            wait_for(path, ahead)
            time.sleep(draw.uniform(0, 0.05))
            os.kill(pid, signal.SIGKILL)
        else:
            least, most = (0, 25) if how == "events" else (biggest // 8, biggest)
            forks.start(train(settings, path, **{how: draw.randrange(least, most)}))
        number = signal.SIGXFSZ if how == "limit" else signal.SIGKILL
        assert ended(forks) == (-number, []), f"{how}: it had not ended"
        check_files(path)
        stood_at.append(updates(path))
    assert ended(forks, train(settings, path)) == (0, [])
    check_same(unbroken, path)
    assert len(set(stood_at)) > 5, "they struck all over the run"


@pytest.mark.slow
def test_a_notice_is_answered_with_a_checkpoint(settings, forks, unbroken, tmp_path):
    path = tmp_path / "run"
    pid = forks.start(train(settings, path))
    wait_for(path, 11)
    start = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    code, said = ended(forks)
    assert time.monotonic() - start < 10 and code == 143 and len(said) == 1 and "run the same command again" in said[0]
    *_, last = RunDir(path).records()
    assert last["env_steps"] == int(RunDir(path).checkpoints()[-1].name) < SETTINGS.total_env_steps
    assert ended(forks, train(settings, path)) == (0, [])
    check_same(unbroken, path)


MOUNTED = """set -e
mount -t tmpfs -o size=2m none "$1"
mkdir "$1/run" "$1/run/checkpoints"
shift
exec "$@"
"""
NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount", "--time", "--monotonic", "864000")


def why_no_namespaces():
    if shutil.which("unshare") is None:
        return "unshare is not installed (util-linux)"
    done = subprocess.run([*NAMESPACES, "true"], capture_output=True, text=True)
    return f"no user, mount and time namespaces: {done.stderr.strip()}" if done.returncode else None


def leave(disk, free_pages):
    """Fill the disk but for so many pages of 4 KiB."""
    room = (os.statvfs(disk).f_bavail - free_pages) * 4096
    with open(disk / "ballast", "ab", buffering=0) as file:
        if room > 0:
            file.write(bytes(room))
        else:
            file.truncate(file.tell() + room)


def refused(inside, order, seen):
    """The command ends with one line about its directory, and leaves whole files."""
    code, said = ended(inside, order)
    assert code == 2 and len(said) == 1 and LINE.fullmatch(said[0]), (code, said)
    check_files(seen)
    return updates(seen)


@pytest.mark.slow
@pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces() or "-")
def test_disks_that_are_full_or_refuse_and_a_clock_that_jumps(settings, forks, unbroken, tmp_path):
    """Each ends in one line, and the same command goes on. Then the directory comes to a machine whose monotonic clock
    stands ten days earlier, its files an hour ahead of the wall clock."""
    disk, path, moved = tmp_path / "disk", tmp_path / "disk" / "run", tmp_path / "moved"
    disk.mkdir()
    order = train(settings, path)
    with driver(*NAMESPACES, "bash", "-c", MOUNTED, "bash", str(disk)) as inside:
        there = inside.root / disk.relative_to("/")
        seen, shell = there / "run", lambda line: inside.run({"shell": line})
        stood_at = []
        for free_pages in (0, 1, 4, 12, 40):
            leave(there, free_pages)
            stood_at.append(refused(inside, order, seen))
        assert stood_at[0] == 0 < stood_at[-1] < len(list(RunDir(unbroken).records()))
        assert shell(f"mount -o remount,ro {disk}") == (0, "")
        assert refused(inside, order, seen) == stood_at[-1] and look(seen, "run").state == "stopped"
        assert shell(f"mount -o remount,rw {disk} && rm {disk}/ballast") == (0, "")
        bind = f"mount --bind {path}/checkpoints {path}/checkpoints"
        assert shell(f"{bind} && mount -o remount,bind,ro {path}/checkpoints") == (0, "")
        refused(inside, order, seen)
        shutil.copytree(seen, moved)
    for file in [moved, *moved.rglob("*")]:
        os.utime(file, (time.time() + 3600,) * 2)
    status = look(moved, "run")
    assert status.state == "stopped" and status.seconds_since_write == 0
    assert ended(forks, train(settings, moved)) == (0, [])
    check_same(unbroken, moved)
    assert all(record["seconds"] >= 0 for record in RunDir(moved).records())


@pytest.mark.slow
def test_a_wall_clock_that_jumps_during_a_run_moves_no_record(settings, forks, unbroken, tmp_path):
    """To and fro by an hour at every look, in the run's own process: seconds stay what passed."""
    path, start = tmp_path / "run", time.monotonic()
    assert ended(forks, train(settings, path, jumps=True)) == (0, [])
    check_same(unbroken, path)
    seconds = [record[name] for record in RunDir(path).records() for name in record if name.endswith("seconds")]
    assert all(0 <= each < time.monotonic() - start for each in seconds)


def wall_clock_reads(source):
    """(line, what) of every look at a clock that may jump."""
    names = {"time", "time_ns", "now", "utcnow", "today", "st_mtime", "getmtime"}
    clocks = {"time", "datetime", "date"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in names:
            of_a_clock = isinstance(node.value, ast.Name) and node.value.id in clocks
            if of_a_clock or node.attr.endswith("mtime"):
                yield node.attr
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (alias.name for alias in node.names if alias.name in names)


def test_durations_are_taken_from_clocks_that_do_not_jump():
    """Asked of the wall clock: a file's age, for people; the date in provenance.json; when Ray says a node will go; the
    second in the name of TensorBoard's next file."""
    found = {
        str(path.relative_to(ROOT / "rl_gns")): sorted(wall_clock_reads(path.read_text()))
        for path in (ROOT / "rl_gns").rglob("*.py")
    }
    assert {name: reads for name, reads in found.items() if reads} == {
        "study/status.py": ["st_mtime", "time"],
        "study/provenance.py": ["now"],
        "distributed/supply.py": ["time"],
        "study/tensorboard.py": ["time"],
    }


BIG = {
    **CHAIN,
    "total_env_steps": 1_000_000,
    "batch": {"size": 1_966_080, "segment_steps": 60, "minibatches": 1, "epochs": 1},
    "rollout": {"columns_per_collector": 16_384, "scatter_env_steps": 0, "burn_in_env_steps": 0},
    "noise": {"every": 0, "across_env_steps": 0},
}
ROW_BYTES = 4 * 4 + 8 + 4 * 4 + 3
"""At least: frame, action, four float32, three flags."""


@pytest.mark.cluster
@pytest.mark.slow
def test_blocks_that_do_not_fit_into_the_object_store_come_whole():
    """Two actors return two blocks at a time, more than the store holds: Ray puts on disk what does not fit."""
    from rl_gns.distributed import session
    from rl_gns.distributed.rollout_actors import RaySource

    settings_ = config(BIG)
    assert settings_.batch.size * ROW_BYTES > session.MIN_OBJECT_STORE and settings_.collectors(1_966_080) == 2
    with session.start(2, 0):
        source = RaySource(settings_, 2)
        run = Trainer(settings_, make_learner(settings_), source)
        records = list(run.run())
        source.close()
    assert [r.faults for r in records] == [[]]
    local, expected = finished(settings_)
    assert [numbers(r) for r in records] == [numbers(r) for r in expected]
    assert fingerprint(run.learner) == fingerprint(local.learner)
