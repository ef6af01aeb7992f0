"""A process that has imported everything and never computed: each command runs in a fork of it, so that a driver starts
in milliseconds and may be killed often. One JSON object a line in, {"pid": ...} and then {"code": ...} a line out.

    {"run": ["train", ...]}    a fork runs the verb; negative code: the signal that ended it
    {"limit": n, "run": [...]} in which the kernel kills it as a file grows beyond n bytes, in the middle of a write
    {"events": n, "run": [...]} which kills itself at the n-th opening, renaming, making or removing of a file
    {"jumps": true, "run": [...]} whose wall clock jumps by an hour, to and fro, each time it is asked
    {"shell": "..."}           a shell's line, where the driver is: in namespaces, maybe
"""

import contextlib
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHANGES = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate")


class Driver:
    """The parent's end."""

    def __init__(self, *wrapped_in):
        env = os.environ | {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
        env |= {"OMP_NUM_THREADS": "1"}
        command = [*wrapped_in, sys.executable, "-u", str(HERE / "driver.py")]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, env=env, **pipes)
        self.root = Path(f"/proc/{self._process.pid}/root")
        assert json.loads(self._process.stdout.readline()) == "ready"

    def start(self, order):
        """The process id of a command that has begun."""
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())["pid"]

    def wait(self):
        """(exit code, standard error) of the command."""
        told = json.loads(self._process.stdout.readline())
        return told["code"], told["stderr"]

    def run(self, order):
        self.start(order)
        return self.wait()

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


@contextlib.contextmanager
def driver(*wrapped_in):
    made = Driver(*wrapped_in)
    try:
        yield made
    finally:
        made.close()


def _fork(order):
    said = os.memfd_create("stderr")
    pid = os.fork()
    if pid:
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        os.lseek(said, 0, os.SEEK_SET)
        with open(said, encoding="utf-8") as read:
            print(json.dumps({"code": os.waitstatus_to_exitcode(status), "stderr": read.read()}), flush=True)
        return
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    os.dup2(said, 2)
    if "limit" in order:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["limit"], order["limit"]))
    if "events" in order:
        _die_at(order["events"])
    if "jumps" in order:
        _jump()
    if "shell" in order:
        os.execvp("bash", ["bash", "-c", order["shell"]])
    from rl_gns.cli import main

    os._exit(main(order["run"]))


def _die_at(n_events):
    left = n_events

    def hook(event, arguments):
        nonlocal left
        if event not in CHANGES or (event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _jump():
    clock, clock_ns, hours = time.time, time.time_ns, itertools.cycle((3600, -3600))
    time.time = lambda: clock() + next(hours)
    time.time_ns = lambda: clock_ns() + next(hours) * 10**9


def serve():
    import rl_gns.study.live
    import rl_gns.study.train
    import rl_gns.verbs.running  # noqa: F401

    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        _fork(json.loads(line))


if __name__ == "__main__":
    serve()
