"""Rollouts larger than the checkpoints' interval: a run that stops before its first checkpoint goes on all the same."""

import shutil

import pytest
from test_crash import (
    CHEAP,
    NAMESPACES,
    check_files,
    check_same,
    driver,
    ended,
    leave,
    refused,
    train,
    updates,
    why_no_namespaces,
)
from tiny import CARTPOLE, config, finished

from rl_gns.config import ConfigError
from rl_gns.config_file import to_toml
from rl_gns.rundir import RunDir
from rl_gns.study.sitting import Began
from rl_gns.study.train import Keeper
from rl_gns.study.train import train as train_here

ROLLOUT = 4096
FEW = config(CARTPOLE, {**CHEAP, "batch": {**CHEAP["batch"], "size": ROLLOUT}, "total_env_steps": 2 * ROLLOUT})
"""Each rollout passes eight multiples of `every_env_steps`."""
MOUNTED = 'mount -t tmpfs -o size=2m none "$1" && mkdir "$1/run" && shift && exec "$@"'


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    path = tmp_path_factory.mktemp("settings") / "run.toml"
    path.write_text(to_toml(FEW))
    return path


@pytest.fixture(scope="module")
def forks():
    with driver() as made:
        yield made


@pytest.fixture(scope="module")
def unbroken(settings, forks, tmp_path_factory):
    path = tmp_path_factory.mktemp("unbroken") / "run"
    assert ended(forks, train(settings, path)) == (0, [])
    return path


def stands_between(path):
    """One line is recorded, and its checkpoint is not."""
    check_files(path)
    return updates(path) == 1 and RunDir(path).checkpoints() == []


def weights_file(unbroken):
    return RunDir(unbroken).checkpoints()[-1] / "arrays.safetensors"


@pytest.mark.slow
def test_a_kill_in_the_middle_of_the_first_checkpoint(settings, forks, unbroken, tmp_path):
    path = tmp_path / "run"
    assert weights_file(unbroken).stat().st_size > (unbroken / "metrics.jsonl").stat().st_size
    limit = weights_file(unbroken).stat().st_size - 1
    assert ended(forks, train(settings, path, limit=limit))[0] < 0 and stands_between(path)
    assert ended(forks, train(settings, path)) == (0, [])
    check_same(unbroken, path)


@pytest.mark.slow
@pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces() or "-")
def test_a_disk_that_is_full_at_the_first_checkpoint(settings, forks, unbroken, tmp_path):
    disk, moved = tmp_path / "disk", tmp_path / "moved"
    disk.mkdir()
    with driver(*NAMESPACES, "bash", "-c", MOUNTED, "bash", str(disk)) as inside:
        there = inside.root / disk.relative_to("/")
        leave(there, weights_file(unbroken).stat().st_size // 4096)
        assert refused(inside, train(settings, disk / "run"), there / "run") == 1 and stands_between(there / "run")
        shutil.copytree(there / "run", moved)
    assert ended(forks, train(settings, moved)) == (0, [])
    check_same(unbroken, moved)


def test_lines_that_a_checkpoint_must_have_stood_before_are_not_thrown_away(tmp_path):
    """The newest line alone may lack its own: it stands on disk first."""
    _, (first, second, *_) = finished(FEW)
    keeper = Keeper(FEW, tmp_path / "run")
    keeper.open()
    keeper.keep(first)
    assert keeper.resume() == (None, []) and updates(keeper.run.path) == 0
    keeper.keep(first)
    keeper.keep(second)
    with pytest.raises(ConfigError, match=r"has recorded [0-9,]+ env steps, but no checkpoint"):
        keeper.resume()
    keeper.close()
    assert updates(keeper.run.path) == 2


@pytest.mark.parametrize("lost", [False, True], ids=["none was due", "they are gone"])
def test_lines_are_judged_by_the_interval_that_they_were_written_with(lost, tmp_path):
    """And not by the next sitting's, however often it is tried: a smaller one locks no run out, a larger one begins
    none anew."""
    before, after = (100_000, 100) if not lost else (100, 100_000)
    first, then = (config(CARTPOLE, {"checkpoint": {"every_env_steps": every}}) for every in (before, after))
    keeper = Keeper(first, tmp_path / "run")
    keeper.open()
    keeper.keep(Began({}))
    for record in finished(first)[1]:
        keeper.keep(record)
    keeper.close()
    for _ in range(2):
        again = Keeper(then, tmp_path / "run")
        again.open()
        if lost:
            with pytest.raises(ConfigError, match=r"but no checkpoint, due every 100$"):
                again.resume()
        again.close()
    assert lost or train_here(then, tmp_path / "run")["env_steps"] >= then.total_env_steps
    assert again.run.config() == (first if lost else then)
