"""One rollout at the learner: every block copied once into one tensor, rows addressed by r = t N + n."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from rl_gns.learn.returns import gae
from rl_gns.segments import SegmentBlock


@dataclass(frozen=True)
class Rows:
    """Some rows of a rollout, ready for the loss; R rows."""

    observation: torch.Tensor
    """[R, stack, H, W] uint8, or [R, d] float32."""
    action: torch.Tensor
    """[R] int64."""
    logp: torch.Tensor
    """[R] float32, nats, of the collecting policy."""
    value: torch.Tensor
    """[R] float32, of the collecting network."""
    advantage: torch.Tensor
    """[R] float32, scaled."""
    target: torch.Tensor
    """[R] float32: the value target, unscaled advantage + value."""
    control: torch.Tensor
    """[R, D] float32: synthetic gradients, which no loss reads (`control_channel.py`)."""


@dataclass(frozen=True)
class Batch:
    """T x N rows; N = all columns of the rollout, in the order of their collectors' ids."""

    frames: torch.Tensor
    """[(T + stack) N, *frame_shape]: frame (i, n) at i N + n."""
    oldest: torch.Tensor
    """[T N] int64: index i of the oldest frame that belongs to the row's episode (-1: no reset in this block)."""
    stack: int
    n_columns: int
    segment_steps: int
    valid: np.ndarray
    """[T N] bool."""
    columns: dict[str, torch.Tensor]
    """action, logp, value, advantage, target: [T N] each; advantage as GAE gave it. control: [T N, D]."""
    normaliser: str = "none"
    """Whose statistics scale the advantages: `ewma`, `rollout` or `none`."""
    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def from_blocks(cls, blocks: Sequence[SegmentBlock], gamma: float, gae_lambda: float, device: str) -> Batch:
        """Stack blocks along the columns; advantages are not scaled yet."""
        wide = {name: np.concatenate([getattr(b, name) for b in blocks], axis=1) for name in _STEPWISE}
        last_value = np.concatenate([b.last_value for b in blocks])
        ended = (wide["terminated"], wide["truncated"])
        advantage = gae(wide["reward"], wide["value"], last_value, *ended, gamma, gae_lambda)
        steps, n_columns = advantage.shape
        stack = len(blocks[0].frames) - steps
        start = np.concatenate([b.episode_start for b in blocks], axis=1)[:steps]
        columns = {name: wide[name] for name in ("action", "logp", "value", "control")}
        columns |= {"advantage": advantage, "target": advantage + wide["value"]}
        return cls(
            frames=_frames(blocks, n_columns).to(device),
            oldest=torch.from_numpy(_oldest_frame(start, stack).reshape(-1)).to(device),
            stack=stack,
            n_columns=n_columns,
            segment_steps=steps,
            valid=wide["valid"].reshape(-1),
            columns={
                name: torch.from_numpy(np.ascontiguousarray(c).reshape(steps * n_columns, *c.shape[2:])).to(device)
                for name, c in columns.items()
            },
        )

    def scaled(self, normaliser: str, mean: float, std: float) -> Batch:
        """The same rows with advantages to be scaled as (A - mean) / std."""
        return replace(self, normaliser=normaliser, mean=mean, std=std)

    @property
    def env_steps(self) -> int:
        """Valid env steps."""
        return int(self.valid.sum())

    @property
    def column_env_steps(self) -> np.ndarray:
        """[N] int64: valid env steps of each column."""
        return self.valid.reshape(self.segment_steps, self.n_columns).sum(axis=0)

    def advantages(self) -> np.ndarray:
        """[env_steps] unscaled advantages of the valid rows."""
        return self.columns["advantage"].cpu().numpy()[self.valid]

    def valid_rows(self) -> np.ndarray:
        """[env_steps] row numbers, by time, then column."""
        return np.flatnonzero(self.valid)

    def rows_of_columns(self, columns: np.ndarray) -> np.ndarray:
        """Valid row numbers of some columns."""
        member = np.zeros(self.n_columns, bool)
        member[columns] = True
        return np.flatnonzero(self.valid.reshape(-1, self.n_columns) & member)

    def rows(self, index: np.ndarray) -> Rows:
        """The rows of that index, in its order, with advantages (A - mean) / std."""
        at = torch.from_numpy(index).to(self.frames.device)
        column = {name: c[at] for name, c in self.columns.items()}
        column["advantage"] = (column["advantage"] - self.mean) / (self.std + 1e-8)
        return Rows(observation=self._observation(at), **column)

    def _observation(self, at: torch.Tensor) -> torch.Tensor:
        """Rebuild the stacks by index: frames older than the episode are zero, as ale-py pads them."""
        if self.stack == 1:
            return self.frames[at]
        offset = torch.arange(self.stack, device=at.device)
        wanted = (at[:, None] + offset * self.n_columns).reshape(-1)
        stacks = self.frames.index_select(0, wanted).view(len(at), self.stack, *self.frames.shape[1:])
        keep = (at // self.n_columns)[:, None] + offset >= self.oldest[at][:, None]
        return stacks.mul_(keep[:, :, None, None]) if not bool(keep.all()) else stacks


_STEPWISE = ("action", "logp", "value", "reward", "terminated", "truncated", "valid", "control")


def _frames(blocks: Sequence[SegmentBlock], n_columns: int) -> torch.Tensor:
    length, _, *shape = blocks[0].frames.shape
    frames = np.empty((length, n_columns, *shape), blocks[0].frames.dtype)
    np.concatenate([b.frames for b in blocks], axis=1, out=frames)
    return torch.from_numpy(frames.reshape(length * n_columns, *shape))


def _oldest_frame(episode_start: np.ndarray, stack: int) -> np.ndarray:
    """[T, N] index of the oldest frame of the episode; the first observation's own stack is already padded."""
    steps = np.arange(len(episode_start))[:, None]
    last_start = np.maximum.accumulate(np.where(episode_start & (steps > 0), steps, -stack), axis=0)
    return np.maximum(last_start + stack - 1, -1)
