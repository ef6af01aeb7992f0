"""Settings: defaults < file < flags, every one checked, every one read by the part that owns it."""

import dataclasses

import pytest
import tomli_w
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import BANDIT, CARTPOLE, PONG, config, fingerprint, finished, numbers, replaced

import envs
from rl_gns.config import NUMERICS, ConfigError, RunConfig, config_id, identity, to_dict
from rl_gns.config_file import find, from_table, keys, load, load_toml, presets, to_toml
from rl_gns.config_rules import validate
from rl_gns.study.build import checked, make_learner, source
from rl_gns.study.grid import cell_configs, load_grid
from rl_gns.study.train import train

SMALL = {**CARTPOLE, "total_env_steps": 700}
PIXELS = {  # two columns: loading a ROM takes 0.2 s a column
    **PONG,
    "env": "SpaceInvaders",
    "total_env_steps": 100,
    "batch": {"size": 64, "segment_steps": 32, "minibatches": 1, "epochs": 1},
    "rollout": {"columns_per_collector": 2, "scatter_env_steps": 60},
}

# key -> (base, another value): a short run with the other value must leave other records or other weights.
CHANGES_A_RUN = {
    "env": (BANDIT, "EpisodicBandit"),
    "seed": (SMALL, 1),
    "total_env_steps": (SMALL, 1000),
    "return_episodes": (SMALL, 3),
    "batch.size": (SMALL, 64),
    "batch.segment_steps": (SMALL, 8),
    "batch.minibatches": (SMALL, 4),
    "batch.epochs": (SMALL, 1),
    "batch.minibatch_by": (SMALL, "columns"),
    "rollout.columns_per_collector": (SMALL, 8),
    "rollout.scatter_env_steps": (SMALL, 5),
    "rollout.burn_in_env_steps": (SMALL, 3),
    "rollout.waves": (SMALL, 2),
    "learner.network": ({**SMALL, "learner": {**SMALL["learner"], "network": "linear"}}, "mlp"),
    "learner.optimizer": (SMALL, "rmsprop"),
    "learner.learning_rate": (SMALL, 1e-2),
    "learner.schedule": (SMALL, "linear"),
    "learner.clip_range": (SMALL, 0.001),
    "learner.value_clip": (SMALL, True),
    "learner.value_coef": (SMALL, 0.1),
    "learner.entropy_coef": (SMALL, 0.1),
    "learner.max_grad_norm": (SMALL, 0.01),
    "learner.gamma": (SMALL, 0.5),
    "learner.gae_lambda": (SMALL, 0.5),
    "learner.normaliser": (SMALL, "none"),
    "learner.normaliser_env_steps": (SMALL, 10),
    "learner.micro_batch": (SMALL, 7),
    "learner.precision": (SMALL, "bf16"),
    "noise.every": (SMALL, 2),
    "noise.groups": (SMALL, 4),
    "noise.window_env_steps": (SMALL, 10),
    "noise.across_env_steps": (SMALL, 0),
    "noise.confidence": (SMALL, 0.5),
    "control.policy": (SMALL, "follow"),
    "atari.frame_size": (PIXELS, 48),
    "atari.frame_stack": (PIXELS, 2),
    "atari.frameskip": (PIXELS, 2),
    "atari.sticky_action_probability": (PIXELS, 0.5),
    "atari.full_action_space": (PIXELS, True),
    "atari.noop_max": (PIXELS, 4),
    "atari.max_episode_frames": (PIXELS, 80),
    "atari.fire_reset": ({**PIXELS, "env": "Breakout"}, False),
}
# These need a look of their own, below.
READ_ELSEWHERE = {
    "actors",
    "learners",  # tests/test_learners.py
    "goals",
    "goals_judged_on",  # tests/test_goals.py
    "stop_at_goal",
    "evaluation_episodes",
    "rollout.inference_actors",  # tests/test_inference_actors.py
    "checkpoint.every_env_steps",
    "checkpoint.exact_resume",  # tests/test_verify_resume.py
    "checkpoint.keep",  # tests/test_branch.py
    "control.part",  # control.*: tests/noise/test_controller.py, and inside a run tests/test_control.py
    "control.estimator",
    "control.kappa",
    "control.hysteresis",
    "control.max_batch_size",
    "control.learning_rate_rule",
    "learner.device",
    "learner.threads",
    "learner.max_skipped_steps",
    "atari.life_loss_terminal",
    "atari.clip_rewards",
    "chaos.kill",  # tests/test_chaos.py
    "chaos.stall",
    "chaos.nan",
}


