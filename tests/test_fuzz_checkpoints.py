"""Checkpoints that a disk or a hand has damaged: passed over for the one before, or refused in one line."""

import hashlib
import re
import shutil

import pytest
import torch
from damage import changed_arrays, damaged_json, fuzz, wrecks, writes_only_below
from hypothesis import strategies as st
from test_fuzz import refused_in_one_line
from test_fuzz_runs import CASES, GOALS, with_instead
from test_sweep import Heard
from tiny import CARTPOLE, config

from rl_gns.checkpoint import FILES, SUMS
from rl_gns.cli import main
from rl_gns.config import ConfigError
from rl_gns.rundir import RunDir
from rl_gns.study.build import make_learner
from rl_gns.study.sitting import BadCheckpoint, sitting
from rl_gns.study.sweep import Cells, crossing_words
from rl_gns.study.train import train
from rl_gns.study.verify_resume import first_unequal


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A finished run with its last two checkpoints; each test damages it, looks, and mends it."""
    path = tmp_path_factory.mktemp("clean") / "run"
    train(config(CARTPOLE, GOALS), path)
    return path


@CASES
def test_a_damaged_checkpoint_is_skipped_or_refused(cases, clean):
    """What is read is to the bit what the older or the newer one held."""
    run = RunDir(clean)
    older, newest = run.checkpoints()
    known = {path.name: state for path, state in states(run)}

    def check(case):
        which, name, bad = case

        def load():
            state = refused_in_one_line(run.load_checkpoint)
            good = known if which == "newest" else {newest.name: known[newest.name]}
            assert any(first_unequal(each, state, "state") is None for each in good.values())

        folder = older if which == "older" else newest
        with_instead(folder / name, bad, load)

    def bad(where):
        content = (newest / where[1]).read_bytes()
        more = damaged_json(content) if where[1] == "state.json" else wrecks(content)
        return more.map(lambda found: (*where, found))

    places = [(which, name) for which in ("older", "newest") for name in (*FILES, SUMS)]
    fuzz(cases, st.sampled_from(places).flatmap(bad), check)


def with_new_sums(folder, name, content, check):
    """`check` while the file holds `content`, and SHA256SUMS says so."""
    files = {each: content if each == name else (folder / each).read_bytes() for each in FILES}
    lines = (f"{hashlib.sha256(found).hexdigest()}  {each}\n" for each, found in files.items())
    with_instead(folder / name, content, lambda: with_instead(folder / SUMS, "".join(lines).encode(), check))


@CASES
@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_changed_with_its_sums_is_gone_on_from_or_refused(cases, name, clean):
    """What such a value means cannot be known: weights and counters that fit are taken for what they say."""
    run, settings = RunDir(clean), config(CARTPOLE, {**GOALS, "total_env_steps": 1})  # nothing is left to train
    folder, content = run.checkpoints()[-1], (run.checkpoints()[-1] / name).read_bytes()
    learner = make_learner(settings)

    def go_on():
        found = refused_in_one_line(run.newest_checkpoint)
        if found is not None and found[0] == folder:
            with writes_only_below(None):
                went.append(refused_in_one_line(list, sitting(settings, learner, found[1], [])))

    def check(bad):
        with_new_sums(folder, name, bad, go_on)

    went = []
    fuzz(max(cases // 2, 50), changed_arrays(content) if name == FILES[0] else damaged_json(content), check)
    assert None in went and any(went), "some are refused when they are gone on from, and others are not"


def test_a_checkpoint_that_no_trainer_goes_on_from_is_named(clean, tmp_path):
    """By `train`, and in the last line of what a sweep keeps of a cell; it gives way to the one before by hand."""
    path = shutil.copytree(clean, tmp_path / "run")
    older, newest = RunDir(path).checkpoints()
    longer = config(CARTPOLE, {**GOALS, "total_env_steps": 3000})
    words = f"{newest}: no trainer can go on from it (KeyError: 'rng'); move it away to go on from the one before"

    def refused():
        with pytest.raises(ConfigError, match=f"^{re.escape(words)}$"):
            train(longer, path)
        failed = Cells({"run": longer}, tmp_path, Heard(), crossing_words).run(1)
        assert failed["run"].endswith(f"BadCheckpoint: {words}")

    without(newest, b"rng", refused)
    shutil.rmtree(newest)
    assert train(longer, path)["env_steps"] >= 3000 and older.name < newest.name


def without(folder, key, check):
    """`check` while the checkpoint has no such key, and its sums are right."""
    content = (folder / "state.json").read_bytes()
    with_new_sums(folder, "state.json", content.replace(b'"%s"' % key, b'"other"'), check)


@pytest.mark.parametrize("more", [[], ["--all"]], ids=["", "all"])
def test_a_checkpoint_that_cannot_be_measured_is_named(more, clean, capsys):
    (_, newest) = RunDir(clean).checkpoints()

    def refused():
        assert main(["measure", "--run-dir", str(clean), "--max-env-steps", "1000", *more]) == 2
        assert f"{newest}: no trainer can go on from it (KeyError: 'statistics')" in capsys.readouterr().err

    without(newest, b"statistics", refused)


def gone_on_from(clean, monkeypatch, error, cause=None):
    """A sitting whose trainer meets that error where it restores the newest checkpoint."""
    settings, state = config(CARTPOLE, {**GOALS, "total_env_steps": 1}), RunDir(clean).load_checkpoint()

    def fail(self, state):
        raise error from cause

    monkeypatch.setattr("rl_gns.trainer.Trainer.restore", fail)
    list(sitting(settings, make_learner(settings), state, []))


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ConfigError("--learner.device: 'cuda' is not here"), None),
        (torch.OutOfMemoryError("CUDA out of memory"), None),
        (RuntimeError("learner 0 of 2 gave no answer"), None),
        (RuntimeError("learner 0 of 2 failed"), RuntimeError("Connection closed by peer")),
    ],
    ids=["setting", "memory", "silent learner", "learner"],
)
def test_what_is_no_fault_of_the_checkpoint_is_not_laid_to_it(clean, monkeypatch, error, cause):
    """Nobody is told to move a good one away."""
    with pytest.raises(type(error)) as found:
        gone_on_from(clean, monkeypatch, error, cause)
    assert found.value is error


def test_damage_that_one_of_several_learners_meets_is_damage(clean, monkeypatch):
    with pytest.raises(BadCheckpoint, match="KeyError: 'rng'"):
        gone_on_from(clean, monkeypatch, RuntimeError("learner 0 of 2 failed"), KeyError("rng"))


def test_weights_of_another_network_are_damage(clean):
    settings, state = config(CARTPOLE, {**GOALS, "total_env_steps": 1}), RunDir(clean).load_checkpoint()
    weights = state["learner"]["network"]
    name = next(iter(weights))
    for other in ({**weights, name: weights[name][:-1]}, {k: v for k, v in weights.items() if k != name}):
        changed = {**state, "learner": {**state["learner"], "network": other}}
        with pytest.raises(BadCheckpoint, match=f"ValueError: weights of another network: {name}"):
            list(sitting(settings, make_learner(settings), changed, []))


def states(run):
    """(folder, state) of both checkpoints, each read while it is the newest."""
    older, newest = run.checkpoints()
    yield newest, run.load_checkpoint()
    aside = newest.with_name(".aside")
    newest.rename(aside)
    yield older, run.load_checkpoint()
    aside.rename(newest)


def test_every_byte_of_a_checkpoint_counts(clean):
    """A flipped bit anywhere, weights among them, is seen; the older one is read instead."""
    run = RunDir(clean)
    older = [state for _, state in states(run)][1]
    for name in (*FILES, SUMS):
        file = run.checkpoints()[-1] / name
        content = file.read_bytes()
        for at in range(0, len(content), max(1, len(content) // 40)):
            bad = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
            file.write_bytes(bad)
            assert first_unequal(older, run.load_checkpoint(), "state") is None, (name, at)
        file.write_bytes(content)


def test_checkpoints_of_before_have_no_sums_and_are_read(clean):
    run = RunDir(clean)
    expected = run.load_checkpoint()
    for folder in run.checkpoints():
        (folder / SUMS).rename(folder / "aside")
    assert first_unequal(expected, run.load_checkpoint(), "state") is None
    for folder in run.checkpoints():
        (folder / "aside").rename(folder / SUMS)
