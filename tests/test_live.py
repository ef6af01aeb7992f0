"""What a person sees: every figure with its unit, on a terminal and elsewhere."""

import dataclasses
import io

import pytest
from rich.console import Console
from tiny import CARTPOLE, config, finished

from rl_gns.records import to_json
from rl_gns.report.summary import advice, scale_words
from rl_gns.study import live
from rl_gns.study.live import LiveView
from rl_gns.study.progress import RATE_SECONDS, Progress, b_simple_words, duration


@pytest.fixture(scope="module")
def records():
    return finished(config(CARTPOLE))[1]


def shown(terminal, records):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200)
    with LiveView("CartPole here", 1500, console) as view:
        for record in records:
            view.show(record)
    return out.getvalue()


def test_a_terminal_sees_a_table_and_a_log_sees_lines(records):
    for terminal in (True, False):
        said = shown(terminal, records)
        for words in (
            "env steps",
            "return",
            "batch size",
            "B_simple (policy)",
            "env steps a second",
            "ETA",
            "CartPole",
        ):
            assert words in said
        assert ("\x1b[" in said) == ("progress" in said) == ("━" in said) == terminal
    assert shown(False, records).count("CartPole here: ") == 2, "the first record and the last, not every one"


def test_a_log_sees_a_line_whenever_the_time_between_lines_has_passed(records, monkeypatch):
    monkeypatch.setattr(live, "SECONDS_BETWEEN_LINES", 0.0)
    assert shown(False, records).count("CartPole here: ") == len(records) > 2


def test_the_rate_is_over_the_last_minute_of_the_records_own_time(records):
    progress, plain = Progress(1_000_000), to_json(records[-1])
    assert progress.env_steps_per_second() is progress.seconds_left() is None
    for seconds, env_steps in [(1000.0, 10)] * 3 + [(15.0, 3000)] * 5:
        progress.add({**plain, "seconds": seconds, "used_env_steps": env_steps, "env_steps": 400_000})
    assert progress.seconds_covered() == RATE_SECONDS
    assert progress.env_steps_per_second() == 200.0 and progress.seconds_left() == 3000.0
    progress.add({**plain, "seconds": 90.0, "used_env_steps": 900})
    assert progress.env_steps_per_second() == 10.0, "one record may cover more than a minute"
    assert duration(3000.0) == "0:50:00" and duration(None) == "..."


def test_a_changed_batch_a_kept_noise_scale_and_faults_are_said(records):
    progress, plain = Progress(10_000), to_json(records[-1])
    progress.add(plain)
    words = progress.words()
    assert words["batch size"] == "128 env steps (of 256 a rollout)" and "faults" not in words
    changed = {"batch_size": 512, "requested_env_steps": 1024, "noise": None, "replaced_actors": 2, "skipped_steps": 1}
    progress.add({**plain, **changed})
    words = progress.words()
    until = f"{plain['env_steps']:,}"
    assert words["batch size"] == f"512 env steps (of 1,024 a rollout); 128 until env step {until}"
    assert words["B_simple (policy)"] == b_simple_words(plain["noise"]["policy"])
    before = f"{plain['env_steps'] - plain['used_env_steps']:,}"
    assert words["faults"] == f"1 optimizer steps skipped, 2 actors replaced since env step {before}"


def test_a_rollouts_own_faults_are_summed_and_those_so_far_are_not(records):
    progress, plain = Progress(10_000), [to_json(record) for record in records[:4]]
    faults = [{"skipped_steps": 1, "replaced_actors": 2}, {"replaced_actors": 1, "refused_blocks": 1}, {}, {}]
    for record, own in zip(plain, faults, strict=True):
        progress.add({**record, "skipped_steps": 1, **own})
    assert progress.faults() == {"skipped_steps": 1, "replaced_actors": 3, "refused_blocks": 1}
    said = "1 optimizer steps skipped, 3 actors replaced, 1 blocks refused"
    assert progress.words()["faults"] == said, "the whole run was seen: no `since`"


def test_words_carry_no_more_than_the_interval_does(records):
    scale = records[-1].noise["policy"]
    open_ = dataclasses.replace(
        scale, resolved=False, b_simple=5000.0, low=800.0, high=None, reason="signal's interval touches zero"
    )
    open_ = dataclasses.replace(open_, env_steps_needed=1000)
    assert b_simple_words(to_json(open_)).startswith(
        "at least 800 env steps (estimate 5,000); unresolved: signal's interval"
    )
    tight = dataclasses.replace(scale, resolved=True, b_simple=1000.0, low=800.0, high=1300.0, reason=None)
    assert b_simple_words(to_json(tight)) == "1,000 [800 to 1,300] env steps"
    plain, unbounded = dataclasses.asdict(tight), dataclasses.asdict(open_)
    assert scale_words(plain) == "B_simple = 1,000 env steps (95% interval 800 to 1,300)"
    assert "unresolved (signal's interval touches zero): at least 800 env steps" in scale_words(unbounded)
    assert "would still save optimizer steps" in advice(plain, 256)
    assert "waste" in advice(plain, 4096)
    assert "does not tell" in advice(plain, 1000)
    assert "does not tell" in advice(unbounded, 4096)
    assert "would still save" in advice(unbounded, 256)
    assert "does not tell" in advice({**unbounded, "reason": "3 blocks: at least 8 are needed"}, 256)
