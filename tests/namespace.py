"""A machine of its own inside this one: user, process, mount and network namespaces, with an sshd that knows one user.

Inside, process ids start at 1, so `ray stop` sees no Ray but the one there; /tmp/ray is a directory of its own; the
loopback is all the network there is. Everything in it dies with its first process. It takes real root, whose ids are
kept (sshd changes its user), with its powers confined to the namespaces.
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
SETUP = """
set -e
ip link set lo up
mount -t tmpfs none /run
mkdir -p /run/sshd {private}
for path in {private}; do mkdir -p {base}/hidden$path; mount --bind {base}/hidden$path $path; done
for name in passwd shadow; do mount --bind {base}/$name /etc/$name; done
{sshd} -f {base}/sshd_config
exec "$@"
"""
SSHD_CONFIG = """
ListenAddress 127.0.0.1
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
    try:
        done = subprocess.run(_unshared(["true"]), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return "unshare: no answer within 30 s"
    return f"unshare: {done.stderr.strip()}" if done.returncode else None


def _tool(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _unshared(command: list[str]) -> list[str]:
    """`command` in namespaces of its own. The user namespace maps every id onto itself: only root outside may."""
    return [sys.executable, __file__, *command]


def prepare(base: Path, home: Path) -> None:
    """Keys, users and sshd's settings below `base`; root's home there is `home`."""
    for key in ("host_key", "user_key"):
        subprocess.run([_tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", base / key], check=True)
    users = [line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith("root:")]
    (base / "passwd").write_text("\n".join([f"root:x:0:0:root:{home}:/bin/bash", *users, ""]))
    (base / "shadow").write_text("root:*:19000::::::\n")  # no password, and not locked
    (base / "sshd_config").write_text(SSHD_CONFIG.format(base=base))


def inside(base: Path, script: str, cwd: Path, env: dict[str, str], timeout: float) -> subprocess.CompletedProcess:
    """Run a bash script on the machine that `prepare` made below `base`; stdout and stderr together."""
    ssh_sockets = f"/tmp/ray_ssh_{hashlib.sha256(b'root').hexdigest()[:10]}"  # where Ray's ssh keeps its connections
    setup = SETUP.format(base=base, private=f"/tmp/ray {ssh_sockets}", sshd=_tool("sshd"))
    command = _unshared(["bash", "-c", setup, "setup", "bash", "-c", script])
    return subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=timeout,
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
