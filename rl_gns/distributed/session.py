"""One Ray session, started or joined on purpose. Each setting, and what it guards against:

- `address="local"` unless the caller or RAY_ADDRESS names one: joining a stranger's cluster because one runs here.
- RAY_AUTH_MODE, before ray is imported (the user's own value wins): Ray >= 2.59 decides by the files it finds.
- A fresh RAY_AUTH_TOKEN for a private session, in the environment alone: without one Ray writes ~/.ray/auth_token,
  which switches authentication on in the next cluster the user starts.
- RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 for a private session: gcs and raylet on every interface. The name misleads: it
  is what makes a node's address loopback, on Linux too; `_node_ip_address="127.0.0.1"` is resolved to the outer one.
- A temp directory inside one of our own, mode 0700: Ray makes its own writable by every user of the machine. It lies
  in /tmp where TMPDIR is long: unix socket paths end at 107 bytes (103 on macOS).
- No dashboard in a private session, RAY_USAGE_STATS_ENABLED=0: a job server and reports that nobody asked for.
- `log_to_driver=False`: actors writing over the driver's terminal. `reason(error)` is the line they wanted to say.
  Ray prints the death of a worker all the same, on standard output (2.60): `_hushed` keeps that free for --json.
- An object store of what is in flight, at least 80 MB: Ray's default of 30 % of the memory.
- RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1: since Ray 2.56 an actor without a GPU still sees all of them.
- On a cluster that is joined it, and the user's GLOO_ and NCCL_SOCKET_IFNAME, travel in the runtime environment: no
  other variable of this process reaches an actor.
- On leaving, the environment is put back, and only a session that was started here is shut down.
"""

import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
CPU_SEES_NO_GPU = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
MIN_OBJECT_STORE = 80_000_000  # bytes; Ray refuses less than 75 MiB
LONGEST_BASE = 103 - len("/gns-12345678/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")


@dataclass(frozen=True)
class Session:
    address: str  # host:port of the cluster's control service
    private: bool  # started here, and ends here


def named() -> str | None:
    """The address of the cluster that the user names, if one is named."""
    address = os.environ.get("RAY_ADDRESS")
    return address if address and address != "local" else None


def forget_rays_threads() -> None:
    """In a job of `ray job submit`: unset the OMP_NUM_THREADS=1 that Ray gives to every entrypoint (2.60), unless the
    job's own runtime environment says so. It is nobody's wish, and would be the learner's threads."""
    if (own := _of_the_job()) is not None and os.environ.get("OMP_NUM_THREADS") == "1" and "OMP_NUM_THREADS" not in own:
        del os.environ["OMP_NUM_THREADS"]


def _of_the_job() -> dict[str, str] | None:
    """The variables that the runtime environment of this `ray job submit` sets everywhere; None: this is no job."""
    job = os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR")
    return (json.loads(job).get("runtime_env") or {}).get("env_vars") or {} if job else None


@contextlib.contextmanager
def start(n_cpus: int, object_store_bytes: int, address: str | None = None) -> Iterator[Session]:
    """Start a private session, or join the cluster at `address` (else at RAY_ADDRESS), which brings its own CPUs and
    object store. In a process that is connected already this changes nothing."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        if address:
            raise RuntimeError(f"this process is connected to Ray already and cannot join {address}")
        yield Session(ray.get_runtime_context().gcs_address, private=False)
        return
    address = address or named() or "local"
    private = address == "local"
    settings = _settings(private)
    temp_dir = tempfile.mkdtemp(prefix="gns-", dir=_short_base()) if private else ""
    with contextlib.ExitStack() as on_leaving:
        for key in settings:
            on_leaving.callback(os.environ.pop, key, None)
        os.environ.update(settings)
        ray = _import_ray()
        options = {"runtime_env": {"env_vars": passed_on}} if (passed_on := _passed_on(settings)) else {}
        if private:  # the workers inherit our environment
            options = {"num_cpus": n_cpus, "object_store_memory": max(object_store_bytes, MIN_OBJECT_STORE)}
            options |= {"include_dashboard": False, "_temp_dir": f"{temp_dir}/r"}  # made 777 by Ray
        try:
            if not private:
                _knock(address)
            with _own_sigterm():
                ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **options)
            on_leaving.enter_context(_hushed())
            yield Session(ray.get_runtime_context().gcs_address, private)
        except Exception as error:
            if isinstance(error, ray.exceptions.RayError) or not ray.is_initialized():
                mode = f"RAY_AUTH_MODE is {os.environ['RAY_AUTH_MODE']} here: is it, and the token, the same there?"
                error.add_note(f"Ray's logs: {temp_dir}/r/session_latest/logs" if private else mode)
                temp_dir = ""  # keep them
            raise
        finally:
            ray.shutdown()
            if temp_dir:
                shutil.rmtree(temp_dir, ignore_errors=True)


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """`ray.init` puts a SIGTERM handler of its own in place, which aborts the process: put ours back."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Ray's messages about dead workers go to its logs alone: `crew` names them."""
    from ray._private import worker

    before, worker.print_to_stdstream = worker.print_to_stdstream, lambda *args, **kwargs: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before


def _knock(address: str) -> None:
    """Raise Unreachable at once where nothing answers: Ray itself would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        words = f"RAY_ADDRESS: no Ray cluster answers at {address!r} ({error}); unset it to start one"
        raise Unreachable(words) from None


class Unreachable(ConnectionError):
    """The cluster that the user named does not answer."""


def reason(error: BaseException) -> str:
    """What went wrong inside the task or actor, in one line: Ray wraps it in the worker's whole traceback."""
    if isinstance(cause := getattr(error, "cause", None), BaseException):
        return f"{type(cause).__name__}: {cause}"
    return (str(error).strip() or repr(error)).splitlines()[-1]


def _settings(private: bool) -> dict[str, str]:
    """The variables to set; none that the user has set."""
    user = os.environ
    token_given = "RAY_AUTH_TOKEN" in user or "RAY_AUTH_TOKEN_PATH" in user
    token = private or token_given or (Path.home() / ".ray" / "auth_token").exists()
    wanted = {CPU_SEES_NO_GPU: "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token" if token else "disabled"}
    if private:
        wanted[LOOPBACK] = "0"
        if user.get("RAY_AUTH_MODE", "token").lower() == "token" and not token_given:
            wanted["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    return {key: value for key, value in wanted.items() if key not in user}


def _passed_on(settings: dict[str, str]) -> dict[str, str]:
    """Variables for every process on a cluster that is joined; Ray refuses those that the job gives it already."""
    given, ours = _of_the_job() or {}, {CPU_SEES_NO_GPU: "1"} if CPU_SEES_NO_GPU in settings else {}
    return ours | {key: os.environ[key] for key in INTERFACES if key in os.environ and key not in given}


def _import_ray() -> ModuleType:
    late = "ray" in sys.modules
    import ray

    if late:  # it read the environment when it was imported: have it read ours, as ray.init does for its own default
        from ray._private import ray_constants
        from ray._raylet import AuthenticationTokenLoader, Config

        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()
        ray_constants.ENABLE_RAY_CLUSTER = ray_constants.env_bool(LOOPBACK, not ray_constants.IS_WINDOWS_OR_OSX)
    return ray


def _short_base() -> str:
    base = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(os.fsencode(base)) <= LONGEST_BASE:
        return base
    logging.getLogger(__name__).warning("%s is too long for Ray's unix sockets: using /tmp", base)
    return "/tmp"
