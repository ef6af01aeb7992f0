"""cluster/: held against Ray's own schema and defaults, against each other, and against the fields of KubeRay's CRD."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from rl_gns.config_file import find, from_table, load
from rl_gns.study.build import object_store_bytes

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = ROOT / "cluster"
FILES = ("aws", "gcp", "onprem")

# Fields of ray.io/v1 that the RayJob may use, from KubeRay's API reference (v1.6), by where they lie.
CRD = {
    "spec": """activeDeadlineSeconds backoffLimit rayClusterSpec submitterPodTemplate metadata clusterSelector
        submitterConfig managedBy deletionStrategy entrypoint runtimeEnvYAML jobId submissionMode entrypointResources
        entrypointNumCpus entrypointNumGpus ttlSecondsAfterFinished shutdownAfterJobFinishes suspend""",
    "rayClusterSpec": """authOptions suspend managedBy autoscalerOptions headServiceAnnotations gcsFaultToleranceOptions
        enableInTreeAutoscaling headGroupSpec rayVersion workerGroupSpecs""",
    "headGroupSpec": "template headService enableIngress rayStartParams serviceType",
    "workerGroupSpecs": """suspend groupName replicas minReplicas maxReplicas idleTimeoutSeconds rayStartParams template
        scaleStrategy numOfHosts""",
}


def fields(where):
    return set(CRD[where].split())


@pytest.fixture(params=FILES)
def config(request):
    return yaml.safe_load((CLUSTER / f"{request.param}.yaml").read_text())


def prepared(config):
    """As `ray up` has it: with Ray's defaults, and valid."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(config)
    validate_config(config)
    return config


def test_ray_takes_the_file(config):
    whole = prepared(config)
    assert whole["auth"]["ssh_user"] and whole["max_workers"] >= 2
    for commands in (whole["head_setup_commands"], whole["worker_setup_commands"]):
        assert commands[0] == "~/rl-gns/cluster/node.sh"
        assert not any("pip install -U" in command for command in commands), "Ray's default: a nightly build of its own"


def test_a_wrong_key_is_refused(config):
    import jsonschema

    with pytest.raises(jsonschema.ValidationError, match="filemounts"):
        prepared(config | {"filemounts": {}})


def test_every_node_starts_behind_a_token_and_shows_its_dashboard_to_itself_alone(config):
    head, worker = config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in head
    assert all(
        flag in command
        for command in (head, worker)
        for flag in ("--object-store-memory=", "--node-manager-port=8077", "--metrics-export-port=8080")
    )
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token", "the user's own, on every node"
    profile = subprocess.run(
        ["bash", "-c", ". cluster/profile.sh; env"], cwd=ROOT, env={"HOME": "/h", "PATH": "/bin"}, capture_output=True
    ).stdout.decode()
    for line in (
        "RAY_AUTH_MODE=token",
        "RAY_AUTH_TOKEN_PATH=/h/.ray/auth_token",
        "RL_GNS_RUNS=/h/rl-gns-runs",
        "PATH=/h/rl-gns/.venv/bin:/bin",
        "RAY_JOB_STOP_WAIT_TIME_S=15",
    ):
        assert line in profile.splitlines()
    assert "RAY_JOB_STOP_WAIT_TIME_S=15" in (CLUSTER / "Dockerfile").read_text()


def test_what_is_copied_is_there_and_is_all_that_an_install_reads(config):
    mounts = {remote.removeprefix("~/rl-gns/"): local for remote, local in config["file_mounts"].items()}
    mounts.pop("~/.ray/auth_token")
    assert all(remote == local and (ROOT / local).exists() for remote, local in mounts.items())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml", "requirements.lock"}
    wanted |= set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]) | {"scripts", "cluster"}
    assert set(mounts) == wanted
    all_but, *image, compiled = (ROOT / ".dockerignore").read_text().splitlines()[1:]
    assert (all_but, {line.removeprefix("!") for line in image}, compiled) == ("*", wanted, "**/__pycache__")


def test_the_files_differ_only_in_their_machines():
    configs = {name: yaml.safe_load((CLUSTER / f"{name}.yaml").read_text()) for name in FILES}
    head, worker = "head_start_ray_commands", "worker_start_ray_commands"
    first_autoscaler = "RAY_enable_autoscaler_v2=0 "
    *before, start = configs["onprem"][head]
    assert start.count(first_autoscaler) == 1
    configs["onprem"][head] = [*before, start.replace(first_autoscaler, "")]
    for key in ("file_mounts", "setup_commands", head, worker, "rsync_exclude"):
        assert configs["aws"][key] == configs["gcp"][key] == configs["onprem"][key], key
    for name, spot in (("aws", "InstanceMarketOptions"), ("gcp", "scheduling")):
        kinds = configs[name]["available_node_types"]
        assert configs[name]["head_node_type"] == "learner" and kinds["rollout"]["min_workers"] > 0
        assert "spot" in str(kinds["rollout"]["node_config"][spot]).lower()
        assert "spot" not in str(kinds["learner"]).lower(), "the learner's node keeps the run directories"


