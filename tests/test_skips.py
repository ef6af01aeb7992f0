"""The skip rule of conftest.py, on a suite that breaks it in every way; and what CI does without a package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import pytest

def test_plain():
    pass

def test_lazy():
    pytest.skip("the moon is full")

@pytest.mark.skipif(True, reason="no CUDA here")
def test_cuda():
    raise AssertionError

@pytest.mark.gpu
def test_needs_gpu():
    import torch
    assert torch.cuda.is_available()

@pytest.mark.xfail(reason="known")
def test_known():
    raise AssertionError
"""


def outcomes(tmp_path: Path, suite: str, no_skip: str) -> dict[str, int]:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_it.py").write_text(suite)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: needs one\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    environment = os.environ | {
        "RL_GNS_NO_SKIP": no_skip,
        "CUDA_VISIBLE_DEVICES": "",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    return {word.rstrip("s"): int(n) for n, word in re.findall(r"(\d+) (\w+)", done.stdout.splitlines()[-1])}


@pytest.mark.parametrize("no_skip, lazy", [("", "skipped"), ("1", "failed")])
def test_only_a_missing_gpu_is_a_skip_where_none_is_allowed(tmp_path, no_skip, lazy):
    seen = outcomes(tmp_path, SUITE, no_skip)
    expected = {"passed": 1, "skipped": 2, "xfailed": 1}
    expected[lazy] = expected.get(lazy, 0) + 1
    assert {key: seen[key] for key in expected} == expected


def test_a_skip_without_a_reason_always_fails(tmp_path):
    suite = """
import pytest

def test_call():
    pytest.skip()

@pytest.mark.skip
def test_bare_mark():
    pass
"""
    seen = outcomes(tmp_path, suite, "")
    assert (seen["failed"], seen["error"]) == (1, 1)  # a mark skips in the set-up, which is an error


def test_a_whole_module_cannot_slip_away(tmp_path):
    suite = "import pytest\npytest.importorskip('no_such_module')\ndef test_it():\n    pass\n"
    assert outcomes(tmp_path, suite, "1")["error"] == 1
    assert outcomes(tmp_path, suite, "")["skipped"] == 1


APT = """#!/usr/bin/env bash
# Installs nothing where one of what is asked for cannot be located.
[[ " $* " == *" chromium "* || " $* " == *" rsync "* ]] && exit 100
[[ $1 == install ]] && echo "${@: -1}" >>"$INSTALLED"
exit 0
"""


def test_packages_that_cannot_be_had_keep_no_others_away(tmp_path):
    """`.ci/run` with an apt-get that lacks two of them, and with nothing installed."""
    programs = {"bin/dpkg": "#!/bin/sh\nexit 1\n", "bin/apt-get": APT, "scripts/test": "#!/bin/sh\necho tested $@\n"}
    script = (Path(__file__).parents[1] / ".ci" / "run").read_text()
    assert "$EUID -eq 0" in script
    programs[".ci/run"] = script.replace("$EUID -eq 0", "0 -eq 0")
    for name, text in programs.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "INSTALLED": str(tmp_path / "installed")}
    done = subprocess.run([tmp_path / ".ci" / "run", "-x"], env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "tested --all -x\n"
    installed = (tmp_path / "installed").read_text().split()
    assert installed == ["procps", "util-linux", "openssh-server", "openssh-client", "iproute2"]
    assert done.stderr == ".ci/run: no rsync chromium; the tests that need them will fail\n"
