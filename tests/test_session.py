"""A real Ray session: where it listens, what it leaves behind, whom it joins, what of an error arrives."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rl_gns.distributed.session import forget_rays_threads

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

PRIVATE = """
import json, os, subprocess, sys, tempfile
from pathlib import Path
{before}
from rl_gns.distributed.session import reason, start

def descendants(root):
    parent = {{}}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            pass
    found = {{root}}
    while more := {{pid for pid, up in parent.items() if up in found}} - found:
        found |= more
    return found

def listening(pids):
    inodes = set()
    for pid in pids:
        try:
            links = [os.readlink(fd) for fd in Path(f"/proc/{{pid}}/fd").iterdir()]
        except OSError:
            continue
        inodes |= {{link[8:-1] for link in links if link.startswith("socket:[")}}
    rows = [row.split() for table in ("tcp", "tcp6") for row in Path(f"/proc/net/{{table}}").read_text().splitlines()]
    return [row[1].rpartition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes]

stale = Path(tempfile.gettempdir(), "ray", "ray_current_cluster")  # what a stranger's `ray start` leaves
stale.parent.mkdir()
stale.write_text("127.0.0.1:1")
env = dict(os.environ)
with start(1, 0) as session:
    import ray

    def fails():
        raise ValueError("the real reason\\nand more")

    class Dies:
        def __init__(self):
            raise KeyError("no such game")

        def ping(self):
            pass

    said = []
    for call in (ray.remote(fails).remote, lambda: ray.remote(Dies).remote().ping.remote()):
        try:
            ray.get(call())
        except ray.exceptions.RayError as error:
            said.append(reason(error))
    seen = ray.get(ray.remote(lambda: (os.environ.get("CUDA_VISIBLE_DEVICES"), os.getppid())).remote())
    pids = descendants(os.getpid())
    guest = subprocess.run([sys.executable, "-c", {guest!r}], capture_output=True, text=True,
                           env=os.environ | {{"RAY_ADDRESS": session.address}})
    out = dict(
        address=session.address, private=session.private, said=said, seen=seen,
        commands=[path.read_text().strip() for pid in pids if (path := Path(f"/proc/{{pid}}/comm")).exists()],
        listening=listening(pids), guest=guest.stdout + guest.stderr, alive=ray.get(ray.remote(lambda: 7).remote()),
        modes=[oct(path.stat().st_mode)[-3:] for path in Path(tempfile.gettempdir()).glob("gns-*")],
        in_files=[str(path) for path in Path(tempfile.gettempdir()).rglob("*") if path.is_file()
                  and os.environ.get("RAY_AUTH_TOKEN", "?").encode() in path.read_bytes()],
    )
out |= dict(
    left=[pid for pid in pids - {{os.getpid()}} if Path(f"/proc/{{pid}}/cmdline").exists()
          and any(name in Path(f"/proc/{{pid}}/cmdline").read_bytes() for name in (b"raylet", b"gcs_server"))],
    env=[key for key in {{*env, *os.environ}} if env.get(key) != os.environ.get(key)],
    litter=[path.name for path in Path(tempfile.gettempdir()).iterdir()],
    ray_home=[str(path) for path in Path.home().rglob("*token*")],
)
print(json.dumps(out))
"""

GUEST = """
from rl_gns.distributed.session import start
with start(1, 0) as session:
    import ray
    print(session.address, session.private, ray.get(ray.remote(lambda: 6 * 7).remote()))
"""


def run(code: str, home: Path, tmp: str, **env: str) -> subprocess.CompletedProcess:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    clean |= {"HOME": str(home), "TMPDIR": tmp, **env}
    return subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, timeout=200)


@pytest.mark.parametrize("before", ["", "import ray"], ids=["ray not yet imported", "ray imported before"])
def test_a_private_session_is_private_and_leaves_nothing(tmp_path, short_tmp, before):
    result = run(PRIVATE.format(before=before, guest=GUEST), tmp_path, short_tmp)
    assert result.returncode == 0, result.stderr
    out = json.loads(result.stdout.splitlines()[-1])
    assert out["private"] and out["address"].startswith("127.0.0.1:")
    assert {"gcs_server", "raylet"} <= set(out["commands"])
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert len(out["listening"]) >= 3 and set(out["listening"]) <= loopback
    assert out["said"] == ["ValueError: the real reason\nand more", "KeyError: 'no such game'"]
    assert out["seen"][0] in (None, "")
    assert out["guest"].split() == [out["address"], "False", "42"]
    assert out["alive"] == 7, "the guest took the session down"
    assert out["modes"] == ["700"]
    assert out["in_files"] == out["ray_home"] == [], "a token lies in a file"
    assert out["left"] == []
    assert set(out["env"]) <= {"PYTHONBREAKPOINT", "RAY_CLIENT_MODE"}, "more than what ray itself leaves"
    assert out["litter"] == ["ray"], "only the stranger's file that this test put there"


def test_a_wrong_token_is_named(tmp_path, short_tmp):
    code = f"""
