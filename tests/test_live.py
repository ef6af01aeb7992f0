"""What a person sees: every figure with its unit, on a terminal and elsewhere."""

import dataclasses
import io

from rich.console import Console
from tiny import CARTPOLE, config, finished

from rl_gns.report.summary import advice, scale_words
from rl_gns.study.live import LiveView, b_simple_words


def shown(terminal):
    records = finished(config(CARTPOLE))[1]
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200)
    with LiveView("CartPole here", 1500, console) as view:
        for record in records:
            view.show(record)
    return out.getvalue()


def test_a_terminal_sees_a_table_and_a_log_sees_lines():
    for terminal in (True, False):
        said = shown(terminal)
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
        assert ("\x1b[" in said) == terminal
    assert shown(False).count("CartPole here: ") == 2, "the first record and the last, not every one"


def test_words_carry_no_more_than_the_interval_does():
    scale = finished(config(CARTPOLE))[1][-1].noise["policy"]
    open_ = dataclasses.replace(
        scale, resolved=False, b_simple=5000.0, low=800.0, high=None, reason="signal's interval touches zero"
    )
    open_ = dataclasses.replace(open_, env_steps_needed=1000)
    assert b_simple_words(open_).startswith("at least 800 env steps (estimate 5,000); unresolved: signal's interval")
    tight = dataclasses.replace(scale, resolved=True, b_simple=1000.0, low=800.0, high=1300.0, reason=None)
    assert b_simple_words(tight) == "1,000 [800 to 1,300] env steps"
    plain, unbounded = dataclasses.asdict(tight), dataclasses.asdict(open_)
    assert scale_words(plain) == "B_simple = 1,000 env steps (95% interval 800 to 1,300)"
    assert "unresolved (signal's interval touches zero): at least 800 env steps" in scale_words(unbounded)
    assert "would still save optimizer steps" in advice(plain, 256)
    assert "waste" in advice(plain, 4096)
    assert "does not tell" in advice(plain, 1000)
    assert "does not tell" in advice(unbounded, 4096)
    assert "would still save" in advice(unbounded, 256)
    assert "does not tell" in advice({**unbounded, "reason": "3 blocks: at least 8 are needed"}, 256)
