"""Two machines of their own inside this one, each with an sshd that knows one user, and a wire between them.

The head has a user namespace, and of process ids, mounts and network; the worker has the last three inside the head's.
Process ids start at 1 in each, so `ray stop` sees no Ray but the one there; /tmp/ray is a directory of its own;
loopback and the wire are all the network there is. Everything dies with the first process. It takes real root,
whose ids are kept (sshd changes its user), with its powers confined to the namespaces.
"""

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

TOOLS = ("unshare", "ip", "sshd", "ssh", "ssh-keygen", "rsync")
HEAD, WORKER = "10.77.0.1", "10.77.0.2"
NODE = """
ip link set lo up
mount -t tmpfs none /run
mkdir -p /run/sshd {private}
for path in {private}; do mkdir -p {base}/{name}.hidden$path; mount --bind {base}/{name}.hidden$path $path; done
mount --bind {base}/{name}.passwd /etc/passwd
mount --bind {base}/shadow /etc/shadow
{sshd} -f {base}/sshd_config
"""
WORKER_SETUP = """set -e
until ip link set wire1 up 2>/dev/null; do sleep 0.05; done
ip addr add {worker}/24 dev wire1
ip route add default dev wire1
{node}
while sleep 1; do :; done
"""
HEAD_SETUP = """set -e
unshare --pid --mount --net --fork --kill-child --mount-proc bash {base}/worker.sh >{base}/worker.said 2>&1 &
while [[ $(readlink /proc/$!/ns/net) == $(readlink /proc/self/ns/net) ]]; do sleep 0.05; done
ip link add wire0 type veth peer name wire1 netns $!
ip addr add {head}/24 dev wire0
ip link set wire0 up
ip route add default dev wire0
{node}
until (exec 3<>/dev/tcp/{worker}/22) 2>/dev/null; do sleep 0.1; done
exec "$@"
"""
SSHD_CONFIG = """
HostKey {base}/host_key
AuthorizedKeysFile {base}/user_key.pub
PasswordAuthentication no
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
PidFile none
LogLevel ERROR
"""


@functools.cache
def why_not() -> str | None:
    """The reason why no such machine can be had here; None where it can."""
    if missing := [tool for tool in TOOLS if _tool(tool) is None]:
        return f"{', '.join(missing)} not installed (.ci/run installs openssh-server, openssh-client, rsync, iproute2)"
    if os.geteuid() != 0:
        return "needs root, since sshd changes its user"
    trial = ["bash", "-c", "ip link add wire0 type veth peer name wire1"]
    try:
        done = subprocess.run(_unshared(trial), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return "unshare: no answer within 30 s"
    return f"unshare and a wire: {done.stderr.strip()}" if done.returncode else None


def _tool(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _unshared(command: list[str]) -> list[str]:
    """`command` in namespaces of its own. The user namespace maps every id onto itself: only root outside may."""
    return [sys.executable, __file__, *command]


def prepare(base: Path, homes: dict[str, Path]) -> None:
    """Keys, users, sshd's settings and the machines' scripts below `base`; `homes`: root's, of head and worker."""
    for key in ("host_key", "user_key"):
        subprocess.run([_tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", base / key], check=True)
    users = [line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith("root:")]
    (base / "shadow").write_text("root:*:19000::::::\n")  # no password, and not locked
    (base / "sshd_config").write_text(SSHD_CONFIG.format(base=base))
    ssh_sockets = f"/tmp/ray_ssh_{hashlib.sha256(b'root').hexdigest()[:10]}"  # where Ray's ssh keeps its connections
    for name, setup in (("head", HEAD_SETUP), ("worker", WORKER_SETUP)):
        (base / f"{name}.passwd").write_text("\n".join([f"root:x:0:0:root:{homes[name]}:/bin/bash", *users, ""]))
        node = NODE.format(base=base, name=name, private=f"/tmp/ray {ssh_sockets}", sshd=_tool("sshd"))
        (base / f"{name}.sh").write_text(setup.format(base=base, node=node, head=HEAD, worker=WORKER))


def inside(base: Path, script: str, cwd: Path, env: dict[str, str], timeout: float) -> subprocess.CompletedProcess:
    """Run a bash script on the head that `prepare` made below `base`; stdout and stderr together."""
    return subprocess.run(
        _unshared(["bash", str(base / "head.sh"), "bash", "-c", script]), cwd=cwd, env=env, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout,
    )  # fmt: skip


def main() -> None:
    """Become `unshare`, so that to kill this process is to end the machine; a child gives its namespace the ids."""
    inner = [_tool("unshare"), "--pid", "--mount", "--net", "--fork", "--kill-child", "--mount-proc", *sys.argv[1:]]
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)
    if os.fork() == 0:
        _map_ids_of(os.getppid())
        os.write(writer, b"\n")
        os._exit(0)
    wait = [_tool("unshare"), "--user", "bash", "-c", f'read -r <&{reader}; exec "$@"', "wait"]
    os.execv(wait[0], wait + inner)


def _map_ids_of(pid: int) -> None:
    """Once `pid` has a user namespace of its own: every id in it is the same id outside."""
    ours = os.readlink("/proc/self/ns/user")
    for _ in range(4000):
        if os.getppid() != pid or os.readlink(f"/proc/{pid}/ns/user") != ours:
            break
        time.sleep(0.005)
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{pid}/{name}").write_text(Path(f"/proc/self/{name}").read_text())


if __name__ == "__main__":
    main()
