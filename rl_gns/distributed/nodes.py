"""What the cluster at an address wants of its guests, and what each of its nodes would run: for `rl-gns doctor`."""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rl_gns.distributed import session

CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""A question of Ray's control service that an empty message asks."""
ANSWER_SECONDS = 60.0
"""For all nodes together; a worker starts in two to ten (measured on 2 cores)."""
METRICS_SECONDS = 5.0
"""For one node's metrics (a guess)."""


@dataclass(frozen=True)
class Node:
    """One node's answer; `error` says why there is none."""

    address: str
    versions: dict[str, str] = field(default_factory=dict)
    """Of Python and Ray."""
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Package -> (directory that it is imported from, digest of its sources), of rl_gns and envs."""
    metrics_port: int = 0
    """Where it says that Ray shows gauges; not positive: nowhere."""
    metrics_answer: bool = False
    """Whether gauges were got from there, from here."""
    error: str = ""


@dataclass(frozen=True)
class Cluster:
    """What was found at an address; `error` says why it could not be joined."""

    address: str
    wants_token: bool | None
    """None: nobody answered."""
    dashboard: str = ""
    """host:port of the head's, empty where there is none."""
    here: Node | None = None
    """This process's own view, to hold the nodes against."""
    nodes: tuple[Node, ...] = ()
    error: str = ""


def look(address: str) -> Cluster:
    """Join the cluster at `address` for a moment, and ask every node that is alive."""
    try:
        with session.start(0, 0, address) as joined:
            from ray._private import worker

            found = tuple(_ask_all())
            dashboard = worker.get_dashboard_url() or ""
            return Cluster(joined.address, wants_token(joined.address), dashboard, Node("here", **_reporter()()), found)
    except Exception as error:
        said = "; ".join([session.reason(error), *getattr(error, "__notes__", ())])
        return Cluster(address, wants_token(address), error=said)


def wants_token(address: str) -> bool | None:
    """Whether the control service at host:port refuses a question without a token; None where nobody answers."""
    from ray._private.grpc_utils import grpc  # Ray's own dependency

    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(CHECK_ALIVE)(b"", timeout=5)
        except grpc.RpcError as error:
            return True if error.code() is grpc.StatusCode.UNAUTHENTICATED else None
    return False


def _ask_all() -> list[Node]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    report = ray.remote(num_cpus=0, max_retries=0)(_reporter())
    alive = [node for node in ray.nodes() if node["Alive"]]
    asked = {
        report.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(): node
        for node in alive
    }
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
    return [_node(node, call, call in answered) for call, node in asked.items()]


def _node(node: dict[str, Any], call: Any, answered: bool) -> Node:
    import ray

    address = node["NodeManagerAddress"]
    if not answered:
        return Node(address, error=f"no answer within {ANSWER_SECONDS:.0f} s")
    try:
        port = node["MetricsExportPort"]
        return Node(address, **ray.get(call), metrics_port=port, metrics_answer=shows_metrics(address, port))
    except ray.exceptions.RayError as error:
        return Node(address, error=session.reason(error))


def shows_metrics(address: str, port: int) -> bool:
    """Whether Ray's gauges come from there."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    host = f"[{address}]" if ":" in address else address
    try:
        with direct.open(f"http://{host}:{port}/metrics", timeout=METRICS_SECONDS) as answer:
            return b"ray_" in answer.read(1 << 20)
    except (OSError, ValueError, http.client.HTTPException):
        return False


def _reporter() -> Callable[[], dict[str, Any]]:
    """The question. A function inside a function travels by value: it must run where rl_gns cannot be imported."""

    def report() -> dict[str, Any]:
        import hashlib
        import importlib.util
        import platform
        from pathlib import Path

        import ray

        imports = {}
        for name in ("rl_gns", "envs"):
            spec = importlib.util.find_spec(name)
            if spec is None or not spec.submodule_search_locations:
                imports[name] = ("", "")
                continue
            path = Path(next(iter(spec.submodule_search_locations)))
            sources = sorted(path.rglob("*.py"), key=lambda source: source.relative_to(path).as_posix())
            texts = (source.relative_to(path).as_posix().encode() + source.read_bytes() for source in sources)
            imports[name] = (str(path), hashlib.sha256(b"\0".join(texts)).hexdigest()[:8])
        return {"versions": {"python": platform.python_version(), "ray": ray.__version__}, "imports": imports}

    return report
