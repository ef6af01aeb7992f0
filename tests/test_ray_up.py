"""cluster/onprem.yaml by its own commands: `ray up` and `ray submit` over a real sshd, on two machines of their own.

The client has a home with the token and the ssh key. Head and worker have others, empty but for an environment that
borrows this one's packages (there is no network to install from). Everything else comes by rsync: to the head from
the client, to the worker from the head, whose autoscaler sets it up.
"""

import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import namespace
import pytest
import yaml
from borrowed import borrow_environment, stamp_environment

from rl_gns.rundir import RunDir

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parent.parent
TOKEN = "t" * 64

SCRIPT = """
set -ex
ray up -y --no-config-cache {config} >{out}/up 2>&1
timeout 120 bash -c "until pgrep -f '[r]aylet.*{worker}'; do sleep 0.3; done" >/dev/null || true
cp /tmp/ray/session_latest/logs/monitor* {out}
pgrep -f '[r]aylet.*{worker}' >/dev/null
ray submit --no-config-cache {config} scripts/submit.py -- {train} >{out}/train 2>&1
ray submit --no-config-cache {config} scripts/submit.py -- doctor --json >{out}/doctor 2>&1
cat /proc/net/tcp /proc/net/tcp6 >{out}/listening
"""
TRAIN = "train --config cartpole --actors 2 --total-env-steps 3000 --learner.threads 0 --seed 5 --json"
CPUS = {"head": 2, "worker": 1}


@pytest.fixture(scope="module")
def cluster():
    """The words of every step, the homes of the nodes, and what they lie in."""
    if reason := namespace.why_not():
        pytest.skip(f"no machines of their own for sshd: {reason}")
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t-") as path:  # short: it holds unix sockets
        base = Path(path)
        homes = {name: base / name for name in ("head", "worker")}
        client, out = base / "client", base / "out"
        for made in (client / ".ray", out, *homes.values()):
            made.mkdir(parents=True)
        namespace.prepare(base, homes)
        for home in homes.values():
            furnish(home / "rl-gns")
        (client / ".ray" / "auth_token").write_text(TOKEN)
        config = base / "onprem.yaml"
        config.write_text(yaml.safe_dump(settings(base)))
        env = {
            "HOME": str(client),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "LC_ALL": "C.UTF-8",
        }
        script = SCRIPT.format(config=config, out=out, train=TRAIN, worker=namespace.WORKER)
        done = namespace.inside(base, script, ROOT, env, timeout=840)
        said = {path.name: path.read_text() for path in out.iterdir()}
        assert done.returncode == 0, "\n".join([done.stdout, *(text[-3000:] for text in said.values())])
        yield said, homes, base


def furnish(checkout: Path) -> None:
    """An environment at its place, in which scripts/bootstrap finds nothing to do."""
    checkout.mkdir()
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, checkout)
    borrow_environment(checkout)
    stamp_environment(checkout)


def settings(base: Path) -> dict:
    """The shipped file with the addresses and the user of these machines, their `CPUS`, and small object stores."""
    config = yaml.safe_load((ROOT / "cluster" / "onprem.yaml").read_text())
    config["provider"] |= {"head_ip": namespace.HEAD, "worker_ips": [namespace.WORKER]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(base / "user_key")}
    for name, cpus in CPUS.items():
        *before, start = config[key := f"{name}_start_ray_commands"]
        small = re.sub(r"--object-store-memory=\d+", f"--object-store-memory=80000000 --num-cpus={cpus}", start)
        assert small != start
        config[key] = [*before, small]
    return config


def last_json(said: str) -> dict:
    """What --json printed: on the terminal that ssh makes, other words may share its line."""
    found = re.findall(r"\{\".*\}", said)
    assert found, said
    return json.loads(found[-1])


def test_a_run_is_trained_and_lies_where_the_next_submission_finds_it(cluster):
    said, homes, _ = cluster
    result = last_json(said["train"])
    (run,) = (homes["head"] / "rl-gns-runs").iterdir()
    assert run.name.startswith("cartpole-") and RunDir(run).read_result() == result


def test_both_nodes_collected_and_nothing_went_wrong(cluster):
    """Ray notes in a worker's log which actor it became."""
    said, _, base = cluster
    result = last_json(said["train"])
    assert (result["faults"], result["replaced_actors"]) == ([], 0)
    for name in CPUS:
        logs = (base / f"{name}.hidden" / "tmp" / "ray").glob("session_2*/logs/worker-*.out")
        assert sum(":actor_name:CollectorHost" in log.read_text() for log in logs) == 1, name


def test_the_learner_has_all_cpus_of_its_node(cluster):
    """Though `ray submit` exports OMP_NUM_THREADS=1."""
    (run,) = (cluster[1]["head"] / "rl-gns-runs").iterdir()
    assert json.loads((run / "provenance.json").read_text())[0]["resolved"]["threads"] == CPUS["head"]


def test_the_doctor_finds_the_cluster_in_order(cluster):
    said, homes, _ = cluster
    lines = {line["what"]: line for line in last_json(said["doctor"])["lines"]}
    assert not [line for line in lines.values() if line["state"] == "failure"]
    of_cluster = lines["authentication of the cluster"]
    assert of_cluster["state"] == "ok" and "wants a token" in of_cluster["found"]
    assert lines["metrics port"]["found"] == "2 nodes show gauges on port 8080"
    for name, address in (("head", namespace.HEAD), ("worker", namespace.WORKER)):
        found = lines[f"node {address}"]["found"]
        assert all(str(homes[name] / "rl-gns" / package) in found for package in ("rl_gns", "envs"))


def test_the_token_is_for_its_owner_alone_and_in_no_other_file(cluster):
    _, homes, base = cluster
    for home in homes.values():
        assert oct((home / ".ray" / "auth_token").stat().st_mode)[-3:] == "600"
    files = [path for path in base.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path.name for path in files if TOKEN.encode() in path.read_bytes()] == ["auth_token"] * 3


def test_the_dashboard_listens_on_loopback_alone(cluster):
    rows = [row.split() for row in cluster[0]["listening"].splitlines()]
    listening = {tuple(row[1].split(":")) for row in rows if len(row) > 3 and row[3] == "0A"}
    dashboard = [address for address, port in listening if int(port, 16) == 8265]
    assert dashboard == ["0100007F"]
