"""`ray job submit --working-dir . -- python -m rl_gns ...` to a real `ray start --head` behind a token.

The head listens on loopback and ports of its own, its files lie in a directory of its own, and what is stopped in the
end is that process and its children alone: `ray stop` would stop every Ray of the machine.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from rl_gns.rundir import RunDir

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parent.parent
TOKEN = "j" * 64
TRAIN = "train --config cartpole --actors 1 --total-env-steps 80000 --checkpoint.every-env-steps 3000 --seed 5 --json"


@dataclass(frozen=True)
class Head:
    url: str
    env: dict[str, str]
    runs: Path

    def submit(self, words: str, *options: str) -> subprocess.CompletedProcess:
        """The documented command, as a user with the token in its place gives it, from the checkout."""
        command = [
            "ray",
            "job",
            "submit",
            *options,
            "--working-dir",
            ".",
            "--",
            "python",
            "-m",
            "rl_gns",
            *words.split(),
        ]
        return subprocess.run(command, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=300)

    def ask(self, path: str, token: str | None = TOKEN, method: str = "GET") -> str:
        request = urllib.request.Request(f"{self.url}{path}", method=method)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=30) as answer:
            return answer.read().decode()


@pytest.fixture(scope="module")
def head():
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t-", ignore_cleanup_errors=True) as path:
        base = Path(path)
        (base / "home" / ".ray").mkdir(parents=True)
        (base / "home" / ".ray" / "auth_token").write_text(TOKEN)
        (base / "home" / ".ray" / "auth_token").chmod(0o600)
        (base / "tmp").mkdir()
        port, client_port = free_ports(2)
        env = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHON", "RL_GNS"))}
        env |= {
            "HOME": str(base / "home"),
            "TMPDIR": str(base / "tmp"),
            "RL_GNS_CHECKOUT": str(ROOT),
            "RL_GNS_RUNS": str(base / "runs"),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback, for all its name
            "OMP_NUM_THREADS": "1",  # as `ray up` has it
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{port}",
        }
        env = logged_in(env)
        command = (
            "ray start --head --block --port=0 --num-cpus=2 --object-store-memory=80000000 --dashboard-host=127.0.0.1"
        )
        command += f" --dashboard-port={port} --ray-client-server-port={client_port} --dashboard-agent-listen-port=0"
        command += f" --min-worker-port=0 --max-worker-port=0 --temp-dir={base}/tmp/r"
        with open(base / "said", "w") as said:
            started = subprocess.Popen(command.split(), env=env, stdout=said, stderr=said, start_new_session=True)
        try:
            found = Head(f"http://127.0.0.1:{port}", env, base / "runs")
            wait_for(lambda: answers(found), started, base / "said")
            yield found
        finally:
            stop(started)


def logged_in(env: dict[str, str]) -> dict[str, str]:
    """With what cluster/profile.sh adds, as on every node and client."""
    command = ["bash", "-c", ". cluster/profile.sh; env -0"]
    said = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in said.split("\0") if line)


def free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def answers(head: Head) -> bool:
    with contextlib.suppress(OSError):
        return bool(head.ask("/api/jobs/"))
    return False


def wait_for(what, process, said, seconds=120):
    deadline = time.monotonic() + seconds
    while not what():
        assert process.poll() is None and time.monotonic() < deadline, Path(said).read_text()
        time.sleep(0.2)


def stop(process: subprocess.Popen) -> None:
    """SIGTERM to `ray start --block`, which ends what it started; SIGKILL to what is left of its session."""
    with contextlib.suppress(subprocess.TimeoutExpired, ProcessLookupError):
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ProcessLookupError):
            session = int(stat.read_text().rpartition(")")[2].split()[3])
            if session == process.pid:
                os.kill(int(stat.parent.name), signal.SIGKILL)
    process.wait(30)


def last_json(said: str) -> dict:
    found = re.findall(r"^\{\".*\}$", said, re.M)
    assert found, said
    return json.loads(found[-1])


def test_without_the_token_nothing_is_told(head):
    for token in (None, "x" * 64):
        with pytest.raises(urllib.error.HTTPError) as refused:
            head.ask("/api/jobs/", token)
        assert refused.value.code in (401, 403)


def test_the_doctor_as_a_job_finds_the_upload_on_the_node(head):
    done = head.submit("doctor --json")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lines = {line["what"]: line for line in last_json(done.stdout)["lines"]}
    assert not [line for line in lines.values() if line["state"] == "failure"]
    of_cluster = lines["authentication of the cluster"]
    assert of_cluster["state"] == "ok" and "wants a token" in of_cluster["found"]
    assert lines["token file"]["state"] == lines["dashboard"]["state"] == "ok"
    assert lines["metrics port"]["state"] == "ok"
    (node,) = [line["found"] for name, line in lines.items() if name.startswith("node ")]
    assert "working_dir_files" in node and "rl_gns from" in node and "envs from" in node


def test_the_learner_has_all_cpus_of_its_node(head):
    """Ray's own OMP_NUM_THREADS=1 is nobody's wish."""
    path = head.runs.parent / "threads"
    done = head.submit(f"train --config cartpole --actors 1 --total-env-steps 1 --learner.threads 0 --run-dir {path}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert json.loads((path / "provenance.json").read_text())[0]["resolved"]["threads"] == 2


def test_a_job_that_is_stopped_has_the_time_to_end_in_order(head):
    """Its first rollout takes a minute, so the driver gives it up after `trainer_actor.END_SECONDS`, and Ray waits."""
    path = head.runs.parent / "long"
    words = f"train --config cartpole --actors 1 --batch.size 65536 --run-dir {path}"
    assert head.submit(words, "--no-wait", "--submission-id", "long").returncode == 0
    deadline = time.monotonic() + 120
    while not (path / "config.toml").exists():
        assert time.monotonic() < deadline, head.ask("/api/jobs/long/logs")
        time.sleep(0.1)
    head.ask("/api/jobs/long/stop", method="POST")
    while json.loads(head.ask("/api/jobs/long"))["status"] == "RUNNING":
        assert time.monotonic() < deadline + 60
        time.sleep(0.2)
    assert "terminated; run the same command again" in head.ask("/api/jobs/long/logs")
    assert json.loads(head.ask("/api/jobs/long"))["status"] == "STOPPED"


def test_a_job_that_was_stopped_goes_on_when_it_is_submitted_again(head):
    """The run lies in RL_GNS_RUNS, not in the job's own directory, which Ray throws away."""
    sent = head.submit(TRAIN, "--no-wait", "--submission-id", "first")
    assert sent.returncode == 0, sent.stdout[-3000:] + sent.stderr[-3000:]
    job = lambda: json.loads(head.ask("/api/jobs/first"))  # noqa: E731
    deadline = time.monotonic() + 120
    while not list(head.runs.glob("*/checkpoints/*")):
        assert time.monotonic() < deadline and job()["status"] in ("PENDING", "RUNNING"), head.ask(
            "/api/jobs/first/logs"
        )
        time.sleep(0.1)
    head.ask("/api/jobs/first/stop", method="POST")
    while job()["status"] not in ("STOPPED", "FAILED", "SUCCEEDED"):
        assert time.monotonic() < deadline + 60
        time.sleep(0.2)
    assert job()["status"] == "STOPPED"
    (run,) = head.runs.iterdir()
    assert not (run / "result.json").exists()
    again = head.submit(TRAIN)
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
    assert [path.name for path in head.runs.iterdir()] == [run.name]
    assert RunDir(run).read_result() == last_json(again.stdout)
    assert len(json.loads((run / "provenance.json").read_text())) == 2, "a second sitting of the same run"
    updates = [record["update"] for record in RunDir(run).records()]
    assert updates == list(range(len(updates)))
