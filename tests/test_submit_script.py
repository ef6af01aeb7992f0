"""scripts/submit.py as `ray submit` runs it: `python ~/submit.py`, its arguments joined unquoted, by a real shell."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from borrowed import borrow_environment

from rl_gns import options
from rl_gns.flags import flags

ROOT = Path(__file__).resolve().parent.parent
SUBMIT = ROOT / "scripts" / "submit.py"


@pytest.fixture
def home(tmp_path):
    """A head's home: submit.py alone, as it is copied, and a checkout at its fixed path with an environment."""
    shutil.copy(SUBMIT, tmp_path)
    checkout = tmp_path / "rl-gns"
    borrow_environment(checkout)
    for name in ("rl_gns", "envs", "configs"):
        (checkout / name).symlink_to(ROOT / name)
    return tmp_path


def submit(home, *arguments, **env):
    """Run what `ray submit` makes of the arguments, in a shell, with nothing but HOME and PATH."""
    command = " ".join(["python3", "~/submit.py", *arguments])
    env = {"HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **env}
    return subprocess.run(command, shell=True, cwd=home, env=env, capture_output=True, text=True, timeout=120)


def test_a_preset_by_name_a_value_with_spaces_and_an_absolute_run_root(home):
    """The whole way, with the run's own words: CartPole, one rollout, a directory with spaces under ~."""
    done = submit(
        home,
        "train --config cartpole --total-env-steps 1 --actors 0 --json --run-dir my first run",
    )
    assert done.returncode == 0, done.stderr
    assert (home / "my first run" / "result.json").exists() and json.loads(done.stdout)["env_steps"] > 0


def test_the_environment_that_it_hands_over(home):
    (home / "rl-gns" / "rl_gns").unlink()
    (home / "rl-gns" / "rl_gns").mkdir()
    (home / "rl-gns" / "rl_gns" / "__main__.py").write_text(
        "import json, os, sys\nnames = ('RAY_ADDRESS', 'RL_GNS_RUNS', 'PYTHONPATH', 'OMP_NUM_THREADS')\n"
        "print(json.dumps([sys.argv[1:], sys.executable, [os.environ.get(name) for name in names]]))\nsys.exit(7)\n"
    )
    checkout = home / "rl-gns"
    done = submit(home, "status", "a", "--goals", "1", "2", OMP_NUM_THREADS="1")
    told, python, (address, runs, imports, threads) = json.loads(done.stdout)
    assert threads is None, "Ray's own"
    assert done.returncode == 7 and told == ["status", "a", "--goals", "1", "2"]
    assert (python, address) == (str(checkout / ".venv/bin/python"), "auto")
    assert (runs, imports) == (str(home / "rl-gns-runs"), str(checkout))
    own = {"RAY_ADDRESS": "10.0.0.1:6379", "RL_GNS_RUNS": "kept", "PYTHONPATH": "/p", "OMP_NUM_THREADS": "3"}
    elsewhere = submit(home, "x", **own)
    assert json.loads(elsewhere.stdout)[2] == ["10.0.0.1:6379", str(home / "kept"), f"{checkout}:/p", "3"]
    moved = checkout.rename(home / "moved")
    assert json.loads(submit(home, "x", RL_GNS_CHECKOUT=str(moved)).stdout)[1] == str(moved / ".venv/bin/python")


def test_one_line_where_the_checkout_is_not_there(home):
    nowhere = submit(home, "train", RL_GNS_CHECKOUT="/nowhere")
    assert nowhere.returncode == 2 and nowhere.stderr.count("\n") == 1 and "no rl-gns at /nowhere" in nowhere.stderr
    (home / "rl-gns" / ".venv" / "bin" / "python").unlink()
    bare = submit(home, "train")
    assert bare.returncode == 2 and bare.stderr.count("\n") == 1 and "scripts/bootstrap" in bare.stderr


def test_a_misspelt_flag_is_still_one_line_and_code_2(home):
    done = submit(home, "train", "--config", "cartpole", "--totl-env-steps", "1")
    assert done.returncode == 2 and "--total-env-steps" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["train", "--run-dir", "a b", "--seed", "1"], None),
        (["train", "--run-dir=a b", "--json"], None),
        (["train", "--goals", "100", "-2.5", "1e3", "--stop-at-goal"], None),
        (["train", "--run-dir", "run 2"], None),
        (["train", "--run-dir", "2 runs"], None),
        (["train", "--config", "pong"], None),
        (["status", "--json", "a", "b"], None),
        (["status", "a", "b", "--watch"], None),
        (["sweep", "--reuse", "old sweep", "--reuse", "older one"], None),
        (["branch", "RUN", "--learning-rate-rules", "none", "sqrt", "--batch-sizes", "64", "128"], None),
        (["report", "--force", "runs/a", "runs/b", "--out", "a page"], None),
        (["train", "--no-atari.fire_reset", "--run-dir", "a b"], None),
        ([], None),
        (["train", "--run-dir", "a  b"], ["train", "--run-dir", "a b"]),  # two spaces are lost, as its words say
        (["train", "--run-dir", "2 3"], ["train", "--run-dir", "2", "3"]),  # as is what could be two numbers
    ],
)
def test_values_with_spaces(given, meant):
    rejoined = runpy.run_path(str(SUBMIT))["rejoined"]
    assert rejoined(" ".join(given).split()) == (meant or given)


def test_its_lists_are_the_flags_of_all_verbs():
    """Of the options' types, and of the usage of the verbs that have none."""
    script = runpy.run_path(str(SUBMIT))
    without, several = {"watch", "force"}, set()
    for name, made in vars(options).items():
        if name.endswith("Options"):
            for flag, hint in flags(made()).items():
                words = typing.get_origin(hint) is tuple and typing.get_args(hint)[0] not in (int, float)
                without |= {flag} if hint is bool else set()
                several |= {flag} if words and flag not in ("reuse", "fronts") else set()  # once for each value
    usages = options.FIT_USAGE + options.STATUS_USAGE + options.REPORT_USAGE
    assert {"watch", "force"} <= set(re.findall(r"\[--([a-z-]+)\]", usages)) <= without
    assert set(script["WITHOUT_VALUE"]) == without and set(script["SEVERAL_WORDS"]) == several


def test_only_the_standard_library():
    done = subprocess.run([sys.executable, "-S", "-I", str(SUBMIT)], capture_output=True, text=True, env={"HOME": "/x"})
    assert done.returncode == 2 and "no rl-gns at /x/rl-gns" in done.stderr
