"""`rl-gns train`: one run in one run directory. Running it again goes on from the last checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rl_gns.config import ConfigError, RunConfig, config_id
from rl_gns.control_channel import tripped
from rl_gns.learn.learner import NonFiniteGradient
from rl_gns.records import RunResult, UpdateRecord, to_json
from rl_gns.rollout.generations import MEASURED_ON
from rl_gns.rundir import RunDir, save_arrays
from rl_gns.study.build import checked, make_learner, source
from rl_gns.study.goals import crossings, evaluated
from rl_gns.study.provenance import provenance
from rl_gns.trainer import Trainer

BAD_ROWS = "not_finite.safetensors"
Watch = Callable[[UpdateRecord], None]


def train(config: RunConfig, path: Path, watch: Watch = lambda record: None) -> dict[str, Any]:
    """Train to the budget or the goal; result.json as a dict. A finished run is not trained again.

    `watch` is called with every record, after it is on disk.
    """
    config = checked(config)
    run = RunDir(path)
    try:
        learner = make_learner(config)
        run.open(config)
        if not run.result.exists() or _stopped(list(run.records()), config) is None:
            run.note_sitting(provenance(learner))
            with source(config) as segments:
                trainer = Trainer(config, learner, segments)
                _resume(run, trainer)
                _drain(run, trainer, watch)
        result = _result(list(run.records()), config)
        run.save_result(result)
        return to_json(result)
    finally:
        run.close()


def _resume(run: RunDir, trainer: Trainer) -> None:
    """Metrics beyond the checkpoint are cut off: they will be computed again."""
    run.result.unlink(missing_ok=True)
    lines = list(run.records())
    state = run.load_checkpoint(len(lines))
    if state is not None:
        if state["source"] is None and state["counters"]["generation"] + 1 >= MEASURED_ON:
            raise ConfigError(
                f"--run-dir: {run.path} has had its columns seeded anew 255 times, and none are left; start a new one"
            )
        trainer.restore(state)
    elif lines and lines[-1]["env_steps"] > 2 * trainer.config.checkpoint.every_env_steps:
        raise ConfigError(f"--run-dir: {run.path} has recorded {lines[-1]['env_steps']:,} env steps, but no checkpoint")
    run.cut_back(trainer.update)


def _drain(run: RunDir, trainer: Trainer, watch: Watch) -> None:
    every, saved, steps = trainer.config.checkpoint.every_env_steps, trainer.env_steps, trainer.optimizer_steps
    try:
        for record in trainer.run():
            record, steps = evaluated(record, trainer, steps), record.optimizer_steps
            run.append(record)
            watch(record)
            if record.env_steps // every > saved // every:
                run.save_checkpoint(record.env_steps, trainer.state())
                saved = record.env_steps
            _save_bad_rows(run, trainer)
            if record.evaluation_return is not None and _stopped(list(run.records()), trainer.config) == "goal":
                break
    except NonFiniteGradient as error:
        _save_bad_rows(run, trainer)
        raise NonFiniteGradient(
            f"{error}; the first such minibatch, if one was caught, is {run.path}/{BAD_ROWS}"
        ) from None
    if trainer.env_steps > saved:
        run.save_checkpoint(trainer.env_steps, trainer.state())


def _save_bad_rows(run: RunDir, trainer: Trainer) -> None:
    path = run.path / BAD_ROWS
    if trainer.learner.bad_rows is not None and not path.exists():
        save_arrays(path, trainer.learner.bad_rows)


def _stopped(records: list[dict[str, Any]], config: RunConfig) -> str | None:
    """`goal` or `budget` where the records so far end a run with this configuration, else None."""
    if config.stop_at_goal and config.goals and all(c.reached for c in crossings(records, config)):
        return "goal"
    return "budget" if records and records[-1]["env_steps"] >= config.total_env_steps else None


def _result(records: list[dict[str, Any]], config: RunConfig) -> RunResult:
    last = records[-1]
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
        goals=crossings(records, config),
        **{name: sum(r[name] for r in records) for name in ("late_blocks", "refused_blocks", "replaced_actors")},
        faults=[{"update": r["update"], **fault} for r in records for fault in r["faults"]],
        noise_control_trips=sum(tripped(r) for r in records),
        seconds=sum(r["seconds"] for r in records),
        stopped=_stopped(records, config),
    )
