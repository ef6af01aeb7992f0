"""What `rl-gns measure` writes: the noise scale of a policy that stands still, and what stands beside it."""

from __future__ import annotations

from dataclasses import dataclass

from rl_gns.records import Fault, MomentsKey, NoiseScale, logged


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
    mean_cosine: float = logged(
        "1", "mean cosine between two groups' gradients, one rollout each; about 1 / (1 + B_simple / b)"
    )
    group_env_steps: float = logged("env steps", "b: mean valid env steps of a group in a rollout")
    max_ratio_error: float = logged("1", "max |ratio - 1| between learner and collectors")
    looks: int = logged("1", "how often the interval was looked at, to stop once it resolved")
    burn_in_env_steps: int = logged("env steps", "spent on desynchronising and on the first advantage statistics")
    faults: list[Fault] = logged("", "one a failed actor; see above")
    seconds: float = logged("s", "wall-clock")
