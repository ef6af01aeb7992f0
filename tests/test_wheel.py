"""The wheel alone, in a clean environment far from the checkout, trains."""

import json
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def done(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Standard output of a command that has to succeed, run without this interpreter's own settings."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV", "RL_GNS"))}
    line, env = [str(part) for part in command], clean | environment
    result = subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True)
    assert result.returncode == 0, f"{line}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    done(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (built,) = out.glob("rl_gns-*.whl")
    return built


def test_the_wheel_holds_the_packages_the_presets_and_no_more(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    presets = {f"rl_gns/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.toml")}
    assert presets and presets <= names
    assert {"rl_gns/py.typed", "rl_gns/cli.py", "rl_gns/report/page.html.j2", "envs/__init__.py"} <= names
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"rl_gns", "envs"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_trains_on_two_processes(wheel, tmp_path):
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    done(python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "requirements.lock", wheel, cwd=tmp_path)
    where = done(python, "-c", "import rl_gns, envs; print(rl_gns.__file__); print(envs.__file__)", cwd=tmp_path)
    assert all(line.startswith(str(home)) for line in where.split())
    run_dir = tmp_path / "run"
    flags = ["--config", "cartpole", "--actors", "1", "--total-env-steps", "2048", "--run-dir", run_dir]
    done(python, "-m", "rl_gns", "train", *flags, cwd=tmp_path, TMPDIR="/tmp")
    assert json.loads((run_dir / "result.json").read_text())
    assert done(home / "bin" / "rl-gns", "--help", cwd=tmp_path).startswith("usage")


def test_the_lock_is_plain_and_covers_every_dependency():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lines), (
        "no hashes, URLs, local tags"
    )
    locked = {re.sub(r"[._-]+", "-", line.partition("==")[0]).lower() for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    assert {re.match(r"[A-Za-z0-9_-]+", entry)[0].replace("_", "-").lower() for entry in wanted} <= locked
