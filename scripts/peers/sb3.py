"""stable-baselines3's PPO on Pong: prints {"env_steps", "seconds", "versions"} as one JSON line.

Pong at the emulator's own frame rate under stable-baselines3's AtariWrapper: frameskip 4 with a maximum over two
frames, 84 x 84 grey, 4 stacked, no sticky actions, minimal action set, rewards clipped. It ends an episode at a lost
life (Pong has none). Learning settings are those of configs/pong.toml.
"""

import argparse
import json
import time

import ale_py
import gymnasium
import stable_baselines3
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack

HOSTS = {"one process": DummyVecEnv, "a process a column": SubprocVecEnv}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--env-steps", type=int, required=True)
    parser.add_argument("--warm-up-env-steps", type=int, required=True)
    parser.add_argument("--columns", choices=HOSTS, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    gymnasium.register_envs(ale_py)
    raw = {"frameskip": 1, "repeat_action_probability": 0.0, "full_action_space": False}
    columns = make_atari_env("ALE/Pong-v5", 8, seed=0, env_kwargs=raw, vec_env_cls=HOSTS[options.columns])
    settings = {"learning_rate": 2.5e-4, "clip_range": 0.1, "ent_coef": 0.01, "vf_coef": 0.5, "max_grad_norm": 0.5}
    sizes = {"n_steps": 128, "batch_size": 256, "n_epochs": 4}
    model = PPO("CnnPolicy", VecFrameStack(columns, 4), seed=0, device="cpu", **sizes, **settings)
    model.learn(options.warm_up_env_steps)
    done, start = model.num_timesteps, time.perf_counter()
    model.learn(options.env_steps, reset_num_timesteps=False)
    seconds = time.perf_counter() - start
    versions = {m.__name__: m.__version__ for m in (stable_baselines3, torch, gymnasium)}
    print(json.dumps({"env_steps": model.num_timesteps - done, "seconds": seconds, "versions": versions}))
    model.env.close()


if __name__ == "__main__":  # its worker processes import this file
    main()
