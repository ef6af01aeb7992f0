"""What is drawn of a sweep's fronts, from a sweep.json of known numbers: means, bars, missed runs, speed-ups."""

import json
import math

import numpy as np
import pytest
from test_architecture import ROOT

from rl_gns.noise.interval import student_quantile
from rl_gns.report import drawing
from rl_gns.report.batch_sizes import by_batch_size, fitted_steps
from rl_gns.report.found import look
from rl_gns.report.front_figures import front
from rl_gns.report.speed_up import IDEAL, speed_up

BREAKOUT = ROOT / "docs" / "results" / "2026-11-23-breakout-front"
T_TWO_SEEDS, T_THREE_SEEDS = student_quantile(0.9, 1), student_quantile(0.9, 2)


def cell(goal, size, seed, steps, reached=True, collapsed=False, rate=0.001, chosen=True):
    """S = steps; of a batch of `size` env steps all are valid."""
    of = {"name": f"B{size}-lr{rate}-s{seed}", "goal_return": goal, "batch_size": size, "learning_rate": rate}
    at = {"optimizer_steps": steps, "env_steps": steps * size, "batch_env_steps": float(size), "chosen": chosen}
    return of | at | {"seed": seed, "reached": reached, "collapsed": collapsed, "judged_on": "training"}


@pytest.fixture
def sweep(tmp_path):
    """A sweep of two goals: to 2, three seeds at batches of 40, 80 and 160, of which one is stopped short at 80 and two
    at 160; to 3, whose batch of 40 one of three runs took there, one of which collapsed."""

    def made(fit=True):
        saved = json.loads((BREAKOUT / "sweep.json").read_text())
        cells = [cell(2.0, 40, seed, steps) for seed, steps in enumerate((400.0, 500.0, 640.0))]
        cells += [cell(2.0, 80, 0, 200.0), cell(2.0, 80, 1, 320.0), cell(2.0, 80, 2, 900.0, reached=False)]
        cells += [cell(2.0, 160, 0, 100.0), cell(2.0, 160, 1, 450.0, reached=False)]
        cells += [cell(2.0, 160, 2, 450.0, reached=False)]
        cells += [cell(2.0, 40, seed, 9000.0, rate=0.1, chosen=False) for seed in range(3)]
        cells += [cell(3.0, 40, 0, 600.0), cell(3.0, 40, 1, 900.0, reached=False)]
        cells += [cell(3.0, 40, 2, 700.0, reached=False, collapsed=True)]
        cells += [cell(3.0, 80, seed, steps) for seed, steps in enumerate((400.0, 400.0, 500.0))]
        cells += [cell(3.0, 160, seed, steps) for seed, steps in enumerate((200.0, 250.0, 250.0))]
        saved["cells"] = cells
        for each in saved["fronts"]:
            its = [c for c in cells if c["goal_return"] == each["goal_return"]]
            each["cells"], each["reached"] = len(its), sum(c["reached"] for c in its)
            each["front"] = each["front"] if fit else None
        (tmp_path / "sweep.json").write_text(json.dumps(saved))
        return look(tmp_path)

    return made


def points(axes, marker):
    """(x, y, hollow) of single points with that marker."""
    lines = [line for line in axes.lines if line.get_marker() == marker and len(line.get_xdata()) == 1]
    return [(line.get_xdata()[0], line.get_ydata()[0], line.get_markerfacecolor() == drawing.PAPER) for line in lines]


def test_means_and_bars_of_seeds(sweep):
    found = sweep()
    forty, eighty, most = by_batch_size(found.cells(found.fronts[0]), 1)
    mean = (400 * 500 * 640) ** (1 / 3)
    assert forty.optimizer_steps == pytest.approx(mean) and forty.env_steps == pytest.approx(40 * mean)
    spread = np.std(np.log([400, 500, 640]), ddof=1)
    assert forty.factor == pytest.approx(math.exp(T_THREE_SEEDS * spread / math.sqrt(3)))
    assert (forty.reached, forty.runs, eighty.reached, most.reached) == (3, 3, 2, 1)
    assert forty.half_there and eighty.half_there and not most.half_there and most.factor is None
    axes = front(found, "front").figure.axes[0]
    assert points(axes, "o") == [
        (pytest.approx(size.optimizer_steps), pytest.approx(size.env_steps), not size.half_there)
        for size in (forty, eighty, most)
    ]
    bars = [line.get_xdata() for line in axes.lines if line.get_alpha() == 0.55]
    ends = [(size.optimizer_steps / size.factor, size.optimizer_steps * size.factor) for size in (forty, eighty)]
    assert [tuple(bar) for bar in bars[:2]] == [pytest.approx(each) for each in ends]


