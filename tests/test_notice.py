"""SIGTERM as a notice: where a rollout or its evaluation is given up, and what is on disk then."""

import copy
import math
import os
import signal
import threading
import time
import types

import pytest
from tiny import CARTPOLE, config, numbers

import rl_gns.study.sitting
from rl_gns.records import UpdateRecord
from rl_gns.rundir import RunDir
from rl_gns.study import notice
from rl_gns.study.build import make_learner
from rl_gns.study.sitting import sitting
from rl_gns.study.train import train
from rl_gns.study.verify_resume import first_unequal

LONG = config(CARTPOLE, {"batch": {"size": 4096, "minibatches": 2, "segment_steps": 256}, "total_env_steps": 20_000})
"""Three rollouts, each longer than the tests' notice."""
JUDGED = config(CARTPOLE, {"goals": [500.0], "evaluation_episodes": 5_000, "total_env_steps": 700})
"""Three short rollouts, each with an evaluation that takes many times as long (seconds)."""


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def until_notice(settings, monkeypatch, finish):
    """(events, names of the functions that were left) of a sitting that is told to end just after its first rollout,
    and has `finish(first record)` seconds then."""
    found = []
    with notice.noticing() as noticed, pytest.raises(notice.Terminated) as left:
        for event in sitting(settings, make_learner(settings), None, [], noticed):
            found.append(event)
            if isinstance(event, UpdateRecord):
                monkeypatch.setattr(notice, "FINISH_SECONDS", finish(event))
                threading.Timer(0.05, terminate).start()
    return found, [frame.name for frame in left.traceback]


def records(events):
    return [numbers(event) for event in events if isinstance(event, UpdateRecord)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "finish", "where"),
    [(LONG, lambda first: 0.05, "run"), (JUDGED, lambda first: first.seconds, "evaluate")],
    ids=["rollout", "evaluation"],
)
def test_what_takes_too_long_is_given_up_and_the_state_before_it_written(settings, finish, where, monkeypatch):
    whole = list(sitting(settings, make_learner(settings), None, []))
    (_, first, kept), left = until_notice(settings, monkeypatch, finish)
    assert where in left and ("evaluate" in left) == (where == "evaluate")
    assert kept.env_steps == first.env_steps == kept.state["counters"]["env_steps"]
    rest = list(sitting(settings, make_learner(settings), kept.state, []))
    assert records([first, *rest]) == records(whole) and len(records(whole)) == 3
    assert first_unequal(whole[-1].state, rest[-1].state, "checkpoint") is None


def test_a_copy_that_takes_too_long_is_given_up_and_the_one_before_it_written(monkeypatch):
    """The notice's time runs out while the second copy is being made."""
    settings, copied, found = config(CARTPOLE), [], []

    def slow(state):
        copied.append(state["counters"]["env_steps"])
        if len(copied) == 2:
            terminate()
            time.sleep(60)
        return copy.deepcopy(state)

    monkeypatch.setattr(notice, "FINISH_SECONDS", 0.05)
    monkeypatch.setattr(rl_gns.study.sitting, "COPY_SHARE", math.inf)
    monkeypatch.setattr(rl_gns.study.sitting, "copy", types.SimpleNamespace(deepcopy=slow))
    with notice.noticing() as noticed, pytest.raises(notice.Terminated):
        for event in sitting(settings, make_learner(settings), None, [], noticed):
            found.append(event)
    _, first, second, kept = found
    assert copied == [first.env_steps, second.env_steps]
    assert kept.env_steps == first.env_steps == kept.state["counters"]["env_steps"]


def test_what_is_on_its_way_to_the_disk_is_not_given_up(monkeypatch, tmp_path):
    """The time runs out while a record is shown: it is on disk, and so is its checkpoint; no moment lies between."""
    monkeypatch.setattr(notice, "FINISH_SECONDS", 0.05)
    monkeypatch.setattr(notice, "HELD_SECONDS", 1e-5)

    def slow(record):
        if record.update == 2:
            terminate()
            time.sleep(0.5)

    with notice.noticing() as noticed, pytest.raises(notice.Terminated):
        train(config(CARTPOLE), tmp_path, slow, noticed)
    *_, last = RunDir(tmp_path).records()
    assert last["update"] == 2 and RunDir(tmp_path).load_checkpoint()["counters"]["env_steps"] == last["env_steps"]
