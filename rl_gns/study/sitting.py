"""One sitting of a run, apart from any disk: a stream of events, computed here or in a process of another node.

    sitting(config, learner, state, looks) -> Began, UpdateRecord, Checkpoint, UpdateRecord, ...

Whoever holds the run directory keeps them: `study.train.Keeper`.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import envs
from rl_gns.config import ConfigError, RunConfig
from rl_gns.learn.learner import Learner, NonFiniteGradient
from rl_gns.on_disk import DAMAGE, understood
from rl_gns.records import UpdateRecord
from rl_gns.study.build import learners, make_learner, source
from rl_gns.study.goals import Look, evaluated, look, settled
from rl_gns.study.notice import Notice, Terminated
from rl_gns.study.provenance import provenance
from rl_gns.trainer import Trainer

BATCH_SECONDS = 0.5
"""Records travel together until the oldest is this old (a choice: a hundredth of a second's work to send)."""
COPY_SHARE = 0.01
"""Of a run's time, at most: copies of its state, to be written where a rollout is given up (a choice). Each takes 1 ms
for CartPole's network and 50 ms for a Nature CNN with Adam and sums across rollouts (measured)."""


SAID = 200
"""Characters of what a checkpoint is refused for."""


FOLDER = "folder"
"""In a state that was read from a checkpoint: which one."""


class BadCheckpoint(ConfigError):
    """It reads back, and no trainer can go on from it: of another version, or changed by hand."""

    @classmethod
    def of(cls, state: dict[str, Any], met: BaseException) -> BadCheckpoint:
        """Naming the state's folder, and what was met in it."""
        said = f"{type(met).__name__}: {' '.join(str(met).split())[:SAID]}"
        folder = state.get(FOLDER, "a checkpoint") if isinstance(state, dict) else "a checkpoint"
        return cls(f"{folder}: no trainer can go on from it ({said}); move it away to go on from the one before")


def named(folder: Path, state: Any) -> dict[str, Any]:
    """A checkpoint's state that knows its folder."""
    with understood(folder):
        return {**state, FOLDER: str(folder)}


@dataclass(frozen=True)
class Began:
    """The sitting's first event."""

    provenance: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """What a killed run goes on from; it stands on all records before it."""

    env_steps: int
    state: dict[str, Any]


@dataclass(frozen=True)
class BadRows:
    """The first minibatch whose gradient was not finite."""

    rows: dict[str, np.ndarray]


@dataclass(frozen=True)
class Left:
    """The sitting's last event where it was told to end before the run did."""


Event = Began | UpdateRecord | Checkpoint | BadRows | Left


def sitting(
    config: RunConfig,
    learner: Learner,
    state: dict[str, Any] | None,
    looks: Sequence[Look],
    notice: Callable[[], bool] | None = None,
) -> Iterator[Event]:
    """Train on from `state` (None: from the start) to the budget, the goals or the notice (asked after each rollout);
    `looks` are those before. BadCheckpoint where no trainer can go on from `state`."""
    with learners(config, learner) as learner:
        yield Began(provenance(learner))
        with source(config) as segments:
            trainer = Trainer(config, learner, segments)
            if state is not None:
                with restoring(state):
                    trainer.restore(state)
            try:
                yield from _events(trainer, list(looks), notice)
            except NonFiniteGradient:
                if learner.bad_rows is not None:
                    yield BadRows(learner.bad_rows)
                raise


@contextlib.contextmanager
def restoring(state: dict[str, Any]) -> Iterator[None]:
    """BadCheckpoint where `state` turns out, inside, not to be what a trainer wrote."""
    try:
        with np.errstate(divide="raise", over="raise", invalid="raise"):
            yield
    except (RuntimeError, *DAMAGE) as error:
        met = error if isinstance(error, DAMAGE) else error.__cause__  # where a learner elsewhere met it
        if not isinstance(met, DAMAGE) or isinstance(met, ConfigError):
            raise
        raise BadCheckpoint.of(state, met) from error


def _events(trainer: Trainer, seen: list[Look], notice: Callable[[], bool] | None) -> Iterator[Event]:
    saved, caught = trainer.env_steps, False
    for record in _unless_given_up(trainer, _records(trainer, seen), notice):
        if isinstance(record, Checkpoint):
            if record.env_steps > saved:
                yield record
            continue
        yield record
        ends = notice is not None and notice() and not trainer.over()
        if _checkpoint_is_due(trainer.config, saved, record.env_steps) or (ends and not _seeds_anew(trainer.config)):
            saved, state = record.env_steps, trainer.state()
            yield Checkpoint(saved, state)
            if trainer.config.checkpoint.exact_resume and state["source"] is None:
                trainer.reseed()
        if trainer.learner.bad_rows is not None and not caught:
            caught = True
            yield BadRows(trainer.learner.bad_rows)
        if ends:
            yield Left()
            return
    if trainer.env_steps > saved:
        yield Checkpoint(trainer.env_steps, trainer.state())


def _unless_given_up(
    trainer: Trainer, records: Iterator[UpdateRecord], notice: Callable[[], bool] | None
) -> Iterator[UpdateRecord | Checkpoint]:
    """The records; where a rollout, its evaluation or a copy is given up, the newest copy of the state before it."""
    copies = isinstance(notice, Notice) and not _seeds_anew(trainer.config)
    before, due, record = None, 0.0, None
    while True:
        try:
            if record is not None and copies and (start := time.monotonic()) >= due:
                before = Checkpoint(trainer.env_steps, copy.deepcopy(trainer.state()))
                due = time.monotonic() + (time.monotonic() - start) / COPY_SHARE
            record = next(records, None)
        except Terminated:
            if before is not None:
                yield before
            raise
        if record is None:
            return
        if notice is not None:
            notice()  # so that the time does not run out for a rollout that has ended
        yield record


def _seeds_anew(config: RunConfig) -> bool:
    """At every checkpoint: so only those that are due may be written."""
    return config.checkpoint.exact_resume and envs.spec(config.env).kind == "pixels"


def _checkpoint_is_due(config: RunConfig, saved: int, env_steps: int) -> bool:
    """A multiple of `every_env_steps`, or one of those to keep, lies in (saved, env_steps]."""
    every, keep = config.checkpoint.every_env_steps, config.checkpoint.keep
    return env_steps // every > saved // every or any(saved < kept <= env_steps for kept in keep)


def gone_on_from(config: RunConfig, lines: Sequence[Mapping[str, Any]]) -> Callable[[int], bool]:
    """Whether a run with these records may go on from a checkpoint at such an E. Where columns are seeded anew at each,
    only from those that were due: a longer run has none at a shorter one's end. One beyond the records is asked too:
    that they are lost is to be told."""
    if not _seeds_anew(config):
        return lambda env_steps: True
    ends = [0, *(line["env_steps"] for line in lines)]
    due = {0, *(end for before, end in itertools.pairwise(ends) if _checkpoint_is_due(config, before, end))}
    return lambda env_steps: env_steps in due or env_steps > ends[-1]


def _records(trainer: Trainer, seen: list[Look]) -> Iterator[UpdateRecord]:
    """The trainer's records with their evaluations, until the budget is spent or every goal is settled: at once, where
    the looks before this sitting settled them."""
    config, steps = trainer.config, trainer.optimizer_steps
    if config.stop_at_goal and settled(seen, config):
        return
    for record in trainer.run():
        record, steps = evaluated(record, trainer, steps), record.optimizer_steps
        yield record
        if config.goals and (new := look(vars(record), config)) is not None:
            seen.append(new)
            if config.stop_at_goal and _may_settle(new, config) and settled(seen, config):
                return


def _may_settle(new: Look, config: RunConfig) -> bool:
    """A look at every record would make the judgement quadratic; only one at the highest goal can settle it."""
    return config.goals_judged_on == "evaluation" or new.score >= max(config.goals)


def batches(
    config: RunConfig, state: dict[str, Any] | None, looks: Sequence[Look], notice: Callable[[], bool] | None = None
) -> Iterator[list[Event]]:
    """A sitting in lists of events."""
    yield from in_batches(sitting(config, make_learner(config), state, looks, notice))


def in_batches(events: Iterator[Event]) -> Iterator[list[Event]]:
    """Lists of events, to travel between processes: a checkpoint leaves at once, and so does what came before an
    error."""
    batch: list[Event] = []
    since = time.monotonic()
    try:
        for event in events:
            batch.append(event)
            if isinstance(event, Checkpoint) or time.monotonic() - since >= BATCH_SECONDS:
                yield batch
                batch, since = [], time.monotonic()
    except Exception:
        yield batch
        raise
    yield batch
