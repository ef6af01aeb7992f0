"""What `rl-gns plan --cluster` is told: words, files of rates, settings; nonsense is one line."""

import dataclasses
import json
import math

import pytest
import tomli_w
from capacity_rates import RATES, RUN, page
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import PONG, replaced

from rl_gns.cli import main
from rl_gns.config import ConfigError
from rl_gns.config_file import find
from rl_gns.digits import round3
from rl_gns.study import capacity
from rl_gns.study.capacity import Cluster, predict
from rl_gns.study.cluster_words import MOST, parse_cluster
from rl_gns.study.rates import of


def test_the_words_of_a_cluster():
    assert parse_cluster("nodes=100, cpus=64", 1 << 30) == Cluster(100, 64, 0, 10.0, 1.0, 6400)
    given_all = "nodes=2,cpus=4,gpus=1,network=25,memory=64,actors=6"
    assert parse_cluster(given_all, 1) == Cluster(2, 4, 1, 25.0, 64.0, 6)


keys = st.sampled_from([*MOST, "node", "gpu", ""]) | st.text(max_size=8)
values = st.integers(-5, 10**9).map(str) | st.floats().map(str) | st.text(max_size=8)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(keys, values).map("=".join) | st.text(max_size=12), max_size=9).map(",".join))
def test_any_words_give_a_cluster_or_one_line(text):
    try:
        found = parse_cluster(text, 8 << 30)
    except ConfigError as error:
        assert str(error).startswith("--cluster: ") and str(error).isprintable() and len(str(error)) < 400
    else:
        assert found.nodes >= 1 and found.cpus >= 1 and found.actors >= 1 and 0 < found.memory <= MOST["memory"]
        assert math.isfinite(found.link) and predict(RUN, 256, RATES, found).seconds > 0


@pytest.fixture
def kept_rates(tmp_path):
    file = tmp_path / "rates.json"

    def keep(rates):
        file.write_text(json.dumps(rates if isinstance(rates, list) else {"rates": rates}))
        return str(file)

    return keep


def test_a_plan_from_kept_rates(kept_rates, capsys):
    pong = dataclasses.asdict(replaced(RATES, of=of(preset("pong"))))
    command = ["plan", "--config", "pong", "--cluster", "nodes=100,cpus=64,gpus=8,memory=256"]
    assert main([*command, "--rates", kept_rates(pong), "--learner-rate", "2e5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["known"]["learner"] == "stated (--learner-rate)" and found["rates"]["learner"] == 2e5
    assert found["known"]["memory"] == "stated" and found["known"]["network"].startswith("a guess")
    assert found["rollout"]["bottleneck"] == "weights"


def test_rates_kept_before_copying_was_timed_are_told_from_those_after(kept_rates, capsys):
    """Their file lacks it: the driver gets none, and the plan says so. What it prints of them reads back alike."""

    def planned(rates):
        command = ["plan", "--config", "pong", "--cluster", "nodes=2,cpus=2", "--json", "--rates", kept_rates(rates)]
        assert main(command) == 0
        found = json.loads(capsys.readouterr().out)
        return found, any("the driver's copy of a block was timed" in line for line in found["warnings"])

    pong = dataclasses.asdict(replaced(RATES, of=of(preset("pong"))))
    after, warned = planned(pong)
    assert not warned
    before, warned = planned({name: value for name, value in pong.items() if name != "copying_seconds"})
    assert warned and planned(before["rates"]) == (before, True)
    more = after["rollout"]["busy"]["driver"] - before["rollout"]["busy"]["driver"]
    assert more == pytest.approx(after["rollout"]["collectors"] * RATES.copying_seconds)


def test_the_tables_of_the_page_are_predictions():
    """What scripts/capacity_page.py writes of 10,240 cores is what the plan says of them."""
    rates = replaced(RATES, of=of(preset("pong")))
    said = page.table("Any", preset("pong"), rates)
    cluster = Cluster(160, 64, 0, 10.0, 256.0, 10_240)
    batch = capacity.batch_for_all(preset("pong"), cluster)
    one = predict(preset("pong"), batch, rates, cluster)
    assert batch == 10_240 * 4 * 128 // 4 and said.count("| 160 x 64 |") == 1
    assert f"| 160 x 64 | {batch:,} | {round3(one.env_steps_per_second)} | {one.bottleneck} |" in said


def preset(name):
    from rl_gns.config_file import load

    return load(find(name))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cluster", "nodes=2"], "--cluster: cpus is missing in 'nodes=2'"),
        (["--cluster", "node=2,cpus=2"], "the nearest is nodes"),
        (["--cluster", "nodes=two,cpus=2"], "nodes='two' is no whole number"),
        (["--cluster", "nodes=0,cpus=2"], "nodes=0 will not do; 1 to 100000 will"),
        (["--cluster", "nodes=2,cpus=2,nodes=2"], "nodes is given twice"),
        (["--cluster", "nodes=2,cpus=2,learners=3"], "'learners=3': the plan knows one learner"),
        (["--cluster", "100"], "'100' is no key=value"),
        (["--cluster", "nodes=2,cpus=2", "--learner-rate", "-1"], "--learner-rate: -1 will not do"),
        (["--cluster", "nodes=2,cpus=2", "--seconds", "0"], "--seconds: 0 measures nothing"),
        (["--cluster", "nodes=2,cpus=2", "--rates", "nowhere"], "--rates: nowhere: [Errno 2]"),
        (["--cluster", "nodes=2,cpus=2", "--run-dir", "x"], "--run-dir: not read with --cluster"),
        (["--rates", "x"], "--rates: only read with --cluster"),
        (["--learner-rate", "1"], "--learner-rate: only read with --cluster"),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, said):
    assert main(["plan", "--config", "pong", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and said in err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ([1], "list does not fit"),
        ({"surplus": 1}, "surplus does not fit"),
        ({"learner": 0}, "learner is 0; a number of more than 0"),
        ({"block_scatter": -1.0}, "block_scatter is -1.0; a number of 0 or more"),
        ({"emulation": "fast"}, "emulation is 'fast'"),
        ({"learner_on": 3}, "learner_on is 3; a str"),
        ({"copying_seconds": "long"}, "copying_seconds is 'long'; a number of 0 or more"),
        ({"memory_bytes": None}, "memory_bytes is None; a number of more than 0"),
        ({"of": {}}, "there"),
    ],
)
def test_rates_that_do_not_fit_are_one_line(kept_rates, capsys, change, said):
    pong = dataclasses.asdict(replaced(RATES, of=of(preset("pong"))))
    file = kept_rates(change if isinstance(change, list) else pong | change)
    if change == {"of": {}}:
        pong["of"]["batch.epochs"], said = 1, "batch.epochs: 1 there, 4 here"
        file = kept_rates(pong)
    assert main(["plan", "--config", "pong", "--cluster", "nodes=2,cpus=2", "--rates", file]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and said in err


def test_inference_actors_are_not_in_the_plan(tmp_path, capsys):
    file = tmp_path / "served.toml"
    file.write_text(tomli_w.dumps({**PONG, "actors": 1, "rollout": {**PONG["rollout"], "inference_actors": 1}}))
    assert main(["plan", "--config", str(file), "--cluster", "nodes=2,cpus=2"]) == 2
    assert "--rollout.inference-actors: 1 will not do; the plan knows no such actors: 0" in capsys.readouterr().err
