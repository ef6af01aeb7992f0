"""A driver that is killed with rollout actors in a Ray of its own."""

import os
import random
import re
import shutil
import signal
import time

import pytest
from driver import driver
from test_actor_faults import gone
from test_crash import SETTINGS, check_files, check_same, ended, train, updates, wait_for
from test_faults import children

from rl_gns.config_file import to_toml

AGENTS = re.compile(r"ray::(DashboardAgent|RuntimeEnvAgent)|.*ray/(dashboard|_private/runtime_env/agent)/\S+\.py ")
"""Ray's own helpers of a node, by title or, at first, by file: they look for their raylet now and then, and end 40 to
70 s after it (measured)."""


def killed_at(wanted, forks, order, path):
    """Updates on disk when it was killed: at so many, or, at none, while Ray starts; and a moment later."""
    pid = forks.start(order)
    while not (theirs := {p: c for p, c in children(pid).items() if "raylet" in c}):
        time.sleep(0.05)
    if wanted:
        wait_for(path, wanted)
    time.sleep(random.Random(wanted).uniform(0, 0.5))
    theirs |= children(pid)
    os.kill(pid, signal.SIGKILL)
    assert ended(forks) == (-signal.SIGKILL, []), "it had not ended"
    assert wanted == 0 or sum("CollectorHost" in command for command in theirs.values()) == 2
    assert [c for p, c in theirs.items() if not AGENTS.match(c) and not gone(p)] == [], "nothing outlives it for long"
    shutil.rmtree(next(re.search(r"/\S*/gns-\w+", c)[0] for c in theirs.values() if "/gns-" in c), True)
    check_files(path)
    return updates(path)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_driver_killed_with_its_actors_is_the_unbroken_run_and_leaves_none(tmp_path):
    """Two actors in a Ray of its own; killed while Ray starts, behind no checkpoint, and behind some."""
    settings, unbroken, path = tmp_path / "run.toml", tmp_path / "unbroken", tmp_path / "run"
    settings.write_text(to_toml(SETTINGS))
    order = train(settings, path)
    order["run"] += ["--actors", "2"]
    with driver() as forks:
        stood_at = [killed_at(wanted, forks, order, path) for wanted in (0, 1, 20)]
        assert ended(forks, order) == ended(forks, train(settings, unbroken)) == (0, [])
    check_same(unbroken, path)
    assert stood_at[-1] >= 20 and len(set(stood_at)) > 1
