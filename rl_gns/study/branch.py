"""`rl-gns branch`: fork a checkpoint at several batch sizes over the same env steps; which of them lose nothing?

Every branch is a run of its own in a directory of its own, run by the sweep's executor: resumed where it was killed,
not run again where it is finished, named with its traceback where it failed. It is scored at its end by complete
evaluation episodes of the frozen policy, in the same evaluation columns for all branches of a seed and for the fork.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_gns.config import ConfigError, RunConfig
from rl_gns.lock import take_lock
from rl_gns.noise.branching import Bracket, Judgement, bracket, confidence_of, judge, mean_interval, of_rules
from rl_gns.noise.run_prediction import Interval
from rl_gns.records import UpdateRecord
from rl_gns.rollout.evaluation import evaluate
from rl_gns.rundir import RunDir, read_json, write_json
from rl_gns.study.branch_plan import Plan, branch_configs, branch_of, columns_words, settled
from rl_gns.study.build import check_scored, make_learner
from rl_gns.study.forks import Fork, find_checkpoint, keep_copy, read_fork
from rl_gns.study.goals import Look
from rl_gns.study.sitting import Event, in_batches, sitting
from rl_gns.study.sweep import Cells, Watch, finished

LOCK = ".branch.lock"
EVALUATED_AT = 0
"""The same evaluation columns at the fork and at every branch's end (`evaluation.evaluate`)."""


@dataclass(frozen=True)
class Row:
    """One rule and batch size."""

    rule: str
    """How the learning rate goes with B / reference."""
    batch_size: int
    """Env steps an optimizer step."""
    learning_rate: float
    optimizer_steps: float | None
    """Of a branch; mean over seeds, None where every one failed."""
    env_steps: float | None
    """Likewise; it ends with the rollout whose end is nearest to those asked for."""
    scores: dict[int, float]
    """Seed index -> mean raw return at its end."""
    judgement: Judgement | None = None
    """Against the reference; None of the reference itself."""


@dataclass(frozen=True)
class Branching:
    """What branch.json holds."""

    run: str
    fork: dict[str, Any]
    """Which checkpoint, and its SHA-256."""
    plan: Plan
    columns: str
    """How the branches' columns came about."""
    confidence: float
    """Two-sided, of every interval here: a rule's share of one-sided 95 % a batch size."""
    fork_scores: dict[int, float]
    """Seed index -> mean raw return of the fork, in that seed's evaluation columns."""
    reference: Row
    reference_gain: Interval
    """Score at its end less score at the fork."""
    rows: list[Row]
    verdicts: dict[int, str]
    """Batch size -> its verdict under its better rule."""
    bracket: Bracket
    b_simple: dict[str, Any] | None
    """The policy's noise scale in the run's own records at the fork; None where there is none."""
    failed: dict[str, str]
    """Branch -> the last line of its traceback."""


def branch(
    run: Path, at: int, plan: Plan, path: Path | None, watch: Callable[[int], Watch], cells_at_once: int = 0
) -> Branching:
    """Run what is missing, judge, and write branch.json into `path` (None: below the run).

    `watch` is told how many branches there are. ConfigError: the user's mistakes.
    """
    known = list(run.glob("branches/*")) + ([path] if path else [])
    checkpoint = find_checkpoint(run, at, known)
    plan = settled(plan, begun := read_fork(run, checkpoint))
    check_scored(begun.config.env)
    path = path or run / "branches" / str(int(checkpoint.name.rpartition("-")[2]))
    if (path / "config.toml").exists():
        raise ConfigError(f"--run-dir: {path} holds a single run; give a directory of its own to the branches")
    path.mkdir(parents=True, exist_ok=True)
    with take_lock(path / LOCK, path):
        fork = read_fork(run, keep_copy(run, checkpoint, path))
        cells = branch_configs(fork, plan)
        missing = {c.name: c.config for c in cells if not finished(path / c.name, c.config)}
        failed = Cells(missing, path, watch(len(cells)), _words, scored_batches, fork.origin).run(cells_at_once)
        ends = {c.name: _end(path / c.name) for c in cells if c.name not in failed}
        result = _judged(fork, plan, _fork_scores(fork, plan, path), ends, failed)
        write_json(path / "branch.json", result)
    return result


def scored_batches(config: RunConfig, state: dict[str, Any] | None, looks: Sequence[Look]) -> Iterator[list[Event]]:
    """A branch in lists of events; its last record has the score of the policy that it leaves."""
    yield from in_batches(_scored(config, state, looks))


