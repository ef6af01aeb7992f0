"""cluster/onprem.yaml by its own commands: `ray up` and `ray submit` over a real sshd, on a machine of its own.

The client has a home with the token and the ssh key. The node has another, empty but for an environment that borrows
this one's packages (there is no network to install from). Everything else comes by rsync.
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

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parent.parent
TOKEN = "t" * 64

SCRIPT = """
set -ex
ray up -y --no-config-cache {config} >{out}/up 2>&1
ray submit --no-config-cache {config} scripts/submit.py -- {train} >{out}/train 2>&1
ray submit --no-config-cache {config} scripts/submit.py -- {train} >{out}/again 2>&1
ray submit --no-config-cache {config} scripts/submit.py -- doctor --json >{out}/doctor 2>&1
! ray submit --no-config-cache {config} scripts/submit.py -- train --config pogn >{out}/wrong 2>&1
cat /proc/net/tcp /proc/net/tcp6 >{out}/listening
"""
TRAIN = "train --config cartpole --actors 1 --total-env-steps 3000 --seed 5 --json"


@pytest.fixture(scope="module")
def machine():
    """The words of every step, and the node's home."""
    if reason := namespace.why_not():
        pytest.skip(f"no machine of its own for sshd: {reason}")
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t-") as path:  # short: it holds unix sockets
        base = Path(path)
        node, client, out = base / "node", base / "client", base / "out"
        for home in (node / "rl-gns", client / ".ray", out):
            home.mkdir(parents=True)
        namespace.prepare(base, node)
        borrow_environment(node / "rl-gns")
        for name in ("requirements.lock", "pyproject.toml"):
            shutil.copy(ROOT / name, node / "rl-gns")
        stamp_environment(node / "rl-gns")
        (client / ".ray" / "auth_token").write_text(TOKEN)
        config = base / "onprem.yaml"
        config.write_text(yaml.safe_dump(settings(base)))
        env = {
            "HOME": str(client),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "LC_ALL": "C.UTF-8",
        }
        done = namespace.inside(base, SCRIPT.format(config=config, out=out, train=TRAIN), ROOT, env, timeout=540)
        said = {path.name: path.read_text() for path in out.iterdir()}
        assert done.returncode == 0, "\n".join([done.stdout, *(text[-3000:] for text in said.values())])
        yield said, node, base


def settings(base: Path) -> dict:
    """The shipped file with the addresses and the user of this machine, and a small object store."""
    config = yaml.safe_load((ROOT / "cluster" / "onprem.yaml").read_text())
    config["provider"] |= {"head_ip": "127.0.0.1", "worker_ips": []}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(base / "user_key")}
    *before, start = config["head_start_ray_commands"]
    small = start.replace("--object-store-memory=2000000000", "--object-store-memory=100000000 --num-cpus=2")
    assert small != start
    config["head_start_ray_commands"] = [*before, small]
    return config


def last_json(said: str) -> dict:
    """What --json printed: on the terminal that ssh makes, other words may share its line."""
    found = re.findall(r"\{\".*\}", said)
    assert found, said
    return json.loads(found[-1])


def test_a_run_is_trained_on_the_cluster_and_the_same_command_finds_it_again(machine):
    said, node, _ = machine
    result = last_json(said["train"])
    (run,) = (node / "rl-gns-runs").iterdir()
    assert run.name.startswith("cartpole-") and RunDir(run).read_result()["env_steps"] == result["env_steps"]
    assert last_json(said["again"]) == result
    assert "found the unfinished" not in said["again"] and len(list((node / "rl-gns-runs").iterdir())) == 1


def test_a_preset_that_does_not_exist_is_one_line_with_the_nearest_name(machine):
    assert "pong" in machine[0]["wrong"] and "Traceback" not in machine[0]["wrong"]


def test_the_doctor_finds_the_cluster_in_order(machine):
    said, node, _ = machine
    report = last_json(said["doctor"])
    lines = {line["what"]: line for line in report["lines"]}
    assert not [line for line in report["lines"] if line["state"] == "failure"]
    assert (
        lines["authentication of the cluster"]["state"] == "ok"
        and "token" in lines["authentication of the cluster"]["found"]
    )
    (nodes,) = [line for name, line in lines.items() if name.startswith("node ")]
    assert str(node / "rl-gns" / "rl_gns") in nodes["found"]


def test_the_token_is_for_its_owner_alone_and_in_one_place(machine):
    _, node, base = machine
    assert oct((node / ".ray" / "auth_token").stat().st_mode)[-3:] == "600"
    holders = [
        path
        for path in base.rglob("*")
        if path.is_file() and not path.is_symlink() and TOKEN.encode() in path.read_bytes()
    ]
    assert {path.name for path in holders} == {"auth_token"} and len(holders) == 2


def test_the_dashboard_listens_on_loopback_alone(machine):
    rows = [row.split() for row in machine[0]["listening"].splitlines()]
    listening = {tuple(row[1].split(":")) for row in rows if len(row) > 3 and row[3] == "0A"}
    dashboard = [address for address, port in listening if int(port, 16) == 8265]
    assert dashboard == ["0100007F"]
