"""scripts/bench_peers: rl-gns, stable-baselines3 and RLlib in turn, each in a process of its own, nothing else at work.

Every turn trains each of them on Pong (8 columns x 128 env steps, 4 epochs x 4 minibatches of 256, Nature CNN) for the
same env steps after a warm-up. A short trial first picks each peer's fastest way to host columns and its fastest
number of torch threads. Reported: env steps a second, medians over the turns, and ours / peer within each turn.

What differs, and does not matter for speed: ours masks autoreset rows and counts valid env steps only; the peers end
an episode at a lost life (Pong has none). RLlib's frames are floats and its learner computes the values once more.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from rl_gns.study.bench import Spread, spread
from rl_gns.study.machine_load import BUSY_SHARE, load, share_at_rest, share_of_others

HERE = Path(__file__).resolve().parent
CORES = len(os.sched_getaffinity(0))
PACKAGES = {
    "stable-baselines3": ["stable-baselines3==2.9.2", "opencv-python-headless==5.0.0.93"],
    "RLlib": [f"ray[rllib]=={importlib.metadata.version('ray')}", "opencv-python-headless==5.0.0.93"],
}
SCRIPTS = {"stable-baselines3": "sb3.py", "RLlib": "rllib.py"}
WAYS = [(columns, threads) for columns in ("one process", "a process a column") for threads in sorted({1, CORES})]
TRIAL_ENV_STEPS = 2048
LONGEST_SECONDS = 900
BOUND = ("stable-baselines3", 1.6)
"""Ours is to be at least so many times as fast."""


class NotRun(Exception):
    """Why a peer gave no number."""


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="peers-") as throwaway:
        python = environment(Path(options.keep or throwaway))
        result = measured(options, python)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("\n".join(words(result)))
    return int(result["verdict"] == "fail")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench_peers", description=__doc__)
    parser.add_argument("--alternations", type=int, default=3)
    parser.add_argument("--env-steps", type=int, default=8192, help="measured in each turn, of each")
    parser.add_argument("--warm-up-env-steps", type=int, default=2048)
    parser.add_argument("--json", default="", help="write the numbers to this file")
    parser.add_argument("--keep", default="", help="make the peers' environment here, or use it again")
    options = parser.parse_args()
    if min(options.alternations, options.env_steps, options.warm_up_env_steps) < 1:
        parser.error("--alternations, --env-steps and --warm-up-env-steps are at least 1")
    return options


def environment(folder: Path) -> Path:
    """The Python of a virtual environment that sees our packages and puts its own before them."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        theirs = subprocess.run([python, "-c", "import site; print(site.getsitepackages()[0])"], **_TEXT).stdout.strip()
        ours = sysconfig.get_paths()["purelib"]
        Path(theirs, "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n", encoding="utf-8")
    return python


def install(python: Path, peer: str) -> None:
    """The peer's packages; nothing of what ours already has in a version that fits."""
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES[peer]]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NotRun(f"pip: {_last_line(done.stderr)}")


def measured(options: argparse.Namespace, python: Path) -> dict[str, Any]:
    """Trials, then the turns; what `--json` holds."""
    commands, trials, not_run = {"rl-gns": [sys.executable, HERE / "ours.py"]}, {}, {}
    for peer in SCRIPTS:
        try:
            _say(f"{peer}: installing, then a short trial of each way to run it")
            install(python, peer)
            trials[peer] = trial(python, peer)
            commands[peer] = _command(python, peer, *trials[peer][0][:2])
        except NotRun as reason:
            not_run[peer] = str(reason)
    turns, busy = [], []
    for turn in range(options.alternations):
        turns.append({})
        for name, command in list(commands.items()):
            _say(f"alternation {turn + 1} of {options.alternations}: {name}")
            at_rest, before = share_at_rest(), load()
            try:
                turns[-1][name] = run(command, options.env_steps, options.warm_up_env_steps)
            except NotRun as reason:
                not_run[name] = str(reason)
                del commands[name]
            busy.append(max(at_rest, share_of_others(before, load())))
    return _result(turns, trials, not_run, max(busy))


