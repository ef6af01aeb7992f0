"""Names, options and what importing costs."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

import envs


def test_known_worlds_are_those_that_ale_py_registers():
    import ale_py
    import gymnasium

    gymnasium.register_envs(ale_py)
    games = {name[len("ALE/") : -len("-v5")] for name in gymnasium.registry if name.startswith("ALE/")}
    assert set(envs.known()) == games | {"CartPole", "Bandit", "EpisodicBandit", "EchoedBandit", "Chain", "Quadratic"}
    assert len(set(envs.known())) == len(envs.known())
    assert all(envs.spec(name).name == name for name in envs.known())


def test_specs():
    assert envs.spec("SpaceInvaders") == envs.WorldSpec("SpaceInvaders", "pixels", "space_invaders")
    assert envs.spec("CartPole") == envs.WorldSpec("CartPole", "vector", None)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("Pnog", "Pong"), ("pong", "Pong"), ("space_invaders", "SpaceInvaders"), ("cartpole", "CartPole")],
)
def test_an_unknown_name_gets_the_nearest_right_one(wrong, right):
    with pytest.raises(envs.UnknownWorld) as caught:
        envs.make_vec(wrong, 1, envs.AtariOptions(), [0])
    assert str(caught.value) == f"unknown world {wrong!r}: did you mean {right!r}?"
    assert isinstance(caught.value, ValueError)


def test_a_hopeless_name_gets_a_place_to_look():
    with pytest.raises(envs.UnknownWorld, match=r"unknown world 'qqqqqq': see envs.known\(\)$"):
        envs.spec("qqqqqq")


OTHER_OPTIONS = envs.AtariOptions(
    frame_size=42,
    frame_stack=2,
    frameskip=3,
    sticky_action_probability=0.25,
    life_loss_terminal=True,
    noop_max=1,
    fire_reset=False,
    full_action_space=True,
    max_episode_frames=54_000,
    clip_rewards=False,
)


def test_protocol_is_stable():
    expected = "Pong 84x84x4 skip4 sticky0 life0 noop30 fire1 full0 limit108000 clip1"
    assert envs.protocol("Pong", envs.AtariOptions()) == expected
    assert envs.protocol("Bandit", envs.AtariOptions()) == envs.protocol("Bandit", OTHER_OPTIONS) == "Bandit"


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(envs.AtariOptions)])
def test_protocol_tells_every_option_apart(field):
    other = dataclasses.replace(envs.AtariOptions(), **{field: getattr(OTHER_OPTIONS, field)})
    assert envs.protocol("Pong", other) != envs.protocol("Pong", envs.AtariOptions())


@pytest.mark.parametrize(
    "wrong",
    [
        {"frame_size": 0},
        {"frame_stack": 0},
        {"frameskip": 0},
        {"noop_max": -1},
        {"sticky_action_probability": 1.0},
        {"max_episode_frames": 0},
        {"max_episode_frames": 10},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        envs.AtariOptions(**wrong)


def test_importing_and_asking_loads_no_heavy_library():
    script = (
        "import sys, envs; envs.known(); envs.spec('Pong'); envs.protocol('Pong', envs.AtariOptions());"
        "print([m for m in ('torch', 'gymnasium', 'ale_py', 'ray', 'scipy', 'rl_gns') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
