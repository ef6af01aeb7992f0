"""How large a batch can this RL agent still use? Predicted, swept, and used live.

Importing this package loads nothing heavy: the names below are fetched on first use, so that `--help` and
`import rl_gns.noise` need neither torch nor ray nor gymnasium.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rl_gns.config import RunConfig as RunConfig
    from rl_gns.learn.meter import NoiseScaleMeter as NoiseScaleMeter
    from rl_gns.records import NoiseScale as NoiseScale

__version__ = "0.1.0"

_HOME = {
    "NoiseScale": "rl_gns.records",
    "NoiseScaleMeter": "rl_gns.learn.meter",
    "RunConfig": "rl_gns.config",
}

__all__ = ["NoiseScale", "NoiseScaleMeter", "RunConfig", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
