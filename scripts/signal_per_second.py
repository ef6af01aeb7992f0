"""Signal per second: what each source of moments buys. `python scripts/signal_per_second.py RUN_DIR`

Every rollout starts from the run's newest checkpoint (weights, optimizer, statistics), and all sources read it:

    probe                every column's gradient at the collecting weights, before the first step
    first minibatch      the columns of the first minibatch alone, while it is being trained on
    first epoch          all columns, minibatch by minibatch, at weights that drift from the collecting ones
    training pass total  the minibatches' own gradients of that epoch (whole loss only): no backward pass of its own

Seconds are those beyond plain training. For a share s of the training time a source can be read n = s T / t times in
RESOLVED_OVER env steps of training (never more often than there are rollouts), and resolves B_simple up to
trace / (2 se(signal_sq)), se = sd / sqrt n: the signal is then two standard errors from zero.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rl_gns.learn.batch import Batch
from rl_gns.learn.gradients import GroupGradients, grams
from rl_gns.learn.learner import Learner
from rl_gns.learn.model import autocast
from rl_gns.learn.ppo import loss_sums, rest
from rl_gns.noise.moments import gram_signal_trace
from rl_gns.rundir import RunDir
from rl_gns.study.build import checked, make_learner, source

SHARES = (0.01, 0.05, 0.2)
RESOLVED_OVER = 200_000
CADENCES = (1, 2, 5, 10, 20)


def seconds_of(work: Any) -> tuple[Any, float]:
    """(result, seconds) of one call."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def read(learner: Learner, batch: Batch, columns: np.ndarray) -> GroupGradients:
    """Each column's mean gradient of the loss that is being trained on, ratios and clipping included."""
    config, parameters = learner.config.learner, list(learner.network.parameters())
    policy, rest_, env_steps, worst = [], [], [], 0.0
    for column in columns:
        index = batch.rows_of_columns(np.array([column]))
        rows = batch.rows(index)
        with autocast(learner.precision, learner.device):
            logits, value = learner.network(rows.observation)
        sums = loss_sums(logits, value, rows, config)
        for loss, into in ((sums.policy, policy), (rest(sums, config), rest_)):
            found = torch.autograd.grad(loss / len(index), parameters, retain_graph=True, allow_unused=True)
            filled = [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]
            into.append(torch.cat([g.reshape(-1) for g in filled]))
        env_steps.append(len(index))
        worst = max(worst, float(sums.ratio_error))
    return GroupGradients(torch.stack(policy), torch.stack(rest_), np.array(env_steps), worst)


def joined(pieces: list[GroupGradients]) -> GroupGradients:
    """The groups of several minibatches side by side."""
    policy, rest = (torch.cat([getattr(p, name) for p in pieces]) for name in ("policy", "rest"))
    return GroupGradients(
        policy, rest, np.concatenate([p.env_steps for p in pieces]), max(p.max_ratio_error for p in pieces)
    )


def minibatch_means(pieces: list[GroupGradients]) -> tuple[torch.Tensor, np.ndarray]:
    """([M, P] gradient of each minibatch's whole loss, [M] its env steps)."""
    shares = [torch.from_numpy(p.env_steps / p.env_steps.sum()).float() for p in pieces]
    total = torch.stack([s @ (p.policy + p.rest) for s, p in zip(shares, pieces, strict=True)])
    return total, np.array([p.env_steps.sum() for p in pieces])