def test_a_node_whose_setup_was_cut_short_still_gets_the_cpu_build_of_torch(tmp_path):
    """An environment with pip and nothing else, and a proxy that does not answer: pip's log says where it looked."""
    if any("0x10de" in path.read_text() for path in Path("/sys/bus/pci/devices").glob("*/vendor")):
        pytest.skip("a GPU is here: its node takes torch from PyPI")
    for name in ("requirements.lock", "pyproject.toml", "cluster/node.sh", "scripts/bootstrap"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / ".venv"], check=True)
    quiet = {"PIP_CONFIG_FILE": "/dev/null", "PIP_PROXY": "http://127.0.0.1:1", "PIP_RETRIES": "0"}
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PIP_LOG": str(tmp_path / "log"), **quiet}
    assert subprocess.run([tmp_path / "cluster" / "node.sh"], env=env, capture_output=True).returncode != 0
    looked = re.findall(r"Looking in indexes: (.*)", (tmp_path / "log").read_text())
    assert looked == ["https://pypi.org/simple, https://download.pytorch.org/whl/cpu"]


def test_the_object_stores_hold_the_actors_of_every_cpu():
    """Of `pong`, on as many nodes as there may be."""

    def wanted(actors):
        table = {"actors": actors, "batch": {"size": 32_768}}
        return object_store_bytes(from_table(table, load(find("pong"))))

    gcp = yaml.safe_load((CLUSTER / "gcp.yaml").read_text())
    kinds = {name: kind["resources"]["CPU"] for name, kind in gcp["available_node_types"].items()}
    head, worker = (
        int(re.search(r"--object-store-memory=(\d+)", gcp[f"{name}_start_ray_commands"][-1])[1])
        for name in ("head", "worker")
    )
    assert wanted(kinds["learner"] + gcp["max_workers"] * kinds["rollout"]) <= head
    assert wanted(kinds["rollout"]) <= worker
    cluster = next(yaml.safe_load_all((CLUSTER / "rayjob.yaml").read_text()))["spec"]["rayClusterSpec"]
    (workers,), head = cluster["workerGroupSpecs"], cluster["headGroupSpec"]
    cpus, stores = [], []
    for group in (head, workers):
        cpus.append(int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]))
        stores.append(int(group["rayStartParams"]["object-store-memory"]))
    assert wanted(cpus[0] + workers["maxReplicas"] * cpus[1]) <= stores[0] and wanted(cpus[1]) <= stores[1]


def test_the_ray_job_has_the_fields_of_the_crd():
    job, policy = yaml.safe_load_all((CLUSTER / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"], set(job)) == (
        "ray.io/v1",
        "RayJob",
        {"apiVersion", "kind", "metadata", "spec"},
    )
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert set(spec) <= fields("spec") and set(cluster) <= fields("rayClusterSpec")
    assert set(head) <= fields("headGroupSpec") and all(set(group) <= fields("workerGroupSpecs") for group in workers)
    assert (
        cluster["authOptions"] == {"mode": "token"}
        and cluster["rayVersion"] in (ROOT / "requirements.lock").read_text()
    )
    assert spec["submissionMode"] in ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")
    assert head["template"]["spec"]["restartPolicy"] == "Never", "SidecarMode"
    for group in (head, *workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        assert group["rayStartParams"]["metrics-export-port"] == "8080"
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert group["template"]["metadata"]["labels"] == policy["spec"]["podSelector"]["matchLabels"]
        shm = next(volume for volume in pod["volumes"] if volume["name"] == "shm")["emptyDir"]["sizeLimit"]
        assert int(group["rayStartParams"]["object-store-memory"]) < int(shm.removesuffix("Gi")) << 30
    assert "nvidia.com/gpu" in head["template"]["spec"]["containers"][0]["resources"]["limits"]


def test_the_ray_jobs_command_parses():
    from rl_gns.flags import parse
    from rl_gns.options import TrainOptions
    from rl_gns.study.build import idle_actors
    from rl_gns.verbs.places import preset

    command = next(yaml.safe_load_all((CLUSTER / "rayjob.yaml").read_text()))["spec"]["entrypoint"].split()
    assert command[:4] == ["python", "-m", "rl_gns", "train"]
    options = parse(TrainOptions, TrainOptions(run=preset(command[4:])), command[4:], "")
    assert options.run.actors == 32 and idle_actors(options.run) is None
    assert command[command.index("--run-dir") + 1].startswith("/")


def test_no_token_is_in_a_file_of_ours():
    for path in [*CLUSTER.iterdir(), ROOT / "scripts" / "submit.py"]:
        assert "RAY_AUTH_TOKEN=" not in path.read_text()


def test_the_upload_of_a_job_is_the_program_alone(tmp_path):
    """The checkout as `ray job submit --working-dir .` zips it, with Ray's own packer."""
    from ray._private.runtime_env.packaging import create_package

    for litter in ("runs/a/metrics.jsonl", ".venv/bin/python", ".hypothesis/x"):
        (tmp_path / litter).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / litter).write_text("x")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in [*tracked.splitlines(), ".rayignore"]:
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    create_package(str(tmp_path), tmp_path.with_suffix(".zip"), include_gitignore=True)
    names = zipfile.ZipFile(tmp_path.with_suffix(".zip")).namelist()
    assert {"rl_gns/cli.py", "envs/atari.py", "configs/pong.toml", "README.md"} <= set(names)
    refused = (".venv", ".git/", "runs", "docs/results", ".hypothesis")
    assert not [name for name in names if name.startswith(refused)]
    assert tmp_path.with_suffix(".zip").stat().st_size < 3_000_000