def nested(key, value):
    head, _, rest = key.partition(".")
    return {head: nested(rest, value)} if rest else {head: value}


def outcome(settings):
    run, records = finished(settings)
    return fingerprint(run.learner), [numbers(r) for r in records]


def test_every_setting_is_in_one_of_the_two_lists():
    assert set(CHANGES_A_RUN) | READ_ELSEWHERE == set(keys(RunConfig()))
    assert not set(CHANGES_A_RUN) & READ_ELSEWHERE


@pytest.mark.parametrize("key", CHANGES_A_RUN)
def test_every_setting_reaches_its_reader(key):
    base, value = CHANGES_A_RUN[key]
    assert outcome(config(base)) != outcome(config(base, nested(key, value)))


def test_goals_stop_and_threads_reach_their_readers(tmp_path):
    stopping = config(SMALL, {"goals": [5.0], "stop_at_goal": True, "total_env_steps": 5000})
    stopped = train(stopping, tmp_path / "stopping")
    assert stopped["stopped"] == "goal" and stopped["env_steps"] < 5000
    assert train(config(SMALL, {"goals": [5.0]}), tmp_path / "going_on")["stopped"] == "budget"
    learner = make_learner(config(SMALL, {"learner": {"threads": 2}}))
    assert learner.threads == 2
    assert make_learner(config(SMALL, {"learner": {"device": "cpu"}})).device == "cpu"


def test_atari_flags_that_need_a_played_game():
    options = envs.AtariOptions(42, life_loss_terminal=True, clip_rewards=False)
    assert "life1" in envs.protocol("Breakout", options) and "clip0" in envs.protocol("Breakout", options)


def test_device_cuda_without_a_gpu_is_one_line():
    if torch.cuda.is_available():
        assert make_learner(config(SMALL, {"learner": {"device": "cuda"}})).device == "cuda"
        return
    with pytest.raises(ConfigError, match="the nearest is cpu"):
        make_learner(config(SMALL, {"learner": {"device": "cuda"}}))


def test_a_config_survives_toml():
    for path in presets().values():
        if "sweep" not in load_toml(path):
            loaded = load(path)
            assert from_table(__import__("tomllib").loads(to_toml(loaded)), RunConfig()) == loaded


def test_every_preset_is_valid():
    assert {"cartpole", "pong", "pong_small", "quickstart/pong", "sweeps/cartpole", "sweeps/pong_small"} <= set(
        presets()
    )
    for path in presets().values():
        if "sweep" in load_toml(path):
            assert cell_configs(*load_grid(path))
        else:
            checked(load(path))


def test_a_file_stands_on_its_base(tmp_path):
    top = tmp_path / "top.toml"
    top.write_text('base = "paper/a2c"\nenv = "Pong"\n[learner]\nlearning_rate = 1e-3\n')
    below, loaded = load(find("paper/a2c")), load(top)
    assert loaded.env == "Pong" and loaded.learner.learning_rate == 1e-3
    assert loaded.learner.optimizer == below.learner.optimizer == "rmsprop" and loaded.atari == below.atari
    higher = tmp_path / "higher.toml"
    higher.write_text(f'base = "{top}"\nseed = 4\n')
    assert load(higher) == replaced(loaded, seed=4)


@pytest.mark.parametrize("base", ['"paper/a2d"', '"{itself}"'])
def test_a_wrong_base_is_one_line(tmp_path, base):
    path = tmp_path / "top.toml"
    path.write_text(f"base = {base.format(itself=path)}\n")
    with pytest.raises(ConfigError, match=r"top.toml: base: .*(paper/a2c|stands on this file)") as error:
        load(path)
    assert "\n" not in str(error.value)


def test_the_identity_leaves_out_what_changes_no_number():
    base = config(SMALL)
    assert config_id(base) == config_id(replaced(base, actors=2, total_env_steps=5))
    assert config_id(base) != config_id(replaced(base, seed=3))
    evaluated = [replaced(base, goals=goals) for goals in ((1.0,), (2.0, 3.0))]
    assert config_id(evaluated[0]) == config_id(evaluated[1]) != config_id(base), "evaluations are made or not"
    trained = replaced(evaluated[0], goals_judged_on="training")
    assert config_id(trained) == config_id(base), "training returns are there anyway"
    annealed = config(SMALL, {"learner": {"schedule": "linear"}})
    assert config_id(annealed) != config_id(replaced(annealed, total_env_steps=5))
    assert "total_env_steps" in identity(annealed) and "total_env_steps" not in identity(base)


