"""What a sweep's fronts say of the batch size: no more than is known."""

import json

import pytest
from test_architecture import ROOT

from rl_gns.noise.pooled_prediction import hold_against
from rl_gns.report.found import look
from rl_gns.report.verdict import answers

RESULTS = ROOT / "docs" / "results"
BREAKOUT, OLD = (RESULTS / f"2026-11-23-{name}" for name in ("breakout-front", "cartpole-sweep"))


def test_an_unresolved_knee_is_no_answer():
    two, three = answers([look(BREAKOUT)])
    assert two.says.startswith("not settled: the swept knee is not resolved (a power law")
    assert "304 [110 to 930], not resolved" in two.swept and two.useful == "40: the smallest tried"
    assert "they agree" not in two.says and three.says.endswith("too wide to tell.")
    assert three.predicted == "1,020 [98.4 to no upper limit]" and three.used == "40 to 1,280, swept"


def test_what_does_not_agree_is_said():
    hundred, two_hundred = answers([look(OLD)])
    assert hundred.says.startswith("not answered") and hundred.swept == "no front"
    assert "DO NOT AGREE" in two_hundred.says


@pytest.mark.parametrize(
    "change, says, swept",
    [
        ({}, "the critical batch size is 446 [263 to 804] env steps.", "446 [263 to 804]"),
        ({"limited_by": "trust region"}, "the floor of S is the clip's", "none: trust-region limited"),
        ({"predicted": None}, "Nothing was predicted", "446 [263 to 804]"),
        ({"front": None, "no_front": "too few"}, "not answered: too few.", "no front"),
        ({"largest_useful_batch": 1280.0}, "the critical batch size is", "446 [263 to 804]"),
    ],
)
def test_the_verdict_of_a_resolved_front(change, says, swept, tmp_path):
    saved = json.loads((BREAKOUT / "sweep.json").read_text())
    front = saved["fronts"][1]
    front["front"] |= {"resolved": True, "reason": None}
    saved["fronts"] = [front | change]
    (tmp_path / "sweep.json").write_text(json.dumps(saved))
    (answer,) = answers([look(tmp_path)])
    assert says in answer.says and answer.swept == swept
    assert ("or more: the largest tried" in answer.useful) == ("largest_useful_batch" in change)
    if not change:
        assert f"Predicted over swept is {2.28}" in answer.says
        assert hold_against(front["predicted"], front["front"]).agree is None
