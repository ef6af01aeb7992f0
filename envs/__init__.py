"""The worlds: Atari games, CartPole, and bandits, a chain and a quadratic with a known answer, behind one interface.

They know nothing of learning. Importing this loads neither gymnasium nor ale_py; making a world does.
"""

from __future__ import annotations

from collections.abc import Sequence

from envs.catalogue import UnknownWorld, WorldSpec, known, protocol, spec
from envs.options import AtariOptions
from envs.world import SEED_LIMIT, Transition, World

__all__ = [
    "SEED_LIMIT",
    "AtariOptions",
    "Transition",
    "UnknownWorld",
    "World",
    "WorldSpec",
    "known",
    "make_vec",
    "protocol",
    "spec",
]


def make_vec(name: str, n_columns: int, options: AtariOptions, seeds: Sequence[int]) -> World:
    """The world `name` with `n_columns` columns, each with a seed of its own: distinct integers in [0, 2^31).

    `options` is for Atari games; the vector worlds ignore it.
    """
    rom = spec(name).rom
    if rom is not None:
        from envs.atari import AtariWorld

        return AtariWorld(rom, n_columns, options, seeds)
    if name == "CartPole":
        from envs.classic import CartPoleWorld

        return CartPoleWorld(n_columns, seeds)
    if name == "Chain":
        from envs.chain import ChainWorld

        return ChainWorld(n_columns, seeds)
    if name == "Quadratic":
        from envs.quadratic import QuadraticWorld

        return QuadraticWorld(n_columns, seeds)
    from envs.bandits import ARMS, BanditWorld

    return BanditWorld(n_columns, seeds, ARMS[name])
