"""What must start at once loads nothing heavy. Each case is a fresh interpreter that names all it imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rl_gns.verbs import VERBS

PAPER = Path(__file__).resolve().parent.parent / "docs/results/paper/mccandlish2018_atari_fronts.csv"
HEAVY = {"torch", "ray", "gymnasium", "ale_py"}


def loaded(*arguments: str, cwd: str | None = None) -> tuple[set[str], str]:
    """Top-level packages imported by `python ARGUMENTS`, and its output; it has to succeed."""
    environment = os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert done.returncode == 0, "\n".join(line for line in done.stderr.splitlines() if line not in lines)
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}, done.stdout


def test_the_measuring_stick_measures():
    assert "gymnasium" in loaded("-c", "import gymnasium")[0]


@pytest.mark.parametrize(
    "module", ["rl_gns", "rl_gns.noise", "rl_gns.records", "rl_gns.config", "rl_gns.rundir", "rl_gns.cli"]
)
def test_importing_is_light(module):
    assert not loaded("-c", f"import {module}")[0] & HEAVY


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_is_light(verb):
    packages, said = loaded("-m", "rl_gns", *verb.split(), "--help")
    assert "rl_gns" in packages and not packages & HEAVY
    assert "usage" in said.lower()


def test_fitting_a_file_is_light():
    packages, said = loaded("-m", "rl_gns", "fit", str(PAPER), "--json")
    assert "scipy" in packages and not packages & HEAVY and "b_crit" in said


def test_reporting_is_light(tmp_path):
    sweep = PAPER.parent.parent / "2026-11-23-breakout-front"
    packages, _ = loaded("-m", "rl_gns", "report", str(sweep), "--out", str(tmp_path))
    assert "matplotlib" in packages and not packages & HEAVY and (tmp_path / "index.html").exists()


def test_the_exported_names_arrive_on_first_use():
    code = "import rl_gns, sys; assert 'rl_gns.config' not in sys.modules; print(rl_gns.RunConfig, rl_gns.NoiseScale)"
    packages, said = loaded("-c", code)
    assert "rl_gns.config.RunConfig" in said and "rl_gns.records.NoiseScale" in said and not packages & HEAVY


def test_the_meter_brings_torch_alone():
    packages, said = loaded("-c", "import rl_gns; print(rl_gns.NoiseScaleMeter)")
    assert "rl_gns.learn.meter" in said and packages & HEAVY == {"torch"}


def test_a_name_that_is_not_exported_is_an_attribute_error():
    import rl_gns

    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        _ = rl_gns.nonesuch
    assert {"NoiseScale", "NoiseScaleMeter", "RunConfig"} <= set(dir(rl_gns))
