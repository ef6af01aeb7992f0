"""`rl-gns VERB ...`: which verb is meant, and what becomes of an error.

Exit codes: 0 done, 1 the program failed, 2 the user can mend it, 128 + n ended by signal n.
"""

from __future__ import annotations

import difflib
import os
import signal
import sys
import traceback
from collections.abc import Callable

from rl_gns import __version__
from rl_gns.config import ConfigError
from rl_gns.distributed import session
from rl_gns.study.notice import Terminated, raise_terminated
from rl_gns.verbs import AGAIN, VERBS

USAGE = "usage: rl-gns VERB [--help | flags]\n\n" + "\n".join(f"  {v:8} {words}" for v, (_, words) in VERBS.items())


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(__version__)
        return 0
    signal.signal(signal.SIGTERM, raise_terminated)
    session.forget_rays_threads()
    try:
        return _verb(arguments[0])(arguments[1:])
    except ConfigError as error:
        return _say(error, 2)
    except KeyboardInterrupt:
        return _ended("interrupted", arguments[0], 130)
    except Terminated:
        return _ended("terminated", arguments[0], 143)
    except BrokenPipeError:
        return 141
    except OSError as error:
        return _say(f"{error.filename or 'disk'}: {error.strerror}" if error.strerror else error, 2)
    except Exception as error:
        if os.environ.get("RL_GNS_TRACEBACK"):
            traceback.print_exc()
        notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
        return _say(f"{_reason(error)}{notes} (RL_GNS_TRACEBACK=1 shows where)", 1)


def _verb(name: str) -> Callable[[list[str]], int]:
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, n=1, cutoff=0.0)[0]
        raise ConfigError(f"{name}: no such verb; the nearest is {near}")
    return VERBS[name][0]


def _say(message: object, code: int) -> int:
    print(f"rl-gns: {' '.join(str(message).split())}", file=sys.stderr)
    return code


def _ended(how: str, verb: str, code: int) -> int:
    """What to do about a verb that a signal ended; status, which has nothing to lose, is quiet."""
    return code if verb == "status" else _say(f"{how}; {AGAIN.get(verb, 'run it again')}", code)


def _reason(error: Exception) -> str:
    if type(error).__module__.startswith("ray"):
        return session.reason(error)
    return f"{type(error).__name__}: {error}"
