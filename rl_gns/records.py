"""The records that travel between the parts: frozen, plain arrays, one line of meaning and unit a field.

Missing is None (null on disk), never 0.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from rl_gns.control_channel import ControlMoments

Part = Literal["policy", "rest", "total"]
PARTS: tuple[Part, ...] = ("policy", "rest", "total")


def logged(unit: str, meaning: str, **kwargs: Any) -> Any:
    """A dataclass field that reaches disk: `unit` and `meaning` feed the README's table of metrics."""
    return field(metadata={"unit": unit, "meaning": meaning}, **kwargs)


@dataclass(frozen=True)
class MomentsKey:
    """What must be equal for two noise scales to be pooled or compared: how a gradient is made, not which states the
    columns are in. So neither scatter, burn-in nor `checkpoint.exact_resume` (`config_id` tells those apart)."""

    env: str
    """World and protocol, as `envs.protocol` prints it."""
    segment_steps: int
    """T, env steps."""
    waves: int
    """W, consecutive segments of each column in a rollout; they are correlated, and a group holds all of them."""
    gamma: float
    gae_lambda: float
    normaliser: str
    """How advantages were scaled: `ewma`, `none`, or `rollout` (coupled: the groups share its statistics)."""
    epochs: int
    minibatches: int
    minibatch_by: str
    value_coef: float
    """Scales `rest` and `total` (the policy part does not feel it)."""
    entropy_coef: float
    network: str
    precision: str

    @property
    def id(self) -> str:
        """Eight hex digits that differ where any field does; what a NoiseScale carries on disk."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:8]

    @property
    def coupled(self) -> bool:
        """True where the groups are not independent, because they share the rollout's own statistics."""
        return self.normaliser == "rollout"


@dataclass(frozen=True)
class GroupMoments:
    """Second moments of the mean gradients g_1 .. g_J of J disjoint sets of columns, at fixed weights.

    `gram[part][i, j] = g_i . g_j`, float64, before clipping and before the optimizer: every statistic of
    the noise scale is a function of it (within one rollout, of `norms_dots` too) and of `env_steps`.
    """

    gram: dict[str, np.ndarray]
    """part -> [J, J] float64, in squared gradient units, for `policy`, `rest` (value and entropy) and `total`; a loop
    that is not ours has `total` alone."""
    env_steps: np.ndarray
    """[J] int64: valid env steps in each group's mean."""
    key: MomentsKey | None = None
    """None: a training loop that is not ours, which vouches that its moments belong together."""
    policy_version: int = 0
    max_ratio_error: float = 0.0
    """max |pi_learner / pi_collector - 1| over the rows: how far the probe was from on-policy."""
    batch_size: int | None = None
    """B, env steps averaged into one optimizer step; a change of it starts a new block, not a new key."""
    control: ControlMoments | None = None
    """Of the synthetic gradients that rode beside; None where there were none."""
    norms_dots: dict[str, np.ndarray] = field(default_factory=dict)
    """part -> [J, 2] float64, |g_k|^2 and g_k . g: of groups on several learners, where `gram` is empty."""

    @property
    def finite(self) -> bool:
        """No gradient was NaN or infinite."""
        return all(np.isfinite(products).all() for products in (self.gram or self.norms_dots).values())

    @property
    def n_groups(self) -> int:
        return len(self.env_steps)

    @property
    def coupled(self) -> bool:
        """True where the key says that the groups are not independent."""
        return self.key is not None and self.key.coupled

    @property
    def key_id(self) -> str | None:
        """The key's eight hex digits; None without a key."""
        return self.key.id if self.key else None

    @property
    def off_policy(self) -> bool:
        """True beyond a ratio error of 1e-2 (a chosen limit): the moments are kept apart from the pool."""
        return not self.max_ratio_error <= 1e-2


