"""`rl-gns doctor`: is this machine, and the cluster that RAY_ADDRESS names, fit to run on?

A line a thing, with what to do about it. A failure is what keeps runs from working or lets strangers in; a warning is
what makes them slow or surprising.
"""

from __future__ import annotations

import http.client
import importlib.metadata
import importlib.util
import ipaddress
import json
import os
import platform
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import envs
from rl_gns.config import RunConfig
from rl_gns.distributed import session
from rl_gns.study import machine_limits as limits

if TYPE_CHECKING:
    from rl_gns.distributed.nodes import Cluster, Node

PACKAGES = ("ray", "torch", "gymnasium", "ale-py", "numpy")
GAMES = ("Alien", "BeamRider", "Breakout", "Pong", "Qbert", "Seaquest", "SpaceInvaders")
"""The Atari games of McCandlish et al. 2018."""
DASHBOARD_PORT = 8265
"""Ray's default."""
DASHBOARD_SECONDS = 5.0
"""For a listener to say whether it is a dashboard (a guess)."""
MAY_BE = "it may be a Ray dashboard"
METRICS_PORT = "ray start --metrics-export-port=8080"
SAME = "the same RAY_AUTH_MODE and token belong on every node and client (cluster/profile.sh)"


@dataclass(frozen=True)
class Line:
    """One thing that was looked at."""

    what: str
    state: Literal["ok", "warning", "failure"]
    found: str
    do: str = ""
    """What to do about it; empty where it is ok."""


def doctor(config: RunConfig) -> list[Line]:
    """Everything that can be said without a game being played. `config` says how much shared memory is wanted."""
    lines = [*versions(), torch_build(), *roms(), quota(limits.cores(), limits.quota_cores())]
    lines += [*rollout_actors(config), shared_memory(config, limits.shared_memory_bytes())]
    lines += [*authentication(), dashboard()]
    if address := session.named():
        from rl_gns.distributed.nodes import look

        lines += cluster(look(address))
    return lines


def versions() -> Iterator[Line]:
    """Python and the packages whose versions move numbers, against the lower bounds of pyproject.toml."""
    yield Line("python", "ok", platform.python_version())
    bounds = _lower_bounds()
    for name in PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Line(name, "failure", "not installed", "scripts/bootstrap")
            continue
        low = bounds.get(name, "0")
        if _numbers(version) < _numbers(low):
            yield Line(name, "failure", f"{version}, and {low} is needed", "scripts/bootstrap")
        else:
            yield Line(name, "ok", version)


def _lower_bounds() -> dict[str, str]:
    try:
        wanted = importlib.metadata.requires("rl-gns") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = (re.match(r"([\w-]+)(?:\[[\w,]+\])?>=([\d.]+)", line) for line in wanted)
    return {match[1]: match[2] for match in found if match}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])[:3]))


def torch_build() -> Line:
    """Whether torch can use the GPU that is there."""
    if importlib.util.find_spec("torch") is None:
        return Line("torch build", "failure", "not installed", "scripts/bootstrap")
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Line("torch build", "ok", f"{build}; {', '.join(names)}")
    if Path("/dev/nvidia0").exists():
        do = "install torch's CUDA build" if build == "CPU" else f"install a driver for {build}"
        return Line("torch build", "failure", f"{build}; it sees no GPU, though /dev/nvidia0 is there", do)
    return Line("torch build", "ok", f"{build}; no GPU")


def roms() -> Iterator[Line]:
    """The paper's games."""
    missing = [game for game in GAMES if game not in envs.known()]
    if missing:
        yield Line("ROMs", "failure", f"missing: {', '.join(missing)}", "pip install --force-reinstall ale-py")
    else:
        yield Line("ROMs", "ok", f"all {len(GAMES)} of the paper's games")