def test_another_numerics_is_another_experiment(monkeypatch):
    before = config_id(config(SMALL))
    monkeypatch.setattr("rl_gns.config.NUMERICS", NUMERICS + 1)
    assert config_id(config(SMALL)) != before


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"batch": {"siez": 3}}, "batch.siez: no such setting; the nearest is batch.size"),
        ({"learning_rate": 1.0}, "learning_rate: no such setting; the nearest is learner.learning_rate"),
        ({"seed": 1.5}, "seed: 1.5 is no int"),
        ({"seed": True}, "seed: True is no int"),
        ({"learner": {"network": "natur"}}, "the nearest is nature"),
        ({"batch": 3}, "batch: 3 is not a table"),
        ({"learner": {"gamma": "0.9"}}, "learner.gamma: '0.9' is no float"),
        ({"learner": {"gamma": float("nan")}}, "not finite"),
        ({"goals": ["a"]}, "goals: 'a' is no float"),
        ({"atari": {"frameskip": 0}}, "frameskip must be at least 1"),
    ],
)
def test_a_wrong_setting_is_named(table, words):
    with pytest.raises(ConfigError, match=words):
        from_table(table, RunConfig())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch": {"size": 100}}, "--batch.size: 100 x 2 minibatches .* the nearest that fits is 96"),
        (
            {"batch": {"size": 8, "minibatches": 2}, "rollout": {"columns_per_collector": 1}},
            "--noise.every: one column",
        ),
        ({"batch": {"size": 0}}, "--batch.size: 0 is too small"),
        ({"rollout": {"waves": 0}}, "--rollout.waves: 0 is too small; the least is 1"),
        ({"rollout": {"waves": 3}}, "4 columns a collector x 3 waves; the nearest that fits is 96"),
        (
            {"env": "Pong", "learner": {"network": "auto"}, "batch": {"size": 1 << 30}},
            "--batch.size: 1073741824 makes rollouts of .* GiB on .* columns",
        ),
        ({"learner": {"learning_rate": -1.0}}, "--learner.learning-rate: -1.0 is no rate"),
        ({"learner": {"gamma": 1.5}}, "--learner.gamma: 1.5 is not in .0, 1.; the nearest is 1"),
        ({"noise": {"confidence": 1.0}}, "--noise.confidence: 1.0"),
        ({"noise": {"across_env_steps": -1}}, "--noise.across-env-steps: -1 is too small; the least is 0"),
        (
            {"noise": {"across_env_steps": 0}, "control": {"policy": "follow", "estimator": "across"}},
            "--noise.across-env-steps: 0 leaves",
        ),
        ({"env": "Cartpole"}, "did you mean 'CartPole'"),
    ],
)
def test_a_run_that_cannot_be_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        config(CARTPOLE, changes)


@given(st.integers(1, 5000), st.integers(1, 64), st.integers(1, 8), st.integers(1, 16), st.integers(1, 4))
def test_the_nearest_batch_size_that_is_named_fits(size, steps, minibatches, columns, waves):
    base = from_table(CARTPOLE, RunConfig())
    batch = dataclasses.replace(base.batch, size=size, segment_steps=steps, minibatches=minibatches)
    rollout = dataclasses.replace(base.rollout, columns_per_collector=columns, waves=waves)
    wanted = replaced(base, batch=batch, rollout=rollout, noise=dataclasses.replace(base.noise, every=0))
    try:
        validate(wanted)
    except ConfigError as error:
        nearest = int(str(error).rsplit(" ", 1)[-1])
        fits = validate(replaced(wanted, batch=dataclasses.replace(batch, size=nearest)))
        assert fits.columns * waves * steps == nearest * minibatches


@given(st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=4) | st.booleans() | st.floats()))
def test_any_table_is_taken_or_refused_in_one_line(table):
    try:
        from_table(table, RunConfig())
    except ConfigError as error:
        assert str(error)


def test_find_names_the_nearest_preset(tmp_path):
    with pytest.raises(ConfigError, match="'pogn' is neither a preset nor a file; the nearest is pong"):
        find("pogn")
    mine = tmp_path / "mine.toml"
    mine.write_text(tomli_w.dumps({"env": "Pong"}))
    assert load(find(str(mine))).env == "Pong"
    mine.write_text("env = [")
    with pytest.raises(ConfigError, match=r"mine\.toml"):
        load(mine)


def test_actors_decide_the_source():
    with source(config(SMALL)) as local:
        assert type(local).__name__ == "LocalSource"


def test_to_dict_has_every_key():
    assert set(to_dict(RunConfig())) == {f.name for f in dataclasses.fields(RunConfig)}