import os, subprocess, sys
from rl_gns.distributed.session import start
with start(1, 0) as session:
    stranger = os.environ | {{"RAY_ADDRESS": session.address, "RAY_AUTH_TOKEN": "x" * 64}}
    print(subprocess.run([sys.executable, "-c", {GUEST!r}], env=stranger, capture_output=True, text=True).stderr)
"""
    said = run(code, tmp_path, short_tmp).stdout
    assert "ConnectionError" in said and "RAY_AUTH_MODE is token here" in said


def test_the_interfaces_that_the_user_names_reach_every_process_of_a_cluster(tmp_path, short_tmp):
    """One is exported where the driver starts, the other is the job's own, which Ray lets nobody give twice."""
    guest = """
from rl_gns.distributed.session import INTERFACES, start
with start(1, 0):
    import os, ray
    print(ray.get(ray.remote(lambda names: [os.environ.get(name) for name in names]).remote(INTERFACES)))
"""
    job = json.dumps({"runtime_env": {"env_vars": {"NCCL_SOCKET_IFNAME": "wire1"}}, "metadata": {}})
    named = {"GLOO_SOCKET_IFNAME": "wire0", "NCCL_SOCKET_IFNAME": "wire1", "RAY_JOB_CONFIG_JSON_ENV_VAR": job}
    code = f"""
import os, subprocess, sys
from rl_gns.distributed.session import start
with start(1, 0) as session:
    env = os.environ | {named!r} | {{"RAY_ADDRESS": session.address}}
    print(subprocess.run([sys.executable, "-c", {guest!r}], env=env, check=True, capture_output=True, text=True).stdout)
"""
    done = run(code, tmp_path, short_tmp)
    assert "['wire0', 'wire1']" in done.stdout, done.stderr


def test_a_long_tmpdir_is_replaced_and_said(tmp_path, monkeypatch, caplog):
    from rl_gns.distributed import session

    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("x" * 90)))
    assert session._short_base() == "/tmp"
    assert "too long" in caplog.text


def test_the_user_decides_on_authentication(tmp_path, monkeypatch):
    from rl_gns.distributed.session import _settings

    for key in [key for key in os.environ if key.startswith("RAY_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(_settings(private=True)["RAY_AUTH_TOKEN"]) == 64
    assert _settings(private=True)["RAY_AUTH_TOKEN"] != _settings(private=True)["RAY_AUTH_TOKEN"]
    assert _settings(private=False)["RAY_AUTH_MODE"] == "disabled"
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("of another cluster")
    assert _settings(private=False)["RAY_AUTH_MODE"] == "token"
    assert "RAY_AUTH_TOKEN" not in _settings(private=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "somewhere")
    assert "RAY_AUTH_TOKEN" not in _settings(private=True)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} & set(_settings(private=True))


@pytest.fixture
def short_tmp():
    """A fresh TMPDIR that is short enough for Ray's sockets: pytest's own is not."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t-") as path:
        yield path


@pytest.mark.parametrize(
    ("runtime_env", "threads", "left"),
    [
        ({"working_dir": "gcs://x.zip", "env_vars": {"A": "1"}}, "1", None),
        ({}, "1", None),
        ({"env_vars": {"OMP_NUM_THREADS": "1"}}, "1", "1"),
        ({}, "4", "4"),
        (None, "1", "1"),
    ],
)
def test_a_jobs_one_thread_is_rays_unless_its_runtime_environment_says_so(monkeypatch, runtime_env, threads, left):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    if runtime_env is not None:
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": runtime_env, "metadata": {}}))
    forget_rays_threads()
    assert os.environ.get("OMP_NUM_THREADS") == left
