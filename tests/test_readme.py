"""What the README promises: paths that exist, commands that parse, a table of fields that is the records' own."""

import re
import shlex
from pathlib import Path

import pytest

from rl_gns import options, verbs
from rl_gns.config_file import presets
from rl_gns.flags import check, parse
from rl_gns.options import TrainOptions
from rl_gns.report.tables import metrics_tables
from rl_gns.study.build import idle_actors
from rl_gns.verbs.places import preset

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CLUSTER_README = (ROOT / "cluster" / "README.md").read_text(encoding="utf-8")
OPTIONS = {
    "train": options.TrainOptions(),
    "measure": options.MeasureOptions(),
    "sweep": options.SweepOptions(),
    "plan": options.PlanOptions(),
    "branch": options.BranchOptions(),
    "compare": options.CompareOptions(),
    "predict": options.PredictOptions(),
    "bench": options.BenchOptions(),
    "selftest": options.SelftestOptions(),
    "doctor": options.DoctorOptions(),
}


def commands():
    blocks = re.findall(r"```sh\n(.*?)```", README + CLUSTER_README, re.S) + re.findall(
        r"`(?:RAY_ADDRESS=auto )?(rl-gns [a-z]+ --[^`]*)`", README
    )
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("export ")]


def test_the_tables_of_fields_are_the_records_own():
    assert metrics_tables() in README, "put the output of `python -m rl_gns.report.tables` into the README"


@pytest.mark.parametrize("path", re.findall(r"^\| `([a-z_/.]+)` \|", README, re.M))
def test_the_tours_paths_exist(path):
    assert "/" not in path or (ROOT / path).exists()


@pytest.mark.parametrize("image", re.findall(r"!\[.*?\]\((.*?)\)", README))
def test_figures_exist(image):
    assert (ROOT / image).stat().st_size > 10_000


@pytest.mark.parametrize("command", commands())
def test_commands_are_real(command):
    program, *arguments = shlex.split(command)
    if program == "ray":
        assert all((ROOT / word).is_file() for word in arguments if word.startswith(("cluster/", "scripts/")))
        if "--" not in arguments:
            return
        words = arguments[arguments.index("--") + 1 :]
        program, *arguments = ["rl-gns", *(words[3:] if words[0] == "python" else words)]
    if not program.endswith("rl-gns"):
        assert (ROOT / program).exists() or program == "python3"
        return
    verb, *rest = arguments
    assert verb in verbs.VERBS
    if verb in OPTIONS:
        check(OPTIONS[verb], rest[1:] if verb == "branch" else rest)
    if verb == "train":
        assert idle_actors(parse(TrainOptions, TrainOptions(run=preset(rest)), rest, "").run) is None


def test_every_verb_and_preset_is_named():
    assert all(f"`rl-gns {verb}`" in README for verb in verbs.VERBS)
    assert all(f"`{name}`" in README for name in presets())


def test_no_placeholder_is_left():
    assert "@@" not in README