@dataclass(frozen=True)
class NoiseScale:
    """A gradient noise scale B_simple = tr(Sigma) / |G|^2 with its interval (McCandlish et al. 2018, eq. 2.9)."""

    part: str = logged("", "which loss: policy, rest (value and entropy) or total")
    signal_sq: float = logged("gradient^2", "estimate of |G|^2, unbiased, may be negative")
    noise_trace: float = logged("gradient^2 x env steps", "estimate of tr(Sigma) per env step")
    b_simple: float = logged("env steps", "noise_trace / signal_sq; infinite (on disk null) where signal_sq <= 0")
    low: float = logged("env steps", "lower end of the interval for B_simple")
    high: float = logged("env steps", "upper end of the interval; infinite (on disk null) where unbounded")
    confidence: float = logged("probability", "coverage that the interval aims at")
    resolved: bool = logged("", "the signal's interval excludes zero and nothing else forbids a headline")
    reason: str | None = logged("", "why not resolved; null where resolved")
    env_steps_needed: int | None = logged("env steps", "about how many more until resolved; null if unknown, 0 if so")
    n_groups: int = logged("groups", "J, the disjoint sets of columns")
    env_steps: int = logged("env steps", "valid env steps in the estimate; across: their number at equal weights")
    n_rollouts: int = logged("rollouts", "probes pooled; across: their number at equal weights")
    first_version: int = logged("version", "first policy version in the estimate")
    last_version: int = logged("version", "last policy version in the estimate")
    pooling: str = logged("", "`updates` (within rollouts), `across` (over a window of them) or `frozen` (one policy)")
    key_id: str | None = logged("", "which noise scales may be compared: those of one key", default=None)
    batch_size: int | None = logged("env steps", "B of the newest probe in it; null where not known", default=None)
    batch_size_env_steps: int | None = logged(
        "env steps", "over training: valid env steps in it since B was last changed", default=None
    )
    batch_size_rollouts: int | None = logged(
        "rollouts", "over training: probes in it since B was last changed", default=None
    )
    long_run_ratio: float | None = logged(
        "1", "frozen only: long-run over within-rollout noise trace, how columns persist", default=None
    )
    window_env_steps: float | None = logged(
        "env steps", "across only: the chosen window, in which weights fall by a factor of e", default=None
    )
    coherence: float | None = logged(
        "1",
        "across only: signal_sq of the longest window over the mean of single rollouts; null where that is <= 0",
        default=None,
    )
    coherence_low: float | None = logged("1", "lower end of its interval", default=None)
    coherence_high: float | None = logged("1", "upper end; null where unbounded", default=None)


@dataclass(frozen=True)
class Decision:
    """What set a rollout's batch size and learning rate: what was seen, asked, got, and why."""

    policy: str = logged("", "`fixed` or `follow`")
    saw_b_simple: float | None = logged("env steps", "estimate for the part that is followed; null where none")
    saw_low: float | None = logged("env steps", "lower end of its interval")
    saw_high: float | None = logged("env steps", "upper end; null where unbounded")
    saw_resolved: bool = logged("", "whether that interval was resolved")
    saw_return_mean: float | None = logged("score", "smoothed training return")
    saw_update_seconds: float | None = logged("s", "cost of one optimizer step of the rollout before")
    target_batch_size: float | None = logged("env steps", "kappa x B_simple; null where nothing was to follow")
    asked_batch_size: int = logged("env steps", "where the batch size should go: the target on the grid, in its limits")
    got_batch_size: int = logged("env steps", "where it went: at most a factor of 2 from the one before")
    moved: bool = logged("", "whether the batch size changed")
    reason: str = logged("", "why")


@dataclass(frozen=True)
class Fault:
    """One actor that failed or was moved, and what was done."""

    what: str = logged("", "`died`, `stalled`, `refused`, `not placed`, `moved`, `draining` or `trainer lost`")
    collectors: list[int] = logged("", "the collectors that were seeded anew (`not placed`: moved to other actors)")
    generations: list[int] = logged("generation", "the one that each of them went on in, after a burn-in")
    reason: str = logged("", "which process on which node, and what was seen of it")
    cost_env_steps: int = logged(
        "env steps",
        "about what was played in vain: blocks in the making, and scatter and burn-in taken again",
    )


