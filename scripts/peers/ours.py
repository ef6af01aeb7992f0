"""rl-gns end to end, the probe off: prints {"env_steps", "seconds", "versions"} as one JSON line."""

import argparse
import json

import torch

from rl_gns import __version__
from rl_gns.config_file import find, load
from rl_gns.study.bench import Loop
from rl_gns.study.build import checked, make_learner, source

parser = argparse.ArgumentParser()
parser.add_argument("--env-steps", type=int, required=True)
parser.add_argument("--warm-up-env-steps", type=int, required=True)
options = parser.parse_args()

config = checked(load(find("pong")))
with source(config) as segments:
    loop = Loop(config, make_learner(config), segments)
    loop.piece(max(1, options.warm_up_env_steps // config.batch.rollout_env_steps), probe=False)
    records, seconds = loop.piece(max(1, options.env_steps // config.batch.rollout_env_steps), probe=False)
env_steps = sum(record.used_env_steps for record in records)
versions = {"rl-gns": __version__, "torch": torch.__version__}
print(json.dumps({"env_steps": env_steps, "seconds": seconds, "versions": versions}))