def quota(cores: int, quota_cores: float) -> Line:
    """Cores that are seen against what the cgroup lets them do."""
    if cores <= quota_cores:
        return Line("cores", "ok", f"{cores}, and no quota below that")
    do = (
        f"at most --actors {max(1, int(quota_cores))}, OMP_NUM_THREADS={max(1, int(quota_cores))}, ray start --num-cpus"
    )
    return Line("cores", "warning", f"{cores} are seen, the cgroup's quota is worth {quota_cores:g}", do)


def rollout_actors(config: RunConfig) -> Iterator[Line]:
    """Whether all of --actors would have work."""
    from rl_gns.study.build import idle_actors

    if idle := idle_actors(config):
        yield Line("rollout actors", "warning", idle, "fewer actors, or a larger batch")
    elif config.actors:
        yield Line("rollout actors", "ok", f"{config.actors}, for {config.collectors(config.batch_cap)} collectors")


def shared_memory(config: RunConfig, free: int | None) -> Line:
    """Free shared memory against the object store of a run with actors."""
    from rl_gns.study.build import object_store_bytes

    wanted = object_store_bytes(config)
    if free is None:
        return Line("shared memory", "ok", "this system has no /dev/shm")
    found = f"{free / 1e6:,.0f} MB free in /dev/shm, an object store of {wanted / 1e6:,.0f} MB is wanted"
    if free < wanted:
        return Line("shared memory", "warning", found, "Ray falls back to disk: docker run --shm-size, or mount more")
    return Line("shared memory", "ok", found)


def authentication() -> Iterator[Line]:
    """What Ray on this machine sends and asks for: the mode, and the token with its permissions."""
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    in_variable, in_file = bool(os.environ.get("RAY_AUTH_TOKEN")), path.is_file() and path.stat().st_size > 0
    token = "in RAY_AUTH_TOKEN" if in_variable else f"in {path}" if in_file else ""
    what = "authentication here"
    if mode == "token" and not token:
        yield Line(what, "failure", f"RAY_AUTH_MODE=token, no token at {path}", "ray get-auth-token --generate")
    elif mode == "disabled":
        yield Line(what, "warning", "RAY_AUTH_MODE=disabled: who reaches a cluster may run anything", SAME)
    elif mode == "" and token:
        found = f"RAY_AUTH_MODE is not set, a token is {token}: `ray start --head` asks for it, clients do not send it"
        yield Line(what, "warning", found, "export RAY_AUTH_MODE=token")
    else:
        yield Line(what, "ok", f"RAY_AUTH_MODE={mode}, the token is {token}" if mode else "neither mode nor token")
    if in_file and not in_variable:
        others = path.stat().st_mode & 0o077
        state, do = ("warning", f"chmod 600 {path}") if others else ("ok", "")
        yield Line("token file", state, f"{path}, mode {path.stat().st_mode & 0o777:o}", do)


def dashboard() -> Line:
    """Who can reach a dashboard of this machine: through its job server they may run anything."""
    url = os.environ.get("RAY_API_SERVER_ADDRESS", "")
    port = int(found[1]) if (found := re.search(r":(\d+)/?$", url)) else DASHBOARD_PORT
    open_to = [address for address in limits.listening_on(port) if not address.is_loopback]
    if not open_to:
        return Line("dashboard", "ok", f"nothing but loopback listens on port {port}")
    asked = [_dashboard_at(host, port) for address in open_to for host in _hosts(address)]
    state, said = max(asked, key=lambda answer: ("ok", "warning", "failure").index(answer[0]))
    found = f"port {port} listens on {', '.join(map(str, open_to))}, {said}"
    do = "ray start --head --dashboard-host=127.0.0.1, and reach it with `ssh -L` or `ray dashboard`"
    return Line("dashboard", state, found, "" if state == "ok" else f"if it is one: {do}" if MAY_BE in said else do)


