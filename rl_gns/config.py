"""One frozen configuration, whole: defaults < preset or file < flags. Every field is read by the part that owns it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from envs.options import AtariOptions
from rl_gns.chaos import ChaosConfig


class ConfigError(ValueError):
    """The user's mistake, in one line: what, the value, the nearest right one. Exit code 2."""

    def __init__(self, message: object):
        line = " ".join(str(message).split())
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line))


@dataclass(frozen=True)
class BatchConfig:
    """How many env steps an optimizer step averages, and how often a rollout is used."""

    size: int = 256
    """B, the batch size: env steps averaged into one optimizer step."""
    segment_steps: int = 128
    """T, env steps of one column in a rollout. Never changes when B does: B grows by columns."""
    minibatches: int = 4
    """Optimizer steps in one pass over a rollout; a rollout is B x minibatches env steps."""
    epochs: int = 4
    """Passes over a rollout."""
    minibatch_by: Literal["transitions", "columns"] = "transitions"
    """What is shuffled into minibatches: single rows, as every peer does, or whole columns."""

    @property
    def rollout_env_steps(self) -> int:
        return self.size * self.minibatches


@dataclass(frozen=True)
class RolloutConfig:
    """How experience is collected; none of it but the seeds' spacing depends on who hosts the collectors."""

    columns_per_collector: int = 8
    """Columns of one collector: the unit that is placed, seeded, moved and replaced."""
    scatter_env_steps: int = 500
    """Each column first takes U{0..this} random env steps, so that columns start out of phase (the paper's 500)."""
    burn_in_env_steps: int = 200
    """Then it plays so many under the current policy before any counts (a guess); also when it is seeded anew."""
    inference_actors: int = 0
    """Ray actors that hold the policy and answer the rollout actors, step by step; 0: each rollout actor holds it. For
    clusters whose GPUs would idle: on CPUs it is slower. What is inferred together is chance, so logits are the same
    but for rounding (1e-5 in fp32), and two such runs are not the same to the bit."""
    waves: int = 1
    """W, consecutive segments that each column gives to a rollout: for batches whose columns do not fit into memory.
    They are correlated, so every group holds all of a column's."""


@dataclass(frozen=True)
class LearnerConfig:
    """PPO; with epochs = minibatches = 1, clip_range = 0 and rmsprop it is A2C."""

    network: Literal["auto", "nature", "small", "mlp", "linear"] = "auto"
    """nature: the Nature CNN. small: 16/32/32 filters at stride 2, for 42 x 42. mlp: two tanh layers of 64. linear: no
    bias, for worlds with a known answer. auto: nature from 84 pixels on, small below, mlp for vectors."""
    optimizer: Literal["adam", "rmsprop", "sgd"] = "adam"
    """adam (eps 1e-5), rmsprop (torch's, alpha 0.99, eps 1e-5: McCandlish et al. 2018, A.4.2), or sgd (no
    momentum)."""
    learning_rate: float = 2.5e-4
    """Of the optimizer, at the start."""
    schedule: Literal["constant", "linear"] = "constant"
    """linear anneals the learning rate to 0 at total_env_steps; sweeps need constant."""
    clip_range: float = 0.1
    """PPO's ratio clip; 0 means no clipping, the plain policy gradient."""
    value_clip: bool = False
    """Clip the value's change by clip_range too, as the Atari baselines do."""
    value_coef: float = 0.5
    """Weight of the value loss."""
    entropy_coef: float = 0.01
    """Weight of the entropy bonus."""
    max_grad_norm: float = 0.5
    """Clip the gradient's global norm to this; 0 means never."""
    gamma: float = 0.99
    """Discount an env step."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation."""
    normaliser: Literal["ewma", "rollout", "none"] = "ewma"
    """Statistics that scale advantages: of earlier rollouts (independent of this one), of this rollout (coupled:
    its noise scale is not pooled), or none."""
    normaliser_env_steps: int = 20_000
    """Memory of the ewma, env steps (a guess; ten rollouts of pong_small)."""
    micro_batch: int = 256
    """Rows in one forward and backward pass; gradients accumulate. 256 was fastest on 2 Zen 4 cores."""
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    """Of the trunk's forward pass; heads, weights, gradients and sums stay fp32. auto: bf16 for pixels where the
    hardware multiplies bf16 natively, else fp32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the learner runs; collectors stay on the CPU."""
    threads: int = 0
    """The learner's CPU threads; 0: OMP_NUM_THREADS, or all cores this process may use. Part of the bits only."""
    max_skipped_steps: int = 8
    """Stop the run after this many optimizer steps in a row with a gradient that is not finite."""


