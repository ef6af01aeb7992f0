"""What `measure --all` adds for a policy that stands still: other metrics, a line search, the noise by its source."""

from __future__ import annotations

from dataclasses import dataclass

from rl_gns.records import MomentsKey, NoiseScale, logged


@dataclass(frozen=True)
class LineSearch:
    """B_noise from the best step along gradients of several batch sizes, with no metric assumed."""

    b_noise: float | None = logged("env steps", "slope / intercept of 1 / eps_opt against 1 / B; null where undefined")
    low: float | None = logged("env steps", "lower end of its interval")
    high: float | None = logged("env steps", "upper end; null where unbounded")
    resolved: bool = logged("", "the intercept's interval excludes zero, and nothing else forbids a headline")
    reason: str | None = logged("", "why not resolved, or why undefined")
    eps_max: float | None = logged("weights / gradient", "1 / intercept: the best step of the full gradient")
    batch_size: list[float] = logged("env steps", "B of each level")
    eps_opt: list[float | None] = logged("weights / gradient", "best step of each; null: the loss has no least step")
    clip_range: float = logged("1", "of the surrogate that was searched; 0: not clipped")
    env_steps: int = logged("env steps", "held-out env steps that judged each step")


@dataclass(frozen=True)
class Share:
    """One source of the noise."""

    trace: float = logged("gradient^2 x env steps", "its part of noise_trace; `critic` may be negative")
    standard_error: float = logged("gradient^2 x env steps", "of that, delete-one jackknife over groups of columns")
    share: float = logged("1", "of the replayed noise_trace; the four add up to 1")


@dataclass(frozen=True)
class NoiseSplit:
    """The policy part's noise_trace split by its source, from segments replayed from saved states."""

    noise_trace: float | None = logged("gradient^2 x env steps", "of the replayed segments; null where none could be")
    standard_error: float | None = logged("gradient^2 x env steps", "of that")
    shares: dict[str, Share] = logged("", "`columns`, `time`, `actions` under a re-fitted critic, and `critic`")
    reason: str | None = logged("", "why there is no split; null where there is one")
    n_starts: int = logged("segments", "saved states that were replayed, four times each")
    env_steps: int = logged("env steps", "valid env steps of all replays")


@dataclass(frozen=True)
class AllMeasurement:
    """The key `all` of a measurement. In every noise scale here signal_sq is G'MG, noise_trace tr(M Sigma) and b_simple
    their ratio, of the policy part, in the metric M that the field names."""

    env: str = logged("", "world and protocol")
    policy: str = logged("", "`fresh`, or the checkpoint that was measured")
    key: MomentsKey = logged("", "what the noise scales depend on")
    plain: NoiseScale = logged("", "M = 1: B_simple of the same env steps, to compare with")
    layers: dict[str, NoiseScale] = logged("", "parameter tensor -> B_simple of it alone")
    no_gradient: list[str] = logged("", "parameter tensors that the policy loss does not reach")
    adam: NoiseScale = logged("", "M = D^-2, D = sqrt(v) + eps of the optimizer")
    adam_from: str = logged("", "where v came from")
    fisher: NoiseScale = logged("", "M = Fisher (Gauss-Newton) matrix of the policy on held-out rows")
    hessian: NoiseScale | None = logged("", "M = Hessian of the surrogate on held-out rows; null where not asked for")
    line_search: LineSearch = logged("", "see below")
    split: NoiseSplit = logged("", "see below")
    held_out_env_steps: int = logged("env steps", "in columns of their own, for curvature, v and the line search")
    curvature_rollouts: int = logged("rollouts", "whose noise was weighed with the curvature")
    burn_in_env_steps: int = logged("env steps", "spent on desynchronising, all columns together")
    seconds: float = logged("s", "wall-clock")
