"""What `rl-gns measure` writes: the noise scale of a policy that stands still, and what stands beside it."""

from __future__ import annotations

from dataclasses import dataclass

from rl_gns.records import Fault, MomentsKey, NoiseScale, logged


@dataclass(frozen=True)
class Pooled:
    """One part's noise scale from several policies that differ in their seed alone."""

    b_simple: float | None = logged(
        "env steps", "1 / mean over seeds of signal_sq / noise_trace; null where that is not above zero"
    )
    low: float = logged("env steps", "lower end: the lesser of those between and within seeds")
    high: float | None = logged("env steps", "upper end: the larger of the two; null where unbounded")
    resolved: bool = logged("", "both intervals have an upper end, and nothing else forbids a headline")
    reason: str | None = logged("", "why not resolved; null where resolved")
    unit: str = logged("", "`seeds`: 3 or more; `groups`: fewer, so the interval within them stands alone")
    between_low: float | None = logged(
        "env steps", "lower end, from the spread between seeds; null where they are fewer than 3"
    )
    between_high: float | None = logged("env steps", "upper end of that; null where unbounded, or for fewer than 3")
    within_low: float = logged("env steps", "lower end if these very seeds were all there are: their groups' spread")
    within_high: float | None = logged("env steps", "upper end of that; null where unbounded")
    within_resolved: bool = logged("", "that interval has an upper end")
    least: float | None = logged("env steps", "smallest B_simple of one seed; null where none has a value")
    most: float | None = logged("env steps", "largest B_simple of one seed; null where one has no value")
    n_seeds: int = logged("1", "how many there are")
    n_resolved: int = logged("1", "how many of them resolve by themselves")
    between_log_std: float | None = logged("1", "standard deviation of ln B_simple between those that resolved")
    within_log_std: float | None = logged(
        "1", "root mean square of ln(high / low) over twice its normal quantile: what their own intervals explain"
    )


@dataclass(frozen=True)
class Initialisations:
    """Fresh policies of several seeds, each measured alike."""

    seeds: list[int] = logged("", "one a policy; the first is the measurement's own")
    env_steps: int = logged("env steps", "of all together")
    spread: dict[str, Pooled] = logged("", "part -> what they say together")
    noise: list[dict[str, NoiseScale]] = logged("", "part -> noise scale of each, in the order of the seeds")


@dataclass(frozen=True)
class Measurement:
    """measure.json: the noise scale of one frozen policy."""

    env: str = logged("", "world and protocol")
    policy: str = logged("", "`fresh`, or the checkpoint that was measured")
    policy_env_steps: int = logged("env steps", "E of the run when the policy was frozen")
    seed: int = logged("", "run seed")
    generation: int = logged("generation", "of the columns that were measured on")
    key: MomentsKey = logged("", "what the noise scales depend on: compare only those of one key")
    noise: dict[str, NoiseScale] = logged("", "part -> frozen-policy noise scale")
    n_groups: int = logged("groups", "J, the disjoint sets of columns")
    env_steps: int = logged("env steps", "valid env steps measured on")
    max_env_steps: int = logged("env steps", "the most that were allowed")
    precision: float | None = logged(
        "1", "asked-for half width of the interval over B_simple; null: any, if it resolves"
    )
    env_steps_needed: int | None = logged(
        "env steps",
        "about how many more until the policy part is that precise; 0 if it is, null if nothing can be said",
    )
    law: str = logged("", "how the half width of the signal's interval falls with n env steps")
    long_run_ratio: float | None = logged("1", "of the policy part; see the noise scale's own")
    design_effect: float | None = logged(
        "1", "noise_trace of groups of columns over that of groups of shuffled transitions, same rows, policy part"
    )
    design_effect_low: float | None = logged("1", "lower end of its interval")
    design_effect_high: float | None = logged("1", "upper end of its interval")
    mean_cosine: float = logged("1", "mean cosine between two groups' gradients, one rollout each, policy part")
    expected_cosine: float | None = logged("1", "1 / (1 + B_simple / b), what it is about; null without a B_simple")
    group_env_steps: float = logged("env steps", "b: mean valid env steps of a group in a rollout")
    max_ratio_error: float = logged("1", "max |ratio - 1| between learner and collectors")
    looks: int = logged("1", "how often the interval was looked at, to stop once it resolved")
    burn_in_env_steps: int = logged("env steps", "spent on desynchronising and on the first advantage statistics")
    faults: list[Fault] = logged("", "one a failed actor; see above")
    seconds: float = logged("s", "wall-clock")
    return_mean: float | None = logged(
        "points", "mean raw return of the episodes that ended meanwhile; null if none did", default=None
    )
    episodes: int = logged("episodes", "how many those are", default=0)
    stops_early: bool | None = logged(
        "",
        "a look could end it before `max_env_steps`; `compare` takes only what none could; null: not known",
        default=None,
    )
    numerics: int = logged("", "version of the arithmetic", default=1)
    initialisations: Initialisations | None = logged(
        "", "fresh policies only: others of other seeds, and what they say together; see below", default=None
    )