@dataclass(frozen=True)
class NoiseConfig:
    """The gradient noise scale, measured while training."""

    every: int = 10
    """Probe each so many rollouts; 0: never. Weights are bitwise the same either way. 10 costs 2.3 % of the time of a
    rollout on Pong, 3.4 % by its own clock (8 columns x 128, Nature CNN, measured on 2 Zen 4 cores; 8 cost 5.3 %)."""
    groups: int = 16
    """J, disjoint sets of columns, at most one a column; fewer than 8 never resolve."""
    window_env_steps: int = 500_000
    """Signal and trace are pooled over the last so many env steps."""
    across_env_steps: int = 250_000
    """Gradients are averaged across rollouts with weights that fall by e in so many env steps (they then weigh as many
    rollouts as a window of twice that; a shorter one is used where they turn); 0: not at all."""
    confidence: float = 0.95
    """Coverage of the intervals."""


FLOOR_COLUMNS = 8
"""A minibatch of a followed batch size keeps so many columns' worth of env steps: under 8 groups nothing resolves."""


@dataclass(frozen=True)
class ControlConfig:
    """What sets the batch size and the learning rate while a run trains."""

    policy: Literal["fixed", "follow"] = "fixed"
    """fixed: batch.size throughout. follow: towards kappa x B_simple, from the first resolved interval on."""
    part: Literal["policy", "rest", "total"] = "policy"
    """Whose noise scale is followed."""
    estimator: Literal["updates", "across"] = "updates"
    """Which noise scale is followed: pooled over updates, or from gradients averaged across them."""
    kappa: float = 1.0
    """follow wants kappa x B_simple: at 1 a step gains half of what the full gradient would (McCandlish et al. 2.2)."""
    hysteresis: float = 2.0
    """follow moves only when what it wants is more than this factor from the size in use (a guess)."""
    max_batch_size: int = 16_384
    """follow never goes above this; the rollout that it makes must fit in memory."""
    learning_rate_rule: Literal["none", "sqrt", "linear"] = "none"
    """How the learning rate goes with B / batch.size: not, as its square root (usual for Adam), or in proportion."""


@dataclass(frozen=True)
class CheckpointConfig:
    """What a killed run goes on from."""

    every_env_steps: int = 50_000
    """Checkpoint at multiples of this many env steps; the last two are kept."""
    keep: tuple[int, ...] = ()
    """Checkpoint too at the first rollout that reaches each of these env steps, and never delete it: for
    `rl-gns branch --at`."""
    exact_resume: bool = False
    """For worlds that cannot be saved (Atari): seed all columns anew at every checkpoint, so that a run which is killed
    and one which is not are the same to the bit. The episodes under way are cut there, and no return counts them:
    returns, and goals judged on training, are of episodes that fit between two checkpoints."""


