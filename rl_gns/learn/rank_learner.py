"""The learner on one of R ranks: the whole network and optimizer, the columns n with n mod R = rank.

                      of one learner                    of rank r
    columns           n                                 n with n mod R = r, in order
    groups            j = n mod J, whole columns        those with j mod R = r, whole: R divides J
    advantage scale   mean and std over the rollout     sums, reduced before anything is scaled
    minibatch         drawn from one random stream      the same draw everywhere; the rows of its own columns
    gradient          sum over rows / rows              own sum / rows of the whole minibatch, reduced; then clipped
    moments           Gram matrix of g_1 .. g_J         |g_k|^2 and g_k . g of its own groups; g alone is reduced

So R ranks take the steps of one, and read its noise scale, but for the order in which float32 sums are taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from rl_gns.config import RunConfig
from rl_gns.learn.batch import Batch
from rl_gns.learn.gradients import norms_dots, rows_by_column
from rl_gns.learn.learner import Learner
from rl_gns.learn.ranks import Ranks
from rl_gns.learn.update_stats import UpdateStats
from rl_gns.records import PARTS, GroupMoments
from rl_gns.segments import SegmentBlock

BY_COLUMN = (
    *("frames", "episode_start", "action", "logp", "value", "reward", "raw_reward"),
    *("terminated", "truncated", "valid", "control"),
)
"""Fields of a block with columns along axis 1."""


@dataclass(frozen=True)
class Share:
    """What one rank holds of a rollout."""

    own: Batch
    """Its own columns."""
    whole: Batch
    """The whole rollout without its rows: which are valid, of how many columns, how they are scaled."""


def share_of(block: SegmentBlock, rank: int, n_ranks: int) -> SegmentBlock:
    """The columns of that rank; blocks are of collectors 0, 1, ... with equally many columns each."""
    per_collector = len(block.last_value)
    first = (rank - block.collector_id * per_collector) % n_ranks
    mine = {name: np.ascontiguousarray(getattr(block, name)[:, first::n_ranks]) for name in BY_COLUMN}
    return replace(block, **mine, last_value=block.last_value[first::n_ranks].copy())


class RankLearner(Learner):
    """Every method but those of the weights and the state must be called on all ranks alike."""

    def __init__(
        self,
        ranks: Ranks,
        config: RunConfig,
        frame_shape: tuple[int, ...],
        frame_stack: int,
        n_actions: int,
        env_protocol: str,
    ):
        self._ranks = ranks
        super().__init__(config, frame_shape, frame_stack, n_actions, env_protocol)
        if ranks.sum([self.precision == "bf16"]) < ranks.n_ranks:
            self.precision = "fp32"  # `auto` on machines that differ: one precision, which the key names

    def prepare(self, blocks: Sequence[SegmentBlock], valid: np.ndarray) -> Share:
        """`blocks`: this rank's columns of each (`share_of`); `valid` of the whole rollout, [T, N] by collector."""
        own = super().prepare(blocks)
        n_columns, env_steps = self._ranks.sum([own.n_columns, own.env_steps]).astype(int)
        if env_steps != valid.sum():
            raise ValueError(f"{env_steps} valid env steps on all learners, of {valid.sum()}: columns are missing")
        per_collector = n_columns * own.waves // len(blocks)
        generation = np.repeat([block.generation for block in blocks], per_collector)
        nothing = torch.empty(0)
        rows = {"frames": nothing, "oldest": nothing, "columns": {}}
        whole = replace(own, valid=valid.reshape(-1), generation=generation, n_columns=int(n_columns), **rows)
        return Share(own, whole)

    def probe(self, share: Share) -> GroupMoments:
        """The moments of all ranks' groups; no group's gradient leaves its rank."""
        groups = rows_by_column(share.whole, self.config.noise.groups)
        env_steps = np.array([len(rows) for rows in groups])
        own = self._gradients_of(share.own, rows_by_column(share.own, len(groups) // self._ranks.n_ranks))
        found = norms_dots(own, own.env_steps / max(env_steps.sum(), 1), self._ranks.add)
        merged = self._ranks.interleaved(found)
        facts = replace(
            own,
            env_steps=env_steps,
            max_ratio_error=float(self._ranks.interleaved(np.array([own.max_ratio_error])).max()),
            control=self._ranks.interleaved(own.control),
        )
        return self._moments(share.whole, facts, {}, {part: merged[:, i] for i, part in enumerate(PARTS)})

    def update(self, share: Share, learning_rate: float) -> UpdateStats:
        """The steps that one learner would take; RanksDiffer where the ranks did not take them alike."""
        stats = super().update(share, learning_rate)
        self._ranks.check_alike(self.network)
        return stats

    def _minibatches(self, share: Share) -> list[np.ndarray]:
        return super()._minibatches(share.whole)

    def _backward(self, share: Share, index: np.ndarray, minibatch_rows: int) -> dict[str, float]:
        sums = super()._backward(share.own, self._own_rows(share, index), minibatch_rows)
        self._ranks.add_gradients(list(self.network.parameters()))
        return dict(zip(sums, self._ranks.sum(list(sums.values())).tolist(), strict=True))

    def _own_rows(self, share: Share, index: np.ndarray) -> np.ndarray:
        """Rows of the whole rollout, counted among the own ones; those of other ranks left out."""
        turn, column = np.divmod(index, share.whole.n_columns)
        mine = column % self._ranks.n_ranks == self._ranks.rank
        return turn[mine] * share.own.n_columns + column[mine] // self._ranks.n_ranks

    def _skip(self, share: Share, index: np.ndarray) -> None:
        super()._skip(share.own, self._own_rows(share, index))

    def _advantage_mean_std(self, own: Batch) -> tuple[float, float]:
        return _mean_std(*self._sums(own.advantages()))

    def _join_statistics(self, share: Share) -> None:
        env_steps, total, total_sq = self._sums(share.own.advantages())
        self.statistics.add_sums(int(env_steps), total, total_sq)

    def _explained_variance(self, share: Share) -> float | None:
        target = share.own.columns["target"].cpu().numpy()[share.own.valid]
        (_, spread), (_, left) = (_mean_std(*self._sums(x)) for x in (target, share.own.advantages()))
        return 1 - left**2 / spread**2 if spread > 0 else None

    def _sums(self, values: np.ndarray) -> tuple[float, float, float]:
        """(number, sum, sum of squares) over all ranks."""
        wide = values.astype(np.float64)
        return tuple(self._ranks.sum([len(wide), wide.sum(), (wide**2).sum()]).tolist())


def _mean_std(number: float, total: float, total_sq: float) -> tuple[float, float]:
    mean = total / number
    return mean, math.sqrt(max(total_sq / number - mean**2, 0.0))
