"""Which worlds there are, by name. Starts no emulator and imports none of the libraries behind the worlds."""

from __future__ import annotations

import difflib
import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from envs.options import AtariOptions

ENDLESS_WORLDS = ("Bandit", "EchoedBandit")
"""Their episodes never end, so no return can be told."""
VECTOR_WORLDS = ("CartPole", "Bandit", "EpisodicBandit", "EchoedBandit", "Chain", "Quadratic")
TWO_PLAYER_ONLY_ROMS = frozenset({"combat", "joust", "maze_craze", "warlords"})
"""ale-py ships these ROMs but no one-player mode for them."""


class UnknownWorld(ValueError):
    """No world has this name; the message is one line with the nearest name that exists."""


@dataclass(frozen=True)
class WorldSpec:
    """What is known of a world before it is made."""

    name: str
    """As in `known()`."""
    kind: Literal["pixels", "vector"]
    """`pixels`: stacks of uint8 frames; `vector`: float32 vectors."""
    rom: str | None
    """ale-py's ROM id in snake_case; None where the world is no Atari game."""
    endless: bool = False
    """Episodes never end."""


@functools.cache
def _roms_by_name() -> dict[str, str]:
    """CamelCase name (as in ALE's own ids) -> ROM id, for the ROM files that ale-py ships; empty without ale-py."""
    package = importlib.util.find_spec("ale_py")
    if package is None or not package.submodule_search_locations:
        return {}
    roms = sorted(path.stem for path in (Path(package.submodule_search_locations[0]) / "roms").glob("*.bin"))
    return {rom.title().replace("_", ""): rom for rom in roms if rom not in TWO_PLAYER_ONLY_ROMS}


def known() -> tuple[str, ...]:
    """Every world name: the vector worlds, then the Atari games in alphabetical order."""
    return VECTOR_WORLDS + tuple(_roms_by_name())


def spec(name: str) -> WorldSpec:
    """The world called `name`, exactly as `known()` spells it; raises `UnknownWorld` otherwise."""
    if name in VECTOR_WORLDS:
        return WorldSpec(name, "vector", None, name in ENDLESS_WORLDS)
    if name in _roms_by_name():
        return WorldSpec(name, "pixels", _roms_by_name()[name])
    raise UnknownWorld(f"unknown world {name!r}{_suggestion(name)}")


def _suggestion(name: str) -> str:
    by_lower_case = {world.lower(): world for world in known()}
    nearest = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.5)
    return f": did you mean {by_lower_case[nearest[0]]!r}?" if nearest else ": see envs.known()"


def protocol(name: str, options: AtariOptions) -> str:
    """World and protocol in one stable line: equal strings mean that the numbers may be compared."""
    if spec(name).kind == "vector":
        return name
    size = options.frame_size
    return (
        f"{name} {size}x{size}x{options.frame_stack} skip{options.frameskip} "
        f"sticky{options.sticky_action_probability:g} life{options.life_loss_terminal:d} noop{options.noop_max} "
        f"fire{options.fire_reset:d} full{options.full_action_space:d} limit{options.max_episode_frames} "
        f"clip{options.clip_rewards:d}"
    )
