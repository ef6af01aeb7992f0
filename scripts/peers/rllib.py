"""RLlib's PPO (new API stack) on Pong: prints {"env_steps", "seconds", "versions"} as one JSON line.

Its own Atari wrapper for that stack: frameskip 4 with a maximum over two frames, 84 x 84 grey, 4 stacked, as floats.
The env runner and the learner are in this process, which is its fastest layout on two cores for a rollout of 1,024
env steps. It recomputes values on the learner, ends an episode at a lost life (Pong has none), and adds a KL term,
which is switched off. Learning settings are those of configs/pong.toml.
"""

import argparse
import json
import os
import time
from typing import Any

import torch

from rl_gns.distributed import session


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--env-steps", type=int, required=True)
    parser.add_argument("--warm-up-env-steps", type=int, required=True)
    parser.add_argument("--columns", choices=("one process", "a process a column"), required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with session.start(len(os.sched_getaffinity(0)), 500 << 20):
        print(json.dumps(measured(options)))


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Whole iterations of 1,024 env steps, the first ones dropped."""
    import gymnasium
    import ray

    algorithm = configured(options.columns).build_algo()
    for _ in range(max(1, options.warm_up_env_steps // 1024)):
        done = algorithm.train()["num_env_steps_sampled_lifetime"]
    start = time.perf_counter()
    for _ in range(max(1, options.env_steps // 1024)):
        last = algorithm.train()["num_env_steps_sampled_lifetime"]
    seconds = time.perf_counter() - start
    algorithm.stop()
    versions = {module.__name__: module.__version__ for module in (ray, torch, gymnasium)}
    return {"env_steps": int(last - done), "seconds": seconds, "versions": versions}


def configured(columns: str) -> Any:
    """PPO with 8 columns x 128 steps, 4 epochs x 4 minibatches and the Nature CNN."""
    import gymnasium
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
    from ray.tune.registry import register_env

    register_env("pong", make_pong)
    mode = gymnasium.VectorizeMode.SYNC if columns == "one process" else gymnasium.VectorizeMode.ASYNC
    # The last one is the hidden layer of 512, as a convolution over all 7 x 7 pixels: RLlib's own hidden layers come
    # once for the policy and once for the value.
    filters = [[32, 8, 4, "valid"], [64, 4, 2, "valid"], [64, 3, 1, "valid"], [512, 7, 1, "valid"]]
    network = DefaultModelConfig(
        conv_filters=filters, conv_activation="relu", head_fcnet_hiddens=[], vf_share_layers=True
    )
    return (
        PPOConfig()
        .environment("pong", clip_rewards=True)
        .env_runners(
            num_env_runners=0, num_envs_per_env_runner=8, rollout_fragment_length=128, gym_env_vectorize_mode=mode
        )
        .learners(num_learners=0, num_gpus_per_learner=0)
        .training(train_batch_size_per_learner=1024, minibatch_size=256, num_epochs=4, lr=2.5e-4, clip_param=0.1)
        .training(gamma=0.99, lambda_=0.95, entropy_coeff=0.01, vf_loss_coeff=0.5, grad_clip=0.5, use_kl_loss=False)
        .rl_module(model_config=network)
        .debugging(seed=0, log_level="ERROR")
    )


def make_pong(_: Any) -> Any:
    """Pong at the emulator's own frame rate, in RLlib's wrapper."""
    import ale_py
    import gymnasium
    from ray.rllib.env.wrappers.atari_wrappers import wrap_atari_for_new_api_stack

    gymnasium.register_envs(ale_py)
    raw = {"frameskip": 1, "repeat_action_probability": 0.0, "full_action_space": False}
    return wrap_atari_for_new_api_stack(gymnasium.make("ALE/Pong-v5", **raw), dim=84, framestack=4)


if __name__ == "__main__":
    main()