def trial(python: Path, peer: str) -> list[tuple[str, int, float]]:
    """(columns, torch threads, env steps a second) of every way to run it, the fastest first."""
    tried, reasons = [], []
    for columns, threads in WAYS:
        _say(f"  columns in {columns}, {threads} torch threads")
        try:
            done = run(_command(python, peer, columns, threads), TRIAL_ENV_STEPS, TRIAL_ENV_STEPS // 2)
            tried.append((columns, threads, done["env_steps"] / done["seconds"]))
        except NotRun as reason:
            reasons.append(str(reason))
    if not tried:
        raise NotRun(reasons[0])
    return sorted(tried, key=lambda way: -way[2])


def _command(python: Path, peer: str, columns: str, threads: int) -> list[Any]:
    return [python, HERE / SCRIPTS[peer], "--columns", columns, "--threads", str(threads)]


def run(command: list[Any], env_steps: int, warm_up_env_steps: int) -> dict[str, Any]:
    """The JSON object on the last line that one process prints; NotRun with its last words where there is none."""
    sizes = ["--env-steps", str(env_steps), "--warm-up-env-steps", str(warm_up_env_steps)]
    surroundings = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*command, *sizes], env=surroundings, start_new_session=True, **pipes)
    try:
        said, errors = process.communicate(timeout=LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        raise NotRun(f"no result within {LONGEST_SECONDS} s") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # its workers too
            process.wait()
    if process.returncode:
        raise NotRun(_last_line(errors))
    return json.loads(said.splitlines()[-1])


def _result(
    turns: list[dict[str, Any]], trials: dict[str, Any], not_run: dict[str, str], busy: float
) -> dict[str, Any]:
    rates = {
        name: [t[name]["env_steps"] / t[name]["seconds"] for t in turns] for name in turns[0] if name not in not_run
    }
    ours = rates["rl-gns"]
    ratios = {
        name: spread([our_rate / rate for our_rate, rate in zip(ours, theirs, strict=True)], "times")
        for name, theirs in rates.items()
        if name != "rl-gns"
    }
    return {
        "rates": {name: dataclasses.asdict(spread(rate, "env steps/s")) for name, rate in rates.items()},
        "ours_over_peer": {name: dataclasses.asdict(ratio) for name, ratio in ratios.items()},
        "versions": {name: turns[0][name]["versions"] for name in rates},
        "trials": trials,
        "not_run": not_run,
        "busy_share": busy,
        "verdict": verdict(ratios.get(BOUND[0]), busy),
    }


def verdict(ratio: Spread | None, busy: float) -> str:
    """pass, fail, or why it was not judged."""
    if ratio is None:
        return f"not judged: {BOUND[0]} was not run"
    if busy > BUSY_SHARE:
        return f"not judged: the machine is busy ({busy:.0%} of the cores used by others, more than {BUSY_SHARE:.0%})"
    return "pass" if ratio.median >= BOUND[1] else "fail"


def words(result: dict[str, Any]) -> list[str]:
    """A line for each of them, then the ratios and the verdict."""
    lines = [f"{name:18} {_spread_words(rate, 0)} env steps a second" for name, rate in result["rates"].items()]
    for name, ((columns, threads, _), *_others) in result["trials"].items():
        lines.append(f"  {name} at its fastest of {len(WAYS)}: columns in {columns}, {threads} torch threads")
    lines += [f"ours / {name:18} {_spread_words(ratio, 2)}" for name, ratio in result["ours_over_peer"].items()]
    lines += [f"{name}: not run: {reason}" for name, reason in result["not_run"].items()]
    lines.append(f"used by others: {result['busy_share']:.0%} of the cores at most")
    return [*lines, f"at least {BOUND[1]} times {BOUND[0]}: {result['verdict']}"]


def _spread_words(spread: dict[str, Any], digits: int) -> str:
    median, low, high = (f"{spread[name]:,.{digits}f}" for name in ("median", "low", "high"))
    return f"{median} ({low} to {high})"


_TEXT: dict[str, Any] = {"capture_output": True, "text": True, "check": True}


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
