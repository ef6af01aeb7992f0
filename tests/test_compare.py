"""A comparison in one process: real CartPole cells, what is reused, refused, forced, fitted into a time."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
from test_sweep import Heard
from tiny import CARTPOLE, config, numbers

from rl_gns.comparison import GamesCompared
from rl_gns.config import ConfigError
from rl_gns.noise.scale import hopeless_reasons
from rl_gns.records import PARTS, to_json
from rl_gns.rundir import RunDir
from rl_gns.study.compare import COMPARE, Settings, compare
from rl_gns.study.compare_fronts import measured_ratio
from rl_gns.study.compare_measure import finished
from rl_gns.study.compare_plan import ask, cells, protocol_words
from rl_gns.study.compare_pool import over
from rl_gns.study.compare_reuse import left_in, may_read_low, serving
from rl_gns.study.compare_table import show
from rl_gns.study.measure import measure
from rl_gns.study.pooled import pool
from rl_gns.study.train import train

EIGHT_COLUMNS = {
    "batch": {**CARTPOLE["batch"], "segment_steps": 32}
}  # each is burnt in for 1,024 env steps a measurement
SETTINGS = config(CARTPOLE, EIGHT_COLUMNS)
RESULTS = Path(__file__).resolve().parent.parent / "docs/results"
FRONT = RESULTS / "2026-11-23-cartpole-front"


def asked(games="CartPole", stages="fresh,512", seeds=2, initialisations=3, env_steps=1500, base=SETTINGS):
    return ask(base, games, stages, seeds, initialisations, env_steps)


def run(path, what=None, **settings):
    heard = Heard()
    return compare(what or asked(), path, Settings(cells_at_once=1, **settings), heard), heard


class Listening(Heard):
    """All that was said of a cell."""

    def say(self, name, words):
        super().say(name, self.said.get(name, "") + words)


def told(found):
    """What a comparison found, without clocks, machines and places."""
    cells = [numbers(dataclasses.asdict(cell)) | {"run": None, "reused": None} for cell in found.cells]
    return to_json(found.results), cells, found.missing


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    path = tmp_path_factory.mktemp("compare")
    return path, *run(path)


def test_games_are_measured_alike_at_every_stage(done):
    path, found, heard = done
    assert found.missing == {} and found.forced == [] and len(found.cells) == 3 + 2
    assert heard.trained == {"CartPole-train-s0", "CartPole-train-s1"}
    assert [(row.stage, row.seeds) for row in found.results] == [(0, [0, 1, 2]), (512, [0, 1])]
    for cell in found.cells:
        assert cell.env_steps >= (500 if cell.stage == 0 else 750) and cell.episodes > 0
        assert 0 <= cell.policy_env_steps - cell.stage < 256 and (cell.stage == 0) == (cell.run is None)
    for row in found.results:
        assert set(row.noise) == set(PARTS) and (row.growth is None) == (row.stage == 0)
        assert row.noise["rest"].unit == ("seeds" if len(row.seeds) >= 3 else "groups")
        assert row.return_least <= row.return_mean <= row.return_most
    saved = json.loads((path / COMPARE).read_text())
    assert set(saved) == {field.name for field in dataclasses.fields(GamesCompared)}
    assert saved["results"] == to_json(found.results) and saved["stages"] == [0, 512]


def test_a_cell_is_what_measure_says_of_the_checkpoint(done):
    path, found, _ = done
    plan = next(plan for plan in cells(asked()) if plan.name == "CartPole-512-s1")
    state = RunDir(path / "CartPole-train-s1").load_checkpoint()
    alone = to_json(measure(plan.config, 750, 0.0, state=state))
    cell = next(cell for cell in found.cells if cell.name == plan.name)
    assert cell.noise == alone["noise"] and cell.return_mean == alone["return_mean"]
    assert cell.training_return_mean == RunDir(path / "CartPole-train-s1").read_result()["return_mean"]
    assert cell.protocol == protocol_words(alone["key"])


def test_again_it_does_nothing_and_says_the_same(done):
    path, found, _ = done
    again, heard = run(path)
    assert (heard.trained, heard.said) == (set(), {}) and told(again) == told(found)


@pytest.mark.slow
def test_an_interrupt_loses_the_cell_under_way_alone(done, tmp_path):
    class Impatient(Heard):
        def say(self, name, words):
            super().say(name, words)
            if name == "CartPole-fresh-s1":
                raise KeyboardInterrupt

    what = asked("CartPole", initialisations=2, seeds=1, env_steps=1000)
    with pytest.raises(KeyboardInterrupt):
        compare(what, tmp_path, Settings(cells_at_once=1), Impatient())
    half = json.loads((tmp_path / COMPARE).read_text())
    assert [cell["name"] for cell in half["cells"]] == ["CartPole-fresh-s0"] and len(half["missing"]) == 2
    whole, heard = run(tmp_path, what)
    assert "CartPole-fresh-s0" not in heard.said and whole.missing == {}
    fresh = {cell.name: cell.noise for cell in done[1].cells}
    assert [cell.noise for cell in whole.cells[:2]] == [fresh["CartPole-fresh-s0"], fresh["CartPole-fresh-s1"]]


def test_another_comparison_is_taken_whole_where_its_settings_are_ours(done, tmp_path):
    path, found, _ = done
    other, heard = run(tmp_path, reuse=(path,))
    assert heard.trained == set() and told(other) == told(found)
    assert {cell.reused for cell in other.cells} == {"measurement"}


def test_cells_of_another_key_are_left_out_or_marked(done, tmp_path):
    """The same settings come to another precision on another machine; two of three keep their key."""
    path, found, _ = done
    shutil.copytree(path, tmp_path / "mixed")
    file = tmp_path / "mixed" / "CartPole-fresh-s1" / "measure.json"
    there = json.loads(file.read_text())
    there["key"]["precision"] = "bf16"
    file.write_text(json.dumps(there))
    mixed, _ = run(tmp_path / "mixed")
    assert list(mixed.missing) == ["CartPole-fresh-s1"]
    assert "another key than most (precision: 'bf16' there, 'fp32' here)" in mixed.missing["CartPole-fresh-s1"]
    assert [row.seeds for row in mixed.results] == [[0, 2], [0, 1]] and mixed.results[1].noise == found.results[1].noise
    forced, _ = run(tmp_path / "mixed", force=True)
    assert forced.missing == {} and forced.results[0].seeds == [0, 1, 2]
    assert [line for line in forced.forced if "CartPole-fresh-s1: measured under another key" in line]


def test_a_cell_says_which_commit_measured_it(done, tmp_path):
    path, found, _ = done
    origins = [json.loads((path / cell.name / "origin.json").read_text()) for cell in found.cells]
    assert [cell.commit.rstrip("+") for cell in found.cells] == [each["provenance"]["commit"] for each in origins]
    shutil.copytree(path, tmp_path / "there")
    for file in (tmp_path / "there").glob("*/origin.json"):
        origin = json.loads(file.read_text())
        origin["provenance"] |= {"commit": "0123456789", "uncommitted_changes": "fresh" in file.parent.name}
        file.write_text(json.dumps(origin))
    other, _ = run(tmp_path / "here", reuse=(tmp_path / "there",))
    said = {(cell.stage == 0, cell.commit) for cell in other.cells}
    assert said == {(True, "0123456789+"), (False, "0123456789")}, "of who measured, not of who pooled"


def test_what_is_of_another_protocol_is_passed_over_where_the_rest_is_ours(done, tmp_path):
    other, heard = config(CARTPOLE, EIGHT_COLUMNS | {"learner": {"gamma": 0.9}}), Listening()
    train(dataclasses.replace(other, seed=1, total_env_steps=512), tmp_path / "left" / "strange")
    shutil.copytree(done[0] / "CartPole-train-s0", tmp_path / "left" / "ours")
    settings = Settings(cells_at_once=1, reuse=(tmp_path / "left",))
    compare(asked(stages="512"), tmp_path / "new", settings, heard)
    assert heard.trained == {"CartPole-train-s1"}
    assert "(learner.gamma: 0.9 there, 0.99 here): not taken" in heard.said["CartPole-512-s1"]
    (tmp_path / "new" / "CartPole-512-s1" / "measure.json").unlink()
    again = Listening()
    compare(asked(stages="512"), tmp_path / "new", settings, again)
    assert "not taken" in again.said["CartPole-512-s1"] and again.trained == set(), "the rest is measured"


def test_another_protocol_is_refused_or_forced_and_marked(done, tmp_path):
    path = done[0]
    what = asked(base=config(CARTPOLE, EIGHT_COLUMNS | {"learner": {"gamma": 0.9}}))
    with pytest.raises(ConfigError, match=r"another protocol .*\(learner.gamma: 0.99 there, 0.9 here\).*--force"):
        run(tmp_path / "refused", what, reuse=(path,))
    found, _ = run(tmp_path / "forced", what, reuse=(path,), force=True)
    assert len(found.forced) == 5 and all("learner.gamma: 0.99 there, 0.9 here" in line for line in found.forced)
    with pytest.raises(ConfigError, match="holds a comparison of another protocol"):
        run(path, what)


def test_a_front_stands_beside_its_game(done, tmp_path):
    path = done[0]
    with pytest.raises(ConfigError, match=r"--fronts: .*another protocol"):
        run(path, fronts=(FRONT,))
    beside, _ = run(path, fronts=(FRONT,), force=True)
    front = beside.fronts[0]
    assert front.game == "CartPole" and front.low < front.b_crit == pytest.approx(44.9, rel=0.01)
    assert front.forced and beside.forced
    known = {"signal_sq": 1.0, "noise_trace": 449.0, "b_simple": 449.0, "low": 300.0, "high": 800.0, "resolved": True}
    measured = [
        dataclasses.replace(cell, noise=cell.noise | {"policy": cell.noise["policy"] | known})
        for cell in beside.cells
        if cell.stage
    ]
    ratio = measured_ratio(front, [*measured, *(cell for cell in beside.cells if not cell.stage)])
    pooled = pool([cell.noise["policy"] for cell in measured], front.confidence)
    assert front.confidence == 0.9 and ratio.value == pytest.approx(449.0 / front.b_crit)
    below = math.hypot(math.log(449.0 / pooled.low), math.log(front.high / front.b_crit))
    above = math.hypot(math.log(pooled.high / 449.0), math.log(front.b_crit / front.low))
    assert (ratio.low, ratio.high) == pytest.approx((ratio.value * math.exp(-below), ratio.value * math.exp(above)))
    assert measured_ratio(front, [cell for cell in beside.cells if not cell.stage]) is None


@pytest.mark.parametrize("what, words", [("empty", "no run and no measurement"), ("missing", "no such directory")])
def test_an_empty_directory_is_no_source(tmp_path, what, words):
    if what == "empty":
        (tmp_path / what).mkdir()
    with pytest.raises(ConfigError, match=f"--reuse: .*{what}: {words}"):
        run(tmp_path / "new", reuse=(tmp_path / what,))


def test_a_half_written_run_is_named_and_trained_here(done, tmp_path):
    """Killed before its first checkpoint; and one whose measurement was cut short is an error, not a number."""
    half = tmp_path / "left" / "half"
    shutil.copytree(done[0] / "CartPole-train-s0", half)
    shutil.rmtree(half / "checkpoints")
    (half / "result.json").unlink()
    what = asked("CartPole", "512", seeds=1)
    _, heard = run(tmp_path / "new", what, reuse=(tmp_path / "left",))
    assert heard.trained == {"CartPole-train-s0"}
    (half / "measure.json").write_text('{"env": "CartPole", "noise"')
    with pytest.raises(ConfigError, match=r"measure.json: damaged"):
        left_in([tmp_path / "left"])


def test_a_stage_that_a_run_went_past_is_missing_and_said(done, tmp_path):
    shutil.copytree(done[0] / "CartPole-train-s0", tmp_path / "CartPole-train-s0")
    found, _ = run(tmp_path, asked("CartPole", "256", seeds=1))
    assert "no checkpoint at 256" in found.missing["CartPole-256-s0"]


def test_a_measurement_of_too_few_env_steps_does_not_serve(done):
    left = left_in([done[0]])
    enough, more = (cells(asked("CartPole", "fresh", env_steps=n))[0] for n in (1500, 15_000))
    assert serving(enough, left, force=False).left.path.name == "CartPole-fresh-s0"
    assert serving(more, left, force=False) is None


def test_what_could_stop_early_is_measured_anew_and_said(done, tmp_path):
    """Measurements say so themselves; before they did, only what a comparison had not borrowed was surely whole."""
    shutil.copytree(done[0], tmp_path / "left")
    early, old = (tmp_path / "left" / f"CartPole-fresh-s{seed}" for seed in (0, 1))
    for path, change in ((early, {"stops_early": True}), (old, {"stops_early": None})):
        measured = json.loads((path / "measure.json").read_text())
        (path / "measure.json").write_text(json.dumps(measured | change))
    (plan, other, _) = cells(asked(stages="fresh"))
    left = left_in([tmp_path / "left"])
    assert serving(plan, left, force=False) is None and may_read_low(plan, left) == [early]
    assert serving(other, left, force=False) and finished(tmp_path / "left", other), "measured by a comparison"
    origin = json.loads((old / "origin.json").read_text())
    (old / "origin.json").write_text(json.dumps(origin | {"reused": "measurement"}))
    assert serving(other, left, force=False) is None and not finished(tmp_path / "left", other)
    heard, settings = Listening(), Settings(cells_at_once=1, reuse=(tmp_path / "left",))
    compare(asked(stages="fresh"), tmp_path / "new", settings, heard)
    for name in ("CartPole-fresh-s0", "CartPole-fresh-s1"):
        assert "could stop early, which reads low" in heard.said[name] and "is measured" in heard.said[name]
    assert "is measured" not in heard.said["CartPole-fresh-s2"]


def test_no_growth_is_told_of_two_seeds_or_of_what_can_have_no_headline():
    def pooled(b_simple, seeds=3, **changed):
        scale = {"signal_sq": 1.0, "noise_trace": b_simple, "b_simple": b_simple, "low": b_simple / 1.2, "n_groups": 16}
        scale |= {"high": b_simple * 1.2, "confidence": 0.95, "resolved": True, "reason": None}
        return pool([scale | changed] * seeds, 0.95)

    assert over(pooled(400.0), pooled(100.0)).low > 2
    few = {"n_groups": 4, "resolved": False, "reason": hopeless_reasons(4, False)[0]}
    for above, below in ((pooled(400.0, 2), pooled(100.0)), (pooled(400.0), pooled(100.0, **few))):
        assert over(above, below) is None


def test_a_person_reads_tables(done, capsys):
    show(done[1])
    said = capsys.readouterr().out
    assert "between seeds" in said and "CartPole" in said and "2 seeds are too few" in said and "design effect" in said