def test_a_missed_run_is_an_arrow_and_a_collapsed_one_a_cross(sweep):
    axes = front(sweep(), "front").figure.axes[0]
    arrows = [(text.xy, text.xyann) for text in axes.texts if text.arrow_patch is not None]
    missed = sorted([(900.0, 72_000.0), (450.0, 72_000.0), (450.0, 72_000.0), (900.0, 36_000.0)])
    assert sorted(start for _, start in arrows) == missed
    assert np.array(sorted(head for head, _ in arrows)) == pytest.approx(1.4 * np.array(missed))
    assert points(axes, "x") == [(700.0, 28_000.0, False)]


def test_the_legend_counts_what_is_drawn(sweep):
    """The chosen rate's runs alone: three more at another rate got there."""
    drawn = front(sweep(), "front")
    _, words = drawn.figure.axes[0].get_legend_handles_labels()
    assert "return 2: 6 of 9 runs got there" in words and "return 3: 7 of 9 runs got there" in words
    assert drawn.table.head[1] == "reached, all learning rates" and drawn.table.lines[0][1] == "9 of 12"
    assert "means are of the runs that reached the goal" in drawn.caption and len(drawn.rows) == 18


def test_a_speed_up_carries_the_error_of_both_ends(sweep):
    drawn = speed_up(sweep(), "speed-up")
    rows = [dict(zip(drawn.columns, row, strict=True)) for row in drawn.rows]
    two = [row for row in rows if row["goal_return"] == 2]
    start, mean = (400 * 500 * 640) ** (1 / 3), math.sqrt(200 * 320)
    assert [row["speed_up"] for row in two] == [1.0, pytest.approx(start / mean), pytest.approx(start / 100)]
    of_start = T_THREE_SEEDS * np.std(np.log([400, 500, 640]), ddof=1) / math.sqrt(3)
    of_mean = T_TWO_SEEDS * np.std(np.log([200, 320]), ddof=1) / math.sqrt(2)
    both = math.exp(math.hypot(of_start, of_mean))
    assert [row["interval_factor"] for row in two] == [None, pytest.approx(both), None]
    assert [(row["reached"], row["runs"]) for row in two] == [(3, 3), (2, 3), (1, 3)]
    table = [line for line in drawn.table.lines if line[0] == "return 2"]
    assert [line[3:] for line in table] == [
        ("the start", "3 of 3"),
        (f"{start / mean / both:.3g} to {start / mean * both:.3g}", "2 of 3"),
        ("one run", "1 of 3"),
    ]


def test_a_speed_up_starts_where_half_got_there(sweep):
    """And what fewer reached is hollow; every start has its ideal line; the fit is held to the measured start."""
    found = sweep()
    drawn = speed_up(found, "speed-up")
    axes = drawn.figure.axes[0]
    of_three = {row[2]: row[3] for row in drawn.rows if row[1] == 3}
    start = (400 * 400 * 500) ** (1 / 3)
    assert of_three == {
        40.0: pytest.approx(start / 600),
        80.0: 1.0,
        160.0: pytest.approx(start / (200 * 250**2) ** (1 / 3)),
    }
    marks = [(y, hollow) for _, y, hollow in points(axes, "o")]
    assert [hollow for _, hollow in marks] == [False, False, True]
    assert [hollow for _, _, hollow in points(axes, "s")] == [True, False, False]
    ideal = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines if line.get_label() == IDEAL]
    assert ideal == [([40.0, 160.0], [1.0, 4.0]), ([80.0, 160.0], [1.0, 2.0])]
    fit = found.fronts[1]["front"]
    (model,) = [line for line in axes.lines if len(line.get_xdata()) == 80 and line.get_xdata()[0] == 80.0]
    assert model.get_ydata()[-1] == pytest.approx(start / fitted_steps(fit, np.array(160.0)))


def test_without_two_batch_sizes_there_is_no_speed_up(sweep):
    found = sweep(fit=False)
    found.saved["cells"] = [c for c in found.saved["cells"] if c["batch_size"] == 160]
    assert speed_up(found, "speed-up") is None