@dataclass(frozen=True)
class UpdateRecord:
    """One line of metrics.jsonl: one rollout, from publication to the last optimizer step on it."""

    update: int = logged("rollouts", "index of this rollout, from 0")
    env_steps: int = logged("env steps", "E: valid fresh env steps collected so far")
    optimizer_steps: int = logged("steps", "S: optimizer steps taken so far")
    batch_size: int = logged("env steps", "B that was asked for")
    batch_env_steps: float | None = logged("env steps", "mean valid env steps in this rollout's optimizer steps")
    columns: int = logged("columns", "environment copies that fed this rollout")
    requested_env_steps: int = logged("env steps", "rows asked for: B x minibatches")
    collected_env_steps: int = logged("env steps", "rows that arrived, autoreset rows included")
    masked_env_steps: int = logged("env steps", "autoreset rows, left out of every loss and statistic")
    burn_in_env_steps: int = logged("env steps", "steps spent on desynchronising columns before they count")
    used_env_steps: int = logged("env steps", "rows that entered the losses")
    late_blocks: int = logged("blocks", "late or duplicate blocks dropped")
    refused_blocks: int = logged("blocks", "that were not what was asked for (NaN, shape, version, ...), and dropped")
    replaced_actors: int = logged("actors", "that died, stalled or returned such a block, and were replaced")
    faults: list[Fault] = logged("", "one a failed actor; see below")
    generation: int = logged("generation", "how often a collector was seeded anew at most: after a fault or a resume")
    learning_rate: float = logged("1", "of this rollout's optimizer steps")
    decision: Decision = logged("", "what set this rollout's batch size and learning rate; see below")
    return_mean: float | None = logged(
        "score", "mean raw return of the last `return_episodes` finished episodes; see `exact_resume`"
    )
    return_episodes: int = logged("episodes", "how many finished episodes that mean is over")
    episodes: int = logged("episodes", "finished so far")
    reseeded_columns: int = logged("columns", "seeded anew so far by resumes, or at checkpoints; each cut an episode")
    exact_resume: bool = logged(
        "",
        "each checkpoint seeds all columns anew (of Atari): only episodes that fit between two finish",
    )
    episode_length_mean: float | None = logged("env steps", "mean length of the episodes of `return_mean`")
    policy_loss: float | None = logged("1", "clipped surrogate, mean over the rollout's optimizer steps")
    value_loss: float | None = logged("reward^2", "half squared error of V, before its coefficient")
    entropy: float | None = logged("nats", "policy entropy, mean over rows")
    approx_kl: float | None = logged("nats", "mean of (ratio - 1) - ln ratio, collecting to updated policy")
    clip_fraction: float | None = logged("fraction", "rows whose ratio left the clip range")
    grad_norm: float | None = logged("gradient", "mean norm before clipping")
    grad_clip_fraction: float | None = logged("fraction", "optimizer steps whose gradient norm was clipped")
    explained_variance: float | None = logged("fraction", "1 - Var(return - V) / Var(return)")
    advantage_mean: float = logged("reward", "what was subtracted from the advantages")
    advantage_std: float = logged("reward", "what the advantages were divided by")
    skipped_steps: int = logged("steps", "optimizer steps skipped so far because the gradient was not finite")
    probe_max_ratio_error: float | None = logged("1", "max |ratio - 1| at the probe; above 1e-2 it is not pooled")
    probe_signal_sq: dict[str, float] | None = logged("gradient^2", "part -> signal_sq of this rollout alone")
    probe_noise_trace: dict[str, float] | None = logged(
        "gradient^2 x env steps", "part -> noise_trace of this rollout alone"
    )
    probes_left_out: int = logged("probes", "kept out of the pool so far: coupled, off-policy or not finite")
    probe_groups: int | None = logged("groups", "J of this rollout's probe")
    noise: dict[str, NoiseScale] | None = logged("", "part -> noise scale pooled over the window; see below")
    noise_across: dict[str, NoiseScale] | None = logged(
        "", "part -> noise scale across rollouts, from a window's mean gradients; null where off"
    )
    noise_control: NoiseScale | None = logged("", "of the control channel, pooled as `noise`: a known noise scale")
    noise_control_truth: dict[str, float] | None = logged("", "signal_sq, noise_trace, b_simple that it should read")
    noise_control_flag: str | None = logged("", "`ok`, `reads low` or `reads high`; null while too few probes tell")
    evaluation_return: float | None = logged(
        "score", "mean raw return of complete episodes of the policy after this rollout; null where none was due"
    )
    evaluation_env_steps: int | None = logged("env steps", "that the evaluation took; not in E")
    collect_seconds: float = logged("s", "publish and collect")
    probe_seconds: float = logged("s", "the noise-scale probe; 0 where none was due")
    update_seconds: float = logged("s", "the optimizer steps")
    seconds: float = logged("s", "the whole rollout, evaluation left out")


def to_json(value: Any) -> Any:
    """Plain JSON values from records: dataclasses to dicts, arrays to lists, NaN and infinities to null."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [to_json(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