def _hosts(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[str]:
    """Where this machine reaches who listens there; on `::` it may be heard by one protocol or by both."""
    if address.version == 4:
        return ["127.0.0.1" if address.is_unspecified else str(address)]
    return ["[::1]", "127.0.0.1"] if address.is_unspecified else [f"[{address}]"]


def _dashboard_at(host: str, port: int) -> tuple[Literal["ok", "warning", "failure"], str]:
    """How bad it is, and what a listener there says of itself."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://{host}:{port}/api/authentication_mode", timeout=DASHBOARD_SECONDS) as answer:
            mode = str(json.loads(answer.read(1 << 16))["authentication_mode"])
        return "warning" if mode == "token" else "failure", f"authentication: {mode}"
    except urllib.error.HTTPError as error:
        if error.code not in (401, 403):  # an older Ray, which asks for no token, has no such page
            return "warning", f"and answers HTTP {error.code}: {MAY_BE}"
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(getattr(error, "reason", error), TimeoutError):  # while connecting it comes wrapped
            return "warning", f"and said nothing in {DASHBOARD_SECONDS:g} s: {MAY_BE}"
    return "ok", "but that is no Ray dashboard"


def cluster(found: Cluster) -> Iterator[Line]:
    """Whether the cluster let us in, whom else it would, and whether its nodes run what we run."""
    wants = {True: "wants a token", False: "asks for none", None: "nobody answers"}[found.wants_token]
    what = "authentication of the cluster"
    if found.error:
        yield Line(what, "failure", f"{found.address}: {wants}; {found.error}", SAME)
        return
    open_to_all = found.wants_token is False
    yield Line(what, "warning" if open_to_all else "ok", f"{found.address}: {wants}", SAME if open_to_all else "")
    host = found.dashboard.rpartition(":")[0]
    if host not in ("", "127.0.0.1", "localhost", "::1", "[::1]"):
        do = "restart the head with --dashboard-host=127.0.0.1"
        yield Line("dashboard of the cluster", "failure" if open_to_all else "warning", found.dashboard, do)
    for node in found.nodes:
        yield _of_node(node, found.here)
    yield from _metrics_port([node for node in found.nodes if not node.error])


def _metrics_port(nodes: list[Node]) -> Iterator[Line]:
    """Whether Prometheus can read every node's gauges, at one port, and who else can: Ray asks for no token there."""
    if not nodes:
        return
    silent = [f"{node.address}:{node.metrics_port}" for node in nodes if not node.metrics_answer]
    public = [node.address for node in nodes if _is_public(node.address)]
    ports = sorted({node.metrics_port for node in nodes})
    who = f"{len(nodes)} nodes show" if len(nodes) > 1 else "the node shows"
    found, do = f"{who} gauges on port {', '.join(map(str, ports))}", ""
    if silent:
        found, do = f"no gauges from {', '.join(silent)}", f"{METRICS_PORT}, open between the nodes"
    elif public:
        found += f", without a token, and {', '.join(public)} is public"
        do = f"let nobody but the nodes and Prometheus reach port {ports[0]}"
    elif len(ports) > 1:
        do = f"{METRICS_PORT} on every node, or a Prometheus that reads Ray's list (cluster/README.md)"
    yield Line("metrics port", "warning" if do else "ok", found, do)


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _of_node(node: Node, here: Node | None) -> Line:
    what = f"node {node.address}"
    if node.error or here is None:
        return Line(what, "failure", node.error, "see the logs on that node, /tmp/ray/session_latest/logs")
    parts = [f"{name} {version}" for name, version in node.versions.items()]
    parts += [
        f"{name} from {path} ({digest})" if path else f"no {name}" for name, (path, digest) in node.imports.items()
    ]
    differs = [name for name, version in here.versions.items() if node.versions[name] != version]
    differs += [name for name, (_, digest) in here.imports.items() if node.imports[name][1] != digest]
    do = f"other than here: {', '.join(differs)}; bring the same checkout and environment there" if differs else ""
    return Line(what, "failure" if differs else "ok", ", ".join(parts), do)