def one_rollout(learner: Learner, batch: Batch, start: dict[str, Any]) -> dict[str, Any]:
    """Source -> (signal_sq, noise_trace, seconds beyond training, max |ratio - 1|) of one rollout."""
    config, minibatches = learner.config, learner.config.batch.minibatches
    probe, probe_seconds = seconds_of(lambda: learner.group_gradients(batch))
    pieces, read_seconds, step_seconds = [], [], []
    for columns in np.array_split(learner._rng.permutation(batch.n_columns), minibatches):
        piece, s = seconds_of(lambda columns=columns: read(learner, batch, columns))
        pieces.append(piece)
        read_seconds.append(s)
        step_seconds.append(seconds_of(lambda c=columns: learner._step(batch, batch.rows_of_columns(c)))[1])
    _, update_seconds = seconds_of(lambda: learner.update(batch, config.learner.learning_rate))
    learner.restore(start)
    (total, rows), flat_seconds = seconds_of(lambda: minibatch_means(pieces))
    found = {"update_seconds": update_seconds, "probe": parts(probe, probe_seconds)}
    if len(pieces[0].env_steps) > 1:
        found["first minibatch"] = parts(pieces[0], read_seconds[0] - step_seconds[0])
    found["first epoch"] = parts(joined(pieces), sum(read_seconds) - sum(step_seconds))
    gram, gram_seconds = seconds_of(lambda: (total.double() @ total.double().T).numpy())
    drift = max(p.max_ratio_error for p in pieces)
    found["training pass total"] = {"total": (*gram_signal_trace(gram, rows), flat_seconds + gram_seconds, drift)}
    return found


def parts(gradients: GroupGradients, seconds: float) -> dict[str, tuple[float, float, float, float]]:
    """policy and total -> (signal_sq, noise_trace, seconds, max |ratio - 1|)."""
    gram, gram_seconds = seconds_of(lambda: grams(gradients))
    return {
        part: (
            *gram_signal_trace(gram[part], gradients.env_steps),
            seconds + gram_seconds,
            gradients.max_ratio_error,
        )
        for part in ("policy", "total")
    }


def summary(found: list[dict[str, Any]], collect_seconds: float, env_steps: float) -> list[dict[str, Any]]:
    """One row a source and part."""
    rollout_seconds = collect_seconds + float(np.median([f["update_seconds"] for f in found]))
    rollouts = RESOLVED_OVER / env_steps
    rows = []
    for name in ("probe", "first minibatch", "first epoch", "training pass total"):
        for part in found[0].get(name, {}):
            series = np.array([f[name][part] for f in found])
            (signal, trace, _, _), t = series.mean(axis=0), float(np.median(series[:, 2]))
            sd = float(series[:, 0].std(ddof=1))
            row = {"source": name, "part": part, "signal_sq": signal, "signal_sq_se": sd / len(found) ** 0.5}
            row |= {"noise_trace": trace, "noise_trace_se": float(series[:, 1].std(ddof=1)) / len(found) ** 0.5}
            row |= {
                "seconds": t,
                "share_each_rollout": t / rollout_seconds,
                "max_ratio_error": float(series[:, 3].max()),
            }
            for share in SHARES:
                n = min(rollouts, share * rollouts * rollout_seconds / max(t, 1e-9))
                row[f"resolves_up_to_at_{share:.0%}"] = trace / (2 * sd / n**0.5)
            for every in CADENCES if name == "probe" else ():
                row[f"share_every_{every}"] = t / rollout_seconds / every
                row[f"resolves_up_to_every_{every}"] = trace / (2 * sd / (rollouts / every) ** 0.5)
            rows.append(row)
    return rows


def main() -> None:
    """Collect, read, print the rows as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("run_dir", type=Path)
    arguments.add_argument("--rollouts", type=int, default=100)
    given = arguments.parse_args()
    run = RunDir(given.run_dir)
    config, state = checked(run.config()), run.load_checkpoint()
    learner = make_learner(config)
    start = state["learner"]
    learner.restore(start)
    found, seconds, env_steps = [], [], []
    with source(config) as segments:
        segments.restore(None, generation=state["counters"]["generation"] + 1)
        segments.publish(learner.weights(), learner.version)
        for _ in range(given.rollouts + 1):
            collected, s = seconds_of(
                lambda: segments.collect(config.collectors(config.batch.size), config.batch.segment_steps)
            )
            batch = learner.prepare(collected.blocks)
            found.append(one_rollout(learner, batch, start))
            seconds.append(s)
            env_steps.append(batch.env_steps)
    rows = summary(found[1:], float(np.median(seconds[1:])), float(np.mean(env_steps)))
    print(json.dumps({"run": given.run_dir.name, "policy_env_steps": state["counters"]["env_steps"], "rows": rows}))


if __name__ == "__main__":
    main()
