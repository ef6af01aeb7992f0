"""`rl-gns train`: one run in one run directory. Running it again goes on from the last checkpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_gns.config import ConfigError, RunConfig, config_id
from rl_gns.control_channel import tripped
from rl_gns.distributed import session
from rl_gns.distributed.metrics import Gauges
from rl_gns.learn.learner import NonFiniteGradient
from rl_gns.on_disk import understood
from rl_gns.records import UpdateRecord, to_json
from rl_gns.result import RunResult
from rl_gns.rollout.generations import MEASURED_ON
from rl_gns.rundir import BAD_ROWS, RunDir
from rl_gns.study.build import checked, make_learner, on_cpu
from rl_gns.study.elsewhere import on_the_cluster
from rl_gns.study.goals import Look, crossings, looks, settled
from rl_gns.study.notice import Notice, Terminated
from rl_gns.study.provenance import command
from rl_gns.study.sitting import BadRows, Began, Checkpoint, Event, gone_on_from, named, sitting

Watch = Callable[[UpdateRecord], None]


def train(
    config: RunConfig, path: Path, watch: Watch = lambda record: None, notice: Notice | None = None
) -> dict[str, Any]:
    """Train to the budget or the goal; result.json as a dict. A finished run is not trained again.

    `watch` is called with every record, after it is on disk. Where `notice` comes first, Terminated, with a checkpoint.
    On a cluster that the user names and with rollout actors, the trainer is an actor of its own (`elsewhere.py`).
    """
    config, elsewhere = checked(config, several_learners=True), config.actors > 0 and session.named() is not None
    learner = make_learner(on_cpu(config) if elsewhere else config)
    keeper = Keeper(config, path, watch)
    try:
        keeper.open()
        if not keeper.over():
            resume = keeper.resume
            events = (
                on_the_cluster(config, resume, notice) if elsewhere else sitting(config, learner, *resume(), notice)
            )
            with contextlib.closing(events):
                for event in events:
                    with contextlib.nullcontext() if notice is None else notice.held():
                        keeper.keep(event)
                        if notice is not None and isinstance(event, UpdateRecord):
                            notice()  # what was recorded is not given up before its checkpoint
        if notice is not None and notice() and not keeper.complete():
            raise Terminated
        return keeper.finish()
    except NonFiniteGradient as error:
        words = f"{error}; the first such minibatch, if one was caught, is {path}/{BAD_ROWS}"
        raise NonFiniteGradient(words) from None
    finally:
        keeper.close()


@dataclass(frozen=True)
class Origin:
    """Where a run that does not start afresh starts: another run's checkpoint, as a trainer's state with no update."""

    state: dict[str, Any]
    provenance: dict[str, Any]
    """Joins each sitting's entry of provenance.json."""


class Keeper:
    """A run directory and its only writer: it says where a sitting begins, and keeps the events that come of it."""

    def __init__(
        self,
        config: RunConfig,
        path: Path,
        watch: Watch = lambda record: None,
        origin: Origin | None = None,
    ):
        self.run, self._config, self._watch, self._origin = RunDir(path), config, watch, origin
        self._gauges = Gauges(path, config.env, config.seed)

    def open(self) -> None:
        """Take the directory; ConfigError where another process has it, or another experiment lies there. A run with
        an origin has it as its first checkpoint."""
        self.run.open(self._config)
        if self._origin and not self.run.checkpoints():
            self.run.save_checkpoint(0, self._origin.state)

    def over(self) -> bool:
        """It has finished, by its result and by this configuration."""
        with understood(self.run.path):
            return self.run.result.exists() and self.complete()

    def complete(self) -> bool:
        """Its records end a run with this configuration."""
        return _stopped(list(self.run.records()), self._config) is not None

    def resume(self) -> tuple[dict[str, Any] | None, list[Look]]:
        """(state of the newest checkpoint, looks up to it). What lies beyond it is cut off: it will come again."""
        with understood(self.run.path):
            return self._resume()

    def _resume(self) -> tuple[dict[str, Any] | None, list[Look]]:
        lines = list(self.run.records())
        state = None
        if found := self.run.newest_checkpoint(len(lines), gone_on_from(self._config, lines)):
            state = named(*found)
            self._check_generation(state)
        elif len(lines) > 1 and lines[-2]["env_steps"] >= (every := self.run.config().checkpoint.every_env_steps):
            words = f"has recorded {lines[-1]['env_steps']:,} env steps, but no checkpoint, due every {every:,}"
            raise ConfigError(f"--run-dir: {self.run.path} {words}")
        updates = state["counters"]["update"] if state else 0
        self.run.result.unlink(missing_ok=True)
        self.run.cut_back(updates)
        self._gauges = Gauges(self.run.path, self._config.env, self._config.seed, lines[:updates])
        return state, looks(lines[:updates], self._config)

    def _check_generation(self, state: dict[str, Any]) -> None:
        if state["source"] is None and state["counters"]["generation"] + 1 >= MEASURED_ON:
            raise ConfigError(
                f"--run-dir: {self.run.path} has had its columns seeded anew 255 times, and none are left; start a new "
                "one"
            )

    def keep(self, event: Event) -> None:
        """One event, on disk when this returns."""
        if isinstance(event, UpdateRecord):
            self.run.append(event)
            self._gauges.show(event)
            self._watch(event)
        elif isinstance(event, Checkpoint):
            self.run.save_checkpoint(event.env_steps, event.state)
        elif isinstance(event, Began):
            origin = self._origin.provenance if self._origin else {}
            self.run.note_sitting({"command": command(), **event.provenance, **origin})
        elif isinstance(event, BadRows):
            self.run.save_bad_rows(event.rows)

    def finish(self) -> dict[str, Any]:
        """Write result.json, and return it."""
        result = _result(list(self.run.records()), self._config)
        self.run.save_result(result)
        return to_json(result)

    def close(self) -> None:
        """Give the directory back."""
        self.run.close()


def _stopped(records: list[dict[str, Any]], config: RunConfig) -> str | None:
    """`goal` or `budget` where the records so far end a run with this configuration, else None."""
    if config.stop_at_goal and settled(looks(records, config), config):
        return "goal"
    return "budget" if records and records[-1]["env_steps"] >= config.total_env_steps else None


def _result(records: list[dict[str, Any]], config: RunConfig) -> RunResult:
    last = records[-1]
    faults = [{"update": r["update"], **fault} for r in records for fault in r["faults"]]
    same = ("env_steps", "optimizer_steps", "learning_rate", "return_mean", "episodes", "skipped_steps")
    return RunResult(
        **{name: last[name] for name in (*same, "noise", "noise_across")},
        env=config.env,
        seed=config.seed,
        config_id=config_id(config),
        updates=len(records),
        batch_size=last["batch_size"],
        batch_size_moves=sum(r["decision"]["moved"] for r in records),
        epochs=config.batch.epochs,
        minibatches=config.batch.minibatches,
        goals=crossings(looks(records, config), config),
        **{name: sum(r[name] for r in records) for name in ("late_blocks", "refused_blocks", "replaced_actors")},
        faults=faults,
        faults_env_steps=sum(fault.get("cost_env_steps", 0) for fault in faults),
        chaos=config.chaos.asked(),
        noise_control_trips=sum(tripped(r) for r in records),
        seconds=sum(r["seconds"] for r in records),
        stopped=_stopped(records, config),
    )
