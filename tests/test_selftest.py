"""The selftest passes on a sound instrument, and is not fooled by a broken one."""

import dataclasses
import json
import math

import numpy as np
import pytest

from rl_gns import cli
from rl_gns.learn import gradients, learner
from rl_gns.noise import moments, scale
from rl_gns.study import selftest
from rl_gns.study.known_worlds import WORLDS
from rl_gns.study.selftest import Check


@pytest.mark.slow
def test_a_sound_instrument_passes(capsys):
    assert cli.main(["selftest", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    rows = {check["name"]: check for check in result["checks"]}
    assert result["passed"] and all(check["passed"] for check in rows.values())
    assert len(rows) == len(result["checks"]) == 4 + 6 * len(WORLDS) + 1 + 2
    assert result["false_alarm"] == pytest.approx(sum(check["false_alarm"] for check in rows.values()))
    assert result["false_alarm"] < 0.02
    (right,) = (
        check for name, check in rows.items() if name.startswith("Echoed") and name.endswith("pooled: B_simple")
    )
    (wrong,) = (check for name, check in rows.items() if name.endswith("must read low"))
    assert right["found"] / wrong["found"] == pytest.approx(16, rel=0.5), "T times too low"


def only(monkeypatch, *names):
    """Leave these groups of checks alone, so that the test is quick."""
    monkeypatch.setattr(selftest, "GROUPS", {name: selftest.GROUPS[name] for name in names})


def planted(monkeypatch, capsys):
    """Exit code and the names of what failed."""
    code = cli.main(["selftest", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert code == int(not result["passed"])
    return code, {check["name"] for check in result["checks"] if not check["passed"]}


def test_an_estimator_that_divides_by_the_wrong_number_is_caught(monkeypatch, capsys):
    """J instead of J - 1, in both."""
    right = moments.gram_signal_trace

    def wrong(gram, env_steps):
        shrink = (len(env_steps) - 1) / len(env_steps)
        return tuple(shrink * x for x in right(gram, env_steps))

    only(monkeypatch, "estimators, exactly")
    assert planted(monkeypatch, capsys) == (0, set())
    monkeypatch.setattr(moments, "gram_signal_trace", wrong)
    code, failed = planted(monkeypatch, capsys)
    assert code == 1 and {name.rpartition(": ")[2] for name in failed} == {"signal_sq", "noise_trace"}


def test_one_norm_instead_of_all_is_caught_where_it_is_biased(monkeypatch, capsys):
    """McCandlish's small batch from the first group alone, but forgetting that its env steps are fewer."""

    def wrong(gram, env_steps):
        share = env_steps / env_steps.sum()
        small, big, n = gram[0, 0], share @ gram @ share, len(env_steps)
        return (n * big - small) / (n - 1), env_steps.sum() * (small - big) / (n - 1)

    only(monkeypatch, "estimators, exactly")
    monkeypatch.setattr(moments, "gram_signal_trace", wrong)
    assert planted(monkeypatch, capsys)[0] == 1


def test_an_interval_that_is_too_narrow_is_caught(monkeypatch, capsys):
    right = scale.student_quantile
    only(monkeypatch, "coverage")
    monkeypatch.setattr(scale, "student_quantile", lambda confidence, dof: 0.7 * right(confidence, dof))
    assert planted(monkeypatch, capsys) == (1, {"coverage of 95 % intervals"})


def test_an_interval_that_is_never_resolved_is_caught(monkeypatch, capsys):
    monkeypatch.setattr(selftest, "COVERAGE_SETS", 50)
    only(monkeypatch, "coverage")
    monkeypatch.setattr(scale, "MIN_GROUPS", 9)
    assert planted(monkeypatch, capsys) == (1, {"share of them resolved, at least 0.75"})


def test_a_negative_control_that_does_not_fail_is_caught(monkeypatch, capsys):
    """Without echoes the shuffled estimate is right, and that is the alarm."""
    monkeypatch.setattr(selftest, "ECHOED", WORLDS[0])
    only(monkeypatch, "the negative control")
    code, failed = planted(monkeypatch, capsys)
    assert code == 1 and [name.endswith("must read low") for name in failed] == [True]


def test_a_pipeline_that_scales_its_gradient_is_caught(monkeypatch, capsys):
    """The probe's gradients 1.3 times too large: signal and trace are wrong, B_simple is not."""
    right = gradients.group_gradients

    def wrong(*arguments):
        found = right(*arguments)
        return dataclasses.replace(found, policy=1.3 * found.policy)

    only(monkeypatch, "known worlds through the whole pipeline")
    monkeypatch.setattr(selftest, "WORLDS", WORLDS[:1])
    monkeypatch.setattr(learner, "group_gradients", wrong)
    code, failed = planted(monkeypatch, capsys)
    assert code == 1 and {name.rpartition(": ")[2] for name in failed} == {"signal_sq", "noise_trace"}


@pytest.mark.parametrize(
    ("found", "low", "high", "must_miss", "passed"),
    [
        (11, 9, 12, False, True),
        (11, 10.5, 12, False, False),
        (math.nan, math.nan, math.nan, False, False),
        (2, 1, 3, True, True),
        (11, 9, 12, True, False),
        (20, 19, 21, True, False),
        (2, 1, math.inf, True, False),
    ],
)
def test_a_verdict(found, low, high, must_miss, passed):
    assert Check("x", 10, found, low, high, 0.0, must_miss).passed is passed


def test_the_table_names_what_failed(capsys):
    good, bad = Check("good", 1, 1, 0.9, 1.1, 0.001), Check("bad", 1, 2, 1.9, np.inf, 0.001)
    selftest.show(selftest.SelftestResult(False, 0.002, 3.2, 3.1, [good, bad]))
    said = capsys.readouterr().out
    assert "1 of 2 failed" in said and "0.2%" in said
    assert [line for line in said.splitlines() if "FAIL" in line and "bad" in line and "good" not in line]