@dataclass(frozen=True)
class RunConfig:
    """A whole run."""

    env: str = "CartPole"
    """The world: an Atari game in CamelCase, CartPole, or a world with a known answer."""
    seed: int = 0
    """All random streams of the run derive from it."""
    total_env_steps: int = 100_000
    """Stop at the first rollout that reaches so many valid env steps."""
    goals: tuple[float, ...] = ()
    """Returns whose first crossing is recorded."""
    goals_judged_on: Literal["evaluation", "training"] = "evaluation"
    """What must come to a goal: complete episodes of the frozen policy, or, as in the paper, the smoothed return of
    training episodes, which lags by an episode's length (in rollouts: the more the smaller the batch)."""
    stop_at_goal: bool = False
    """Stop once every goal is reached and confirmed."""
    evaluation_episodes: int = 20
    """Complete episodes of one evaluation, on columns of their own; only runs with goals are evaluated."""
    return_episodes: int = 100
    """The smoothed return is the mean over so many finished episodes."""
    actors: int = 0
    """Ray actors that host the collectors; 0: all in this process. Never changes the numbers."""
    learners: int = 1
    """Ray actors that share each optimizer step, a GPU each where there are any; 1: in this process. Weights and noise
    scale are those of one learner but for rounding. Only `train` has more than one."""
    atari: AtariOptions = field(default_factory=AtariOptions)
    batch: BatchConfig = field(default_factory=BatchConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    control: ControlConfig = field(default_factory=ControlConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    chaos: ChaosConfig = field(default_factory=ChaosConfig)

    @property
    def actor_cpus(self) -> int:
        """CPUs that the run's actors take, one each."""
        return self.actors + self.rollout.inference_actors

    @property
    def batch_unit(self) -> int:
        """Env steps between neighbouring batch sizes: a rollout is whole segments of whole collectors."""
        segments = self._env_steps_of_a_collector()
        return segments // math.gcd(segments, self.batch.minibatches)

    @property
    def batch_floor(self) -> int:
        """The least batch size that `follow` uses: what FLOOR_COLUMNS give, on the grid of `batch_unit`."""
        least = FLOOR_COLUMNS * self.batch.segment_steps * self.rollout.waves
        return math.ceil(least / self.batch_unit) * self.batch_unit

    @property
    def batch_cap(self) -> int:
        """The largest batch size that the run can come to, on the grid."""
        if self.control.policy == "fixed":
            return self.batch.size
        return max(self.batch_floor, self.control.max_batch_size // self.batch_unit * self.batch_unit)

    def collectors(self, batch_size: int) -> int:
        """Collectors that a rollout of B x minibatches env steps needs. T and the waves never change."""
        return batch_size * self.batch.minibatches // self._env_steps_of_a_collector()

    @property
    def columns(self) -> int:
        """N, columns that feed a rollout of the configured batch size."""
        return self.collectors(self.batch.size) * self.rollout.columns_per_collector

    def _env_steps_of_a_collector(self) -> int:
        """In a rollout."""
        return self.batch.segment_steps * self.rollout.columns_per_collector * self.rollout.waves


NUMERICS = 1
"""Version of the arithmetic. Raise it with any change after which the same settings give other records or weights: a
formula, the order of random draws, an initialisation, what an evaluation plays. Not for speed, words or new fields.
Cells of a sweep that were run under another version are not reused."""
NOT_IN_THE_NUMBERS = ("actors", "total_env_steps", "goals", "goals_judged_on", "stop_at_goal", "checkpoint")
"""Top-level fields that may differ between a run and its continuation (total_env_steps: under a constant rate)."""

LATER: tuple[str, ...] = ("learners", "rollout.inference_actors", "rollout.waves", "chaos")
"""Settings that came after runs had been kept, and whose default does what was done before: at
its default such a setting is no part of the identity, so those runs go on and are reused."""


def config_id(config: RunConfig) -> str:
    """Eight hex digits over every setting that changes the numbers, and `NUMERICS`: two runs that share it are one
    experiment."""
    hashed = json.dumps({"numerics": NUMERICS, **identity(config)}, sort_keys=True)
    return hashlib.sha256(hashed.encode()).hexdigest()[:8]


def identity(config: RunConfig) -> dict[str, Any]:
    """The settings that change numbers, as a nested dict."""
    kept = dict(to_dict(config))
    annealed = config.learner.schedule == "linear"
    for name in NOT_IN_THE_NUMBERS:
        if not (annealed and name == "total_env_steps"):
            kept.pop(name)
    if config.checkpoint.exact_resume:
        kept["checkpoint"] = to_dict(config.checkpoint)
    kept["evaluated"] = bool(config.goals) and config.goals_judged_on == "evaluation"
    for name in LATER:
        _drop_default(kept, name)
    return kept


def _drop_default(kept: dict[str, Any], name: str) -> None:
    *sections, field_name = name.split(".")
    there, default = kept, to_dict(RunConfig())
    for section in sections:
        there, default = there[section], default[section]
    if there[field_name] == default[field_name]:
        there.pop(field_name)


def first_difference(there: dict[str, Any], here: dict[str, Any], prefix: str = "") -> str | None:
    """`key: value there, value here` of the first setting that differs between two identities, or None."""
    for name in sorted(set(there) | set(here)):
        old, new, key = there.get(name), here.get(name), f"{prefix}{name}"
        if isinstance(old, dict) and isinstance(new, dict):
            if found := first_difference(old, new, f"{key}."):
                return found
        elif old != new:
            return f"{key}: {old!r} there, {new!r} here"
    return None


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain dict of a config; tuples become lists."""
    return json.loads(json.dumps(dataclasses.asdict(config)))
