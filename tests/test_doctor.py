"""`rl-gns doctor`: each thing that it looks at, right and wrong. Who can reach a dashboard: test_doctor_dashboard; a
real cluster: test_ray_job and test_ray_up."""

import json
import math
from dataclasses import replace

import pytest

from rl_gns import cli
from rl_gns.config import RunConfig
from rl_gns.config_file import find, from_table, load
from rl_gns.distributed.nodes import Cluster, Node
from rl_gns.study import doctor, machine_limits
from rl_gns.study.build import object_store_bytes, rollout_bytes


@pytest.fixture(autouse=True)
def no_ray_settings(monkeypatch, tmp_path):
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_this_machine_is_fit_and_a_missing_token_makes_it_unfit(capsys, monkeypatch):
    assert cli.main(["doctor", "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)["lines"]
    names = [line["what"] for line in lines]
    assert {"python", "ray", "torch", "gymnasium", "ale-py", "numpy", "torch build", "ROMs", "cores"} <= set(names)
    assert {line["state"] for line in lines} <= {"ok", "warning"} and set(lines[0]) == {"what", "state", "found", "do"}
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert cli.main(["doctor"]) == 1
    assert "-> ray get-auth-token --generate" in capsys.readouterr().out


def test_settings_that_no_run_can_have_are_one_line(capsys):
    assert cli.main(["doctor", "--batch.size", "8", "--actors", "2"]) == 2
    assert "--batch.size: 8" in capsys.readouterr().err


def test_a_cluster_that_does_not_answer_is_a_failure(capsys, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert cli.main(["doctor", "--json"]) == 1
    last = json.loads(capsys.readouterr().out)["lines"][-1]
    assert last["what"] == "authentication of the cluster" and "nobody answers" in last["found"]


@pytest.mark.parametrize(
    ("mode", "token", "state", "words"),
    [
        (None, False, "ok", "neither"),
        (None, True, "warning", "clients do not send it"),
        ("token", True, "ok", "the token is in"),
        ("disabled", False, "warning", "run anything"),
        ("token", False, "failure", "no token"),
    ],
)
def test_authentication_here(monkeypatch, tmp_path, mode, token, state, words):
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    path = tmp_path / ".ray" / "auth_token"
    if token:
        path.parent.mkdir()
        path.write_text("secret")
        path.chmod(0o644)
    first, *rest = doctor.authentication()
    assert first.state == state and words in first.found and bool(first.do) == (state != "ok")
    assert [line.state for line in rest] == (["warning"] if token else [])
    if token:
        path.chmod(0o600)
        assert [line.state for line in doctor.authentication()][1:] == ["ok"]
    assert not any("secret" in line.found + line.do for line in doctor.authentication())


def test_the_quota_of_a_cgroup_and_of_those_above_it(tmp_path):
    """Both versions' files, as the kernel writes them."""
    membership = tmp_path / "membership"
    two, one = tmp_path / "two", tmp_path / "one"
    (two / "a" / "b").mkdir(parents=True)
    (two / "a" / "b" / "cpu.max").write_text("max 100000\n")
    membership.write_text("0::/a/b\n")
    assert machine_limits.quota_cores(two, membership) == math.inf
    (two / "a" / "cpu.max").write_text("150000 100000\n")
    assert machine_limits.quota_cores(two, membership) == 1.5
    (one / "cpu,cpuacct" / "c").mkdir(parents=True)
    for name, quota in (("", -1), ("c", 50000)):
        (one / "cpu,cpuacct" / name / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (one / "cpu,cpuacct" / name / "cpu.cfs_period_us").write_text("100000\n")
    membership.write_text("3:memory:/c\n2:cpu,cpuacct:/c\n")
    assert machine_limits.quota_cores(one, membership) == 0.5
    assert machine_limits.quota_cores(one, tmp_path / "none") == math.inf
    assert machine_limits.quota_cores() > 0, "of this machine"


def test_fewer_cores_by_quota_than_are_seen_is_a_warning():
    assert doctor.quota(8, 1.5).state == "warning" and "--actors 1," in doctor.quota(8, 1.5).do
    assert doctor.quota(2, 2.0).state == doctor.quota(2, math.inf).state == "ok"


@pytest.mark.parametrize(
    ("changes", "state", "words"),
    [
        ({"actors": 2}, "ok", "2, for 2 collectors"),
        ({"actors": 32}, "warning", "of 32 only 2 can work, since --batch.size 256 makes 2 collectors of 4 columns"),
        ({"actors": 32}, "warning", "the nearest is 2, or a batch of 4096"),
        ({"actors": 32, "batch": {"size": 4096}}, "ok", "32, for 32 collectors"),
        ({"actors": 32, "control": {"policy": "follow"}, "batch": {"size": 1024}}, "ok", "32, for 128 collectors"),
        ({"actors": 200, "control": {"policy": "follow"}, "batch": {"size": 1024}}, "warning", "max-batch-size 16384"),
    ],
)
def test_rollout_actors_are_held_against_what_they_would_do(changes, state, words):
    (line,) = doctor.rollout_actors(from_table(changes, load(find("pong"))))
    assert line.state == state and words in line.found


def test_shared_memory_is_held_against_what_a_run_wants():
    free = machine_limits.shared_memory_bytes()
    small, large = RunConfig(), replace(RunConfig(), actors=64)
    assert doctor.shared_memory(small, 10**12).state == "ok"
    assert doctor.shared_memory(small, 64 << 20).state in ("ok", "warning")
    assert (
        doctor.shared_memory(large, 64 << 20).state == "warning" and "--shm-size" in doctor.shared_memory(large, 0).do
    )
    assert free is None or free > 0


def test_the_shares_of_several_learners_are_wanted_too():
    """A whole rollout lies in the store on its way to them."""
    one = load(find("pong"))
    two = replace(one, learners=2)
    assert object_store_bytes(two) == object_store_bytes(one) + 2 * rollout_bytes(one)
    free = (object_store_bytes(one) + object_store_bytes(two)) // 2
    assert [doctor.shared_memory(settings, free).state for settings in (one, two)] == ["ok", "warning"]


def test_an_old_or_missing_package_is_a_failure(monkeypatch):
    monkeypatch.setattr(doctor, "_lower_bounds", lambda: {"numpy": "999.1"})
    monkeypatch.setattr(doctor, "PACKAGES", ("numpy", "torch", "no-such-package"))
    states = {line.what: line for line in doctor.versions()}
    assert states["numpy"].state == states["no-such-package"].state == "failure" and "999.1" in states["numpy"].found
    assert states["torch"].state == states["python"].state == "ok"


def test_the_lower_bounds_are_those_of_the_project():
    bounds = doctor._lower_bounds()
    assert {"ray", "torch", "numpy", "gymnasium", "ale-py"} <= set(bounds)
    assert doctor._numbers("2.13.0+cpu") > doctor._numbers("2.6") and doctor._numbers("0.12.1") < (1,)


def test_a_game_without_its_rom_is_a_failure(monkeypatch):
    monkeypatch.setattr(doctor, "GAMES", (*doctor.GAMES, "Pong2"))
    (line,) = doctor.roms()
    assert line.state == "failure" and line.found == "missing: Pong2"


HERE = Node("here", {"python": "3.11.7"}, {"rl_gns": ("/a/rl_gns", "12"), "envs": ("/a/envs", "34")}, 8080, True)


@pytest.mark.parametrize(
    ("found", "states", "words"),
    [
        (Cluster("h:1", True, "127.0.0.1:8265", HERE, (HERE,)), ["ok", "ok"], "rl_gns from /a/rl_gns (12)"),
        (Cluster("h:1", False, "10.0.0.1:8265", HERE, (HERE,)), ["warning", "failure", "ok"], ""),
        (Cluster("h:1", True, "10.0.0.1:8265", HERE, ()), ["ok", "warning"], "10.0.0.1:8265"),
        (
            Cluster("h:1", True, "", HERE, (replace(HERE, imports={**HERE.imports, "envs": ("/b/envs", "99")}),)),
            ["ok", "failure"],
            "envs from /b/envs (99)",
        ),
        (
            Cluster("h:1", True, "", HERE, (replace(HERE, imports={**HERE.imports, "envs": ("", "")}),)),
            ["ok", "failure"],
            "no envs",
        ),
        (Cluster("h:1", True, "", HERE, (Node("10.0.0.2", error="no answer"),)), ["ok", "failure"], "no answer"),
        (Cluster("h:1", True, error="token?"), ["failure"], "wants a token; token?"),
        (Cluster("h:1", None, error="gone"), ["failure"], "nobody answers"),
    ],
)
def test_what_is_said_of_a_cluster(found, states, words):
    lines = [line for line in doctor.cluster(found) if line.what != "metrics port"]
    assert [line.state for line in lines] == states and words in lines[-1].found
    assert all(bool(line.do) == (line.state != "ok") for line in lines)


@pytest.mark.parametrize(
    ("nodes", "state", "words"),
    [
        ([("10.0.0.1", 8080, True), ("10.0.0.2", 8080, True)], "ok", "2 nodes show gauges on port 8080"),
        ([("127.0.0.1", 43211, True)], "ok", "port 43211"),
        ([("10.0.0.1", 8080, True), ("10.0.0.2", 8080, False)], "warning", "no gauges from 10.0.0.2:8080"),
        ([("10.0.0.1", -1, False)], "warning", "no gauges from 10.0.0.1:-1"),
        ([("10.0.0.1", 43211, True), ("10.0.0.2", 51234, True)], "warning", "on port 43211, 51234"),
        ([("8.8.8.8", 8080, True)], "warning", "without a token, and 8.8.8.8 is public"),
    ],
)
def test_the_metrics_port_of_every_node(nodes, state, words):
    found = tuple(replace(HERE, address=where, metrics_port=port, metrics_answer=heard) for where, port, heard in nodes)
    (line,) = [line for line in doctor.cluster(Cluster("h:1", True, "", HERE, found)) if line.what == "metrics port"]
    assert line.state == state and words in line.found and bool(line.do) == (state != "ok")
    silent = Cluster("h:1", True, "", HERE, (Node("10.0.0.2", error="gone"),))
    assert not [line for line in doctor.cluster(silent) if line.what == "metrics port"]
