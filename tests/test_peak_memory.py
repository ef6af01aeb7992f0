"""A rollout's frames are held once, through collecting, probe and update, and from one rollout to the next."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TWO_ROLLOUTS = """
import gc, json
from pathlib import Path
from tiny import PONG, config
from rl_gns.rollout.sources import LocalSource
from rl_gns.study.build import make_learner
from rl_gns.trainer import Trainer

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024

def run(waves):
    settings = config(PONG, {
        "total_env_steps": 900 * waves,
        "atari": {"frame_size": 84, "max_episode_frames": 108_000},
        "learner": {"network": "nature"},
        "batch": {"size": 512 * waves, "segment_steps": 64, "minibatches": 1},
        "rollout": {"columns_per_collector": 4, "waves": waves},
        "noise": {"every": 2, "groups": 2},
    })
    source = LocalSource(settings)
    records = list(Trainer(settings, make_learner(settings), source).run())
    source.close()
    assert len(records) == 2 and records[0].columns == 8 and records[0].probe_groups == 2
    return {"frames": waves * 8 * (64 + 4) * 84 * 84, "peak": peak()}

small = run(1)
gc.collect()
print(json.dumps([small, run(12)]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux's counter of the peak")
def test_the_frames_of_a_rollout_are_held_once():
    """Two rollouts of 8 columns x T = 64 in 1 wave, then in 12: 4 and 46 MB of 84 x 84 frames. The peak of the process
    grows by the difference, and a little for blocks in flight. A second copy would make it 2 (2.4 with the last
    rollout kept)."""
    done = subprocess.run(
        [sys.executable, "-c", TWO_ROLLOUTS], capture_output=True, text=True, cwd=Path(__file__).parent, check=True
    )
    small, large = json.loads(done.stdout.splitlines()[-1])
    copies = (large["peak"] - small["peak"]) / (large["frames"] - small["frames"])
    assert 0.9 < copies < 1.7, (small, large)
