"""What a time buys: cells timed in company, laid out as they will run, and the most that ends in time."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_compare import Heard, asked

from rl_gns.config import ConfigError
from rl_gns.distributed.tasks import makespan
from rl_gns.study.compare import Settings, compare
from rl_gns.study.compare_budget import (
    KEPT_FREE,
    Speed,
    Timed,
    fitted,
    needed_seconds,
    timed_together,
    whole_rounds,
)
from rl_gns.study.compare_plan import cells

WHAT = asked("CartPole,Chain", "fresh,512", seeds=2, initialisations=3)
SPEEDS = {
    "CartPole": Timed(Speed(2.0, 100.0), Speed(1.0, 64.0), around_seconds=1.0),
    "Chain": Timed(Speed(4.0, 50.0), Speed(1.0, 32.0), around_seconds=1.0),
}


def training_runs(plans):
    """One plan of each training run."""
    return list({plan.run_name: plan for plan in plans if plan.stage}.values())


@given(st.lists(st.floats(0, 100), max_size=8), st.integers(1, 4))
def test_the_last_job_ends_when_one_places_them_by_hand(durations, at_once):
    """A job begins when all but `at_once` - 1 of those before it have ended."""
    ends = []
    for duration in durations:
        begins = sorted(ends)[len(ends) - at_once] if len(ends) >= at_once else 0.0
        ends.append(begins + duration)
    assert makespan(durations, at_once) == pytest.approx(max(ends, default=0.0))


def test_parallel_cells_end_when_the_last_one_does():
    assert makespan([3.0, 1.0, 1.0, 1.0], 1) == 6 and makespan([3.0, 1.0, 1.0, 1.0], 2) == 3
    assert makespan([1.0, 1.0, 3.0], 2) == 4, "in the order that they are given in"


def test_phases_follow_each_other_and_share_the_lanes():
    """300 env steps a game and stage: fresh 3 x (1 + 2 + 1) and 3 x (1 + 4 + 2) s, trained for 1 + 1 + 8 and
    1 + 1 + 16 s twice, measured again for 1 + 2 + 1.5 and 1 + 4 + 3 s twice."""
    plans = cells(WHAT)
    runs = training_runs(plans)
    in_turn = 3 * (4 + 7) + 2 * (10 + 18) + 2 * (4.5 + 8)
    assert needed_seconds(WHAT, plans, runs, SPEEDS, 1, 300) == pytest.approx(in_turn)
    ends = [(4 + 4 + 4 + 7, 7 + 7), (10 + 10, 18 + 18), (4.5 + 4.5, 8 + 8)]  # each takes the lane that is free first
    assert needed_seconds(WHAT, plans, runs, SPEEDS, 2, 300) == pytest.approx(sum(map(max, ends)))
    assert needed_seconds(WHAT, plans, [], SPEEDS, 10, 300) == pytest.approx(7 + 8), "all at once: the slower game"


def test_the_most_that_ends_in_time_is_bought(monkeypatch):
    """One env step more would not end in time; what is not missing costs nothing."""
    plans = cells(WHAT)
    what = dataclasses.replace(WHAT, env_steps=10**9)
    monkeypatch.setattr("rl_gns.study.compare_budget.timed_together", lambda *_: (SPEEDS, 3.0))
    for missing, runs in ((plans, training_runs(plans)), (plans, []), (plans[:2], [])):
        bought = fitted(what, 100_000.0, missing, runs, 1)
        ends = [3 + needed_seconds(what, missing, runs, SPEEDS, 1, bought.env_steps + more) for more in (0, 1)]
        assert ends[0] <= (1 - KEPT_FREE) * 100_000 <= ends[1] + 5, "5: this took no longer"
        assert (bought.measuring_rate, bought.training_rate) == (50.0, 32.0)
    assert fitted(WHAT, 100_000.0, plans, [], 1).env_steps == WHAT.env_steps
    with pytest.raises(ConfigError, match=r"10 s is too short for 10 measurements; about \d+ s would do"):
        fitted(what, 10.0, plans, [], 1)


@pytest.mark.slow
def test_a_budget_is_spent_on_what_is_missing():
    """Of 1,000 s less what is kept free, a game's stage that is measured already takes nothing."""
    what = asked("CartPole", env_steps=10**9)
    plans = cells(what)
    runs, fresh = training_runs(plans), [plan for plan in plans if not plan.stage]
    both, one = (fitted(what, 1000.0, missing, runs, 1) for missing in (plans, fresh))
    for bought, stages in ((both, 2), (one, 1)):
        most = 0.85 * 1000 * bought.measuring_rate / stages
        assert 0.5 * most < bought.env_steps < most and bought.training_rate > 0


@pytest.mark.slow
def test_a_time_that_is_too_short_is_refused_with_one_that_would_do():
    """What it says would do does (twice as long, for a machine that is not always as quick), and cells are timed
    for real."""
    what = asked("CartPole", env_steps=10**9)
    plans = cells(what)
    with pytest.raises(ConfigError, match=r"--budget: 1 s is too short for 5 measurements and 2 trainings") as refused:
        fitted(what, 1.0, plans, training_runs(plans), 1)
    words = str(refused.value)
    enough = float(words[words.index("about ") :].split()[1].replace(",", ""))
    bought = fitted(what, 2 * enough + 1, plans, training_runs(plans), 1)
    assert bought.measuring_rate > 0 and bought.training_rate > 0 and 1000 < bought.env_steps < 10**9


def test_no_game_is_timed_with_less_beside_it():
    assert list(whole_rounds(["a", "b", "c"], 2).values()) == ["a", "b", "c", "a"]
    assert list(whole_rounds(["a"], 3).values()) == ["a", "a", "a"] and len(whole_rounds(["a"], 3)) == 3
    assert list(whole_rounds(["a", "b"], 1).values()) == ["a", "b"]


def test_a_game_that_fails_counts_as_the_slowest_of_the_others():
    good, bad = cells(asked("CartPole", "fresh", initialisations=2))
    broken = dataclasses.replace(bad, game="Nope", config=dataclasses.replace(bad.config, env="Nope"))
    speeds, _ = timed_together([good, broken], [], 1)
    assert speeds["Nope"] == speeds["CartPole"] and speeds["CartPole"].training is None
    with pytest.raises(RuntimeError, match=r"no game could be timed for --budget:\n(.|\n)*unknown world 'Nope'"):
        timed_together([broken], [], 1)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_games_are_timed_beside_as_many_as_run_at_once(tmp_path):
    """Three games, two at once; a comparison whose cells run so reckons with two."""
    plans = cells(asked("CartPole,Chain,Bandit", "fresh", initialisations=1))
    speeds, opening = timed_together(plans, [], 2)
    assert set(speeds) == {"CartPole", "Chain", "Bandit"} and opening > 0.1
    assert max(timed.around_seconds for timed in speeds.values()) > 0.1, "processes start and import"
    what = asked("CartPole,Chain", "fresh", initialisations=2, env_steps=2000)
    found = compare(what, tmp_path, Settings(cells_at_once=2, budget=600.0), Heard())
    assert found.missing == {} and (found.budget.cells_at_once, found.budget.env_steps) == (2, 2000)