def _scored(config: RunConfig, state: dict[str, Any] | None, looks: Sequence[Look]) -> Iterator[Event]:
    learner = make_learner(config)
    for event in sitting(config, learner, state, looks):
        if isinstance(event, UpdateRecord) and event.env_steps >= config.total_env_steps:
            score, env_steps = evaluate(config, learner.weights(), EVALUATED_AT)
            event = dataclasses.replace(event, evaluation_return=score, evaluation_env_steps=env_steps)
        yield event


def _words(result: dict[str, Any]) -> str:
    return f"over after {result['env_steps']:,} env steps, {result['optimizer_steps']:,} optimizer steps"


def _judged(
    fork: Fork, plan: Plan, before: dict[int, float], ends: Mapping[str, dict[str, Any]], failed: dict[str, str]
) -> Branching:
    """`ends`: branch -> its last record."""
    confidence = confidence_of(len(plan.learning_rate_rules))
    others = [b for b in plan.batch_sizes if b != plan.reference]
    reference = _row(fork, plan, plan.reference, plan.learning_rate_rules[0], ends)
    rows = [_row(fork, plan, size, rule, ends) for size in others for rule in plan.learning_rate_rules]
    rows = [dataclasses.replace(row, judgement=_judgement(plan, row, reference, before)) for row in rows]
    verdicts = {size: of_rules([r.judgement.verdict for r in rows if r.batch_size == size]) for size in others}
    gains = [score - before[k] for k, score in reference.scores.items()]
    return Branching(
        run=str(fork.run),
        fork=fork.provenance() | {"batch_size": fork.batch_size, "learning_rate": fork.learning_rate},
        plan=plan,
        columns=columns_words(fork, plan),
        confidence=confidence,
        fork_scores=before,
        reference=reference,
        reference_gain=mean_interval(gains, confidence),
        rows=rows,
        verdicts=verdicts,
        bracket=bracket(verdicts, plan.reference, plan.tolerance),
        b_simple=_b_simple(fork),
        failed=failed,
    )


def _row(fork: Fork, plan: Plan, size: int, rule: str, ends: Mapping[str, dict[str, Any]]) -> Row:
    """Before it is judged."""
    mine = [branch_of(fork, plan, size, rule, k) for k in range(plan.seeds)]
    there = {b.seed: ends[b.name] for b in mine if b.name in ends}
    scores = {k: end["evaluation_return"] for k, end in there.items()}
    steps, env_steps = (_mean([end[n] for end in there.values()]) for n in ("optimizer_steps", "env_steps"))
    return Row(rule, size, mine[0].config.learner.learning_rate, steps, env_steps, scores)


def _judgement(plan: Plan, row: Row, reference: Row, before: Mapping[int, float]) -> Judgement:
    """Over the seeds that both have; where one failed, which is no accident, nothing is resolved."""
    paired = [k for k in row.scores if k in reference.scores]
    scores = ([each[k] for k in paired] for each in (reference.scores, before, row.scores))
    found = judge(*scores, plan.tolerance, len(plan.learning_rate_rules))
    if len(paired) == plan.seeds:
        return found
    reason = f"{plan.seeds - len(paired)} of {plan.seeds} seeds failed, here or at the reference"
    return dataclasses.replace(found, verdict="unresolved", reason=reason)


def _end(path: Path) -> dict[str, Any]:
    """The last record of a finished branch."""
    *_, last = RunDir(path).records()
    return last


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _fork_scores(fork: Fork, plan: Plan, path: Path) -> dict[int, float]:
    """The fork's own score with each seed's evaluation columns; kept in fork.json, so that they are played once."""
    file = path / "fork.json"
    known = read_json(file) if file.exists() else {}
    for k in range(plan.seeds):
        config = branch_of(fork, plan, plan.reference, plan.learning_rate_rules[0], k).config
        key = f"{fork.digest[:12]}-s{k}-{plan.evaluation_episodes}"
        if key not in known:
            known[key] = evaluate(config, fork.state["learner"]["network"], EVALUATED_AT)[0]
            write_json(file, known)
    return {k: known[f"{fork.digest[:12]}-s{k}-{plan.evaluation_episodes}"] for k in range(plan.seeds)}


def _b_simple(fork: Fork) -> dict[str, Any] | None:
    """The policy's pooled noise scale in the last record up to the fork."""
    found = None
    for record in RunDir(fork.run).records():
        if record["env_steps"] <= fork.env_steps and record["noise"]:
            found = record["noise"]["policy"]
    return found and {name: found[name] for name in ("b_simple", "low", "high", "resolved", "reason")}
