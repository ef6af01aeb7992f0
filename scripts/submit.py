"""The one file that `ray submit CLUSTER.yaml scripts/submit.py -- VERB ...` copies: runs `rl-gns VERB ...` on the head.

It finds the checkout at $RL_GNS_CHECKOUT or ~/rl-gns and runs the Python of its environment, so presets go by name.
Runs lie in $RL_GNS_RUNS or ~/rl-gns-runs, so the same command finds its run again, from whatever directory. The
cluster is the one that this machine belongs to, unless RAY_ADDRESS names another. The learner's threads are
--learner.threads, else all CPUs of its node.

`ray submit` joins the arguments with spaces, unquoted, for the shell of the head. So words that follow a flag's value,
up to the next flag, are put back with single spaces between (`--run-dir my first run`), unless all of them are numbers
(`--goals 100 200`) or the flag takes words (`--learning-rate-rules none sqrt`). Directories that are no flag's value
(`status`, `report`, `fit`) come before flags that have one. Spaces in them, two spaces in a row, and what the shell
reads itself ($ ; & | * ? ~ quotes, parentheses) need quotes of their own inside the quotes: "'my run; 2'".

Exit codes are those of rl-gns; 2 where the checkout or its environment is not there. Standard library only.
"""

import os
import sys
from pathlib import Path

WITHOUT_VALUE = (
    "all",
    "atari.clip-rewards",
    "atari.fire-reset",
    "atari.full-action-space",
    "atari.life-loss-terminal",
    "checkpoint.exact-resume",
    "force",
    "hessian",
    "json",
    "learner.value-clip",
    "profile",
    "stop-at-goal",
    "tensorboard",
    "watch",
    "whole",
)
"""Flags that have none, nor has their --no-: what follows one stands alone."""
SEVERAL_WORDS = ("learning-rate-rules",)
"""Flags whose values are words without spaces, one or more."""
RAYS_THREADS = ("OMP_NUM_THREADS", "1")
"""`ray submit` (2.60) exports it after the login files, whatever they say: it is nobody's wish."""


def rejoined(arguments: list[str]) -> list[str]:
    """The arguments as they were before they were joined with spaces and split again."""
    groups: list[list[str]] = [[]]  # what stands before the first flag, then each flag with what follows it
    for token in arguments:
        if token.startswith("--"):
            groups.append([])
        groups[-1].append(token)
    first, *flags = groups
    return first + [token for flag, *words in flags for token in _with_value(flag, words)]


def _with_value(flag: str, words: list[str]) -> list[str]:
    name, given, start = flag.partition("=")
    if given:
        return (
            [f"{name}={' '.join([start, *words])}"] if words and not _are_numbers([start, *words]) else [flag, *words]
        )
    key = flag.removeprefix("--").removeprefix("no-").replace("_", "-")
    if len(words) < 2 or key in (*WITHOUT_VALUE, *SEVERAL_WORDS) or _are_numbers(words):
        return [flag, *words]
    return [flag, " ".join(words)]


def _are_numbers(words: list[str]) -> bool:
    try:
        [float(word) for word in words]
    except ValueError:
        return False
    return True


def checkout() -> Path:
    """Where rl-gns lies on this machine; exits with one line and code 2 where it does not."""
    path = Path(os.environ.get("RL_GNS_CHECKOUT") or "~/rl-gns").expanduser()
    if not (path / "rl_gns" / "__main__.py").is_file():
        _refuse(f"no rl-gns at {path}: bring it there as cluster/*.yaml do (file_mounts), or set RL_GNS_CHECKOUT")
    if not (path / ".venv" / "bin" / "python").exists():
        _refuse(f"no environment at {path / '.venv'}: run {path / 'scripts' / 'bootstrap'} on this machine")
    return path.resolve()


def _refuse(why: str) -> None:
    print(f"submit.py: {why}", file=sys.stderr)
    raise SystemExit(2)


def environment(path: Path) -> dict[str, str]:
    """This process's without `RAYS_THREADS`, with the checkout first, absolute run roots, and this node's cluster."""
    runs = Path(os.environ.get("RL_GNS_RUNS") or "~/rl-gns-runs").expanduser()
    imports = os.pathsep.join(filter(None, (str(path), os.environ.get("PYTHONPATH"))))
    added = {"RL_GNS_RUNS": str(Path.home() / runs), "PYTHONPATH": imports}
    kept = dict(item for item in os.environ.items() if item != RAYS_THREADS)
    return {"RAY_ADDRESS": "auto"} | kept | added


def main() -> None:
    path = checkout()
    python = str(path / ".venv" / "bin" / "python")
    sys.stdout.flush()
    os.execve(python, [python, "-m", "rl_gns", *rejoined(sys.argv[1:])], environment(path))


if __name__ == "__main__":
    main()
