"""Event files, read back by TensorBoard itself: the numbers of metrics.jsonl, each rollout once."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import CARTPOLE, config, finished

from rl_gns.cli import main
from rl_gns.records import to_json
from rl_gns.rundir import RunDir
from rl_gns.study.tensorboard import EventFiles, scalars

TRAIN = ["train", "--config", "cartpole", "--checkpoint.every-env-steps", "4000", "--noise.every", "1"]


def trained(path, env_steps, *flags):
    assert main([*TRAIN, "--run-dir", str(path), "--total-env-steps", str(env_steps), "--json", *flags]) == 0


def opened(path):
    return EventAccumulator(str(path / "tensorboard"), size_guidance={"scalars": 0}).Reload()


def points(events):
    """tag -> [(env steps, value)], as TensorBoard draws them."""
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def wanted(path):
    """The same from metrics.jsonl, at the precision of an event file."""
    found = {}
    for record in RunDir(path).records():
        for tag, value in scalars(record):
            found.setdefault(tag, []).append((record["env_steps"], float(np.float32(value))))
    return found


def test_every_number_is_drawn_against_env_steps_and_what_is_missing_is_not(tmp_path):
    trained(tmp_path, 5000, "--tensorboard")
    drawn, records = points(opened(tmp_path)), list(RunDir(tmp_path).records())
    assert drawn == wanted(tmp_path) and len(records) >= 5
    assert [value for _, value in drawn["seconds"]] == [float(np.float32(r["seconds"])) for r in records]
    numbers = {name for name, value in records[-1].items() if type(value) in (int, float)}
    assert numbers <= set(drawn) and "evaluation_return" not in drawn, "no goals: no evaluation, and no zero for it"
    assert "probe_signal_sq/policy" in drawn


def test_a_noise_scale_is_drawn_as_far_as_it_is_known():
    record = to_json(finished(config(CARTPOLE))[1][-1])
    scale = record["noise"]["policy"]

    def drawn(**changes):
        known = {**record, "noise": {"policy": {**scale, **changes}}}
        return {tag: value for tag, value in scalars(known) if tag.startswith("noise/")}

    whole = {"b_simple": 900.0, "low": 500.0, "high": 2000.0}
    assert drawn(resolved=True, **whole) == {f"noise/policy/{name}": value for name, value in whole.items()}
    assert drawn(resolved=False, b_simple=900.0, low=500.0, high=None) == {"noise/policy/low": 500.0}
    assert drawn(resolved=False, b_simple=None, low=0.0, high=None) == {}
    across = {**scale, "resolved": True, "b_simple": 900.0, "coherence": 0.5}
    tags = dict(scalars({**record, "noise_across": {"policy": across}}))
    assert (tags["noise_across/policy/b_simple"], tags["noise_across/policy/coherence"]) == (900.0, 0.5)
    known = {**record, "noise_control": {**scale, "resolved": True, "b_simple": 900.0}}
    assert dict(scalars(known))["noise_control/b_simple"] == 900.0 and "noise_control_truth/b_simple" in tags
    assert dict(scalars({**record, "noise": None})).keys().isdisjoint({"noise", "noise/policy/low"})


def test_a_killed_and_resumed_run_is_drawn_once_also_by_a_tensorboard_that_stayed_open(tmp_path):
    command = [sys.executable, "-m", "rl_gns", *TRAIN, "--tensorboard", "--run-dir", str(tmp_path)]
    process = subprocess.Popen(
        [*command, "--total-env-steps", "5000000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (RunDir(tmp_path).checkpoints() and beyond_the_checkpoint(tmp_path)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    stayed_open = opened(tmp_path)
    killed, lines = points(stayed_open)["seconds"], wanted(tmp_path)["seconds"]
    assert killed in (lines, lines[:-1]) and beyond_the_checkpoint(tmp_path)
    trained(tmp_path, killed[-1][0] + 3000, "--tensorboard")
    assert not set(killed) <= set(wanted(tmp_path)["seconds"]), "some rollouts were computed again"
    assert points(opened(tmp_path)) == wanted(tmp_path)
    assert points(stayed_open.Reload()) == wanted(tmp_path)


def beyond_the_checkpoint(path):
    """Two rollouts or more lie beyond the newest checkpoint."""
    records = list(RunDir(path).records())
    return records[-1]["env_steps"] - int(RunDir(path).checkpoints()[-1].name) >= 2 * records[-1]["requested_env_steps"]


def test_a_sitting_without_the_flag_leaves_no_gap_and_a_finished_run_is_drawn_too(tmp_path):
    trained(tmp_path, 2000)
    assert not (tmp_path / "tensorboard").exists()
    trained(tmp_path, 4000, "--tensorboard")
    trained(tmp_path, 6000)
    for _ in range(2):
        trained(tmp_path, 6000, "--tensorboard")
        assert points(opened(tmp_path)) == wanted(tmp_path)
        assert len(list((tmp_path / "tensorboard").iterdir())) == 2, "files do not pile up"


@pytest.mark.parametrize("seconds_ahead", [0, 3600])
def test_a_file_that_was_made_in_this_second_or_by_a_clock_that_was_set_back_is_read_first(tmp_path, seconds_ahead):
    """TensorBoard reads files in the order of their names: second, host, process."""
    trained(tmp_path, 2000, "--tensorboard")
    (old,) = (tmp_path / "tensorboard").iterdir()
    time.sleep(1 - time.time() % 1)
    old.rename(old.with_name(f"events.out.tfevents.{int(time.time()) + seconds_ahead}.zz.99999999.0"))
    with EventFiles(tmp_path):
        pass
    later = {path.name for path in (tmp_path / "tensorboard").iterdir()}
    assert len(later) == (2 if seconds_ahead == 0 else 1) and ".zz." not in max(later)
    assert points(opened(tmp_path)) == wanted(tmp_path)


def test_where_the_package_is_missing_it_is_one_line_and_nothing_is_written(tmp_path):
    code = "import sys; sys.modules['tensorboard'] = None; from rl_gns.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *TRAIN, "--tensorboard", "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "rl-gns[tensorboard]" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.cluster
def test_it_shares_a_process_with_ray(tmp_path):
    """Both speak protobuf, of one version."""
    trained(tmp_path, 2000, "--tensorboard", "--actors", "1")
    assert points(opened(tmp_path)) == wanted(tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["stopped"] == "budget"
