"""Verbs that train: what each reads and prints. What is heavy is imported late."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rl_gns.config import ConfigError
from rl_gns.config_file import find
from rl_gns.flags import given_flags, parse
from rl_gns.options import (
    BranchOptions,
    CompareOptions,
    MeasureOptions,
    SweepOptions,
    TrainOptions,
)
from rl_gns.records import to_json
from rl_gns.rundir import write_json
from rl_gns.verbs.places import default_compare_dir, default_run_dir, default_sweep_dir, preset, runs_root

if TYPE_CHECKING:
    from rl_gns.records import NoiseScale


def train(arguments: list[str]) -> int:
    """Train one run."""
    options = parse(TrainOptions, TrainOptions(run=preset(arguments)), arguments, "rl-gns train")
    from rl_gns.study.live import LiveView
    from rl_gns.study.notice import noticing
    from rl_gns.study.train import train as run_training

    path = Path(options.run_dir) if options.run_dir else default_run_dir(options.config, options.run)
    with contextlib.ExitStack() as open_views:
        views = [open_views.enter_context(LiveView(f"{options.run.env} in {path}", options.run.total_env_steps))]
        if options.tensorboard:
            from rl_gns.study.tensorboard import EventFiles

            views.append(open_views.enter_context(EventFiles(path)))
        notice = open_views.enter_context(noticing())
        result = run_training(options.run, path, lambda record: [view.show(record) for view in views], notice)
    if options.json:
        print(json.dumps(result))
        return 0
    from rl_gns.report.summary import run_words

    print("\n".join(run_words(path, result)))
    return 0


def measure(arguments: list[str]) -> int:
    """Freeze a policy and measure its noise scale."""
    options = parse(MeasureOptions, MeasureOptions(run=preset(arguments)), arguments, "rl-gns measure")
    _check_measure(options, arguments)
    from rl_gns.report.summary import measurement_words

    measured = _measured(options, 0.0 if options.whole else options.precision or math.inf)
    if options.all:
        from rl_gns.study.measure_all import measure_all_of

        measured["all"] = to_json(measure_all_of(options.run_dir, options.run, options.max_env_steps, options.hessian))
        if options.run_dir:
            write_json(Path(options.run_dir) / "measure.json", measured)
    print(json.dumps(measured) if options.json else "\n".join(measurement_words(measured)))
    if options.all and not options.json:
        from rl_gns.study.measure_all_table import show

        show(measured["all"])
    return 0


def _measured(options: MeasureOptions, precision: float) -> dict[str, Any]:
    """The measurement as it is on disk."""
    from rl_gns.study.initialisations import measure_fresh
    from rl_gns.study.measure import Watch, measure_run
    from rl_gns.study.progress import b_simple_words

    def watch(seed: int | None = None) -> Watch:
        def show(env_steps: int, noise: dict[str, NoiseScale]) -> None:
            which = "" if seed is None else f"seed {seed}, "
            words = b_simple_words(to_json(noise["policy"]))
            print(f"{which}{env_steps:,} env steps: B_simple {words}", file=sys.stderr, flush=True)

        return show

    run, most = options.run, options.max_env_steps
    if options.run_dir:
        return to_json(measure_run(Path(options.run_dir), most, precision, run.actors, watch()))
    return measure_fresh(run, options.initialisations, most, precision, runs_root(), watch)


def _check_measure(options: MeasureOptions, arguments: list[str]) -> None:
    if options.max_env_steps < 1 or options.precision < 0:
        raise ConfigError("--max-env-steps: at least 1 is needed; --precision: at least 0")
    if options.initialisations < 1:
        raise ConfigError(f"--initialisations: {options.initialisations} is too small; the least is 1")
    if options.whole and options.precision:
        raise ConfigError("--precision: not read beside --whole, which stops for no precision; leave one out")
    if options.hessian and not options.all:
        raise ConfigError("--hessian: only read with --all; add it, or leave --hessian out")
    if not options.run_dir:
        return
    read = {"run-dir", "actors", "max-env-steps", "precision"}
    read |= {f"{no}{name}" for name in ("json", "all", "hessian", "whole") for no in ("", "no-")}
    if unread := [flag for flag in given_flags(arguments) if flag not in read]:
        raise ConfigError(f"--{unread[0]}: not read beside --run-dir, whose own settings are measured; leave it out")


def sweep(arguments: list[str]) -> int:
    """Run a grid and fit its front."""
    options = parse(SweepOptions, SweepOptions(), arguments, "rl-gns sweep")
    if not options.config:
        raise ConfigError("--config: a sweep needs a file with a [sweep] table; sweeps/cartpole is a shipped one")
    from rl_gns.study.grid import load_grid
    from rl_gns.study.live import CellLines
    from rl_gns.study.sweep import sweep as run_sweep
    from rl_gns.study.variants import in_order, load_variants, variant_cells

    file = find(options.config)
    variants = load_variants(file)
    path = Path(options.run_dir) if options.run_dir else default_sweep_dir(options.config)
    lines, reuse = CellLines(len(in_order(variant_cells(variants)))), [Path(other) for other in options.reuse]
    result = run_sweep(*load_grid(file), path, lines, options.cells_at_once, reuse, variants)
    if options.json:
        print(json.dumps(to_json(result)))
        return int(bool(result.failed))
    from rl_gns.report.summary import sweep_words

    print("\n".join(sweep_words(path)))
    return int(bool(result.failed))


def branch(arguments: list[str]) -> int:
    """Fork a run at several batch sizes."""
    runs = arguments[:1] if arguments and not arguments[0].startswith("-") else []
    options = parse(BranchOptions, BranchOptions(), arguments[len(runs) :], "rl-gns branch RUN")
    if not runs:
        raise ConfigError("branch: which run? rl-gns branch RUN --at 200000 --batch-sizes 256 512 1024")
    from rl_gns.study.branch import branch as run_branches
    from rl_gns.study.branch_plan import Plan
    from rl_gns.study.branch_table import show
    from rl_gns.study.live import CellLines

    plan = Plan(**{f.name: getattr(options, f.name) for f in dataclasses.fields(Plan)})
    path = Path(options.run_dir) if options.run_dir else None
    found = run_branches(Path(runs[0]), options.at, plan, path, CellLines, options.cells_at_once)
    if options.json:
        print(json.dumps(to_json(found)))
    else:
        show(found)
    return int(bool(found.failed))


def compare(arguments: list[str]) -> int:
    """Hold games against each other."""
    options = parse(CompareOptions, CompareOptions(run=preset(arguments)), arguments, "rl-gns compare")
    for flag in ("env", "total-env-steps", "goals", "goals-judged-on", "stop-at-goal", "checkpoint.keep"):
        if flag in given_flags(arguments):
            raise ConfigError(f"--{flag}: not read, --games and --stages say it; leave it out")
    from rl_gns.study.compare import Settings
    from rl_gns.study.compare import compare as run_comparison
    from rl_gns.study.compare_plan import ask, budget_seconds
    from rl_gns.study.compare_table import show
    from rl_gns.study.live import CellLines

    asked = ask(options.run, options.games, options.stages, options.seeds, options.initialisations, options.env_steps)
    path = Path(options.run_dir) if options.run_dir else default_compare_dir(options.config, options.run)
    reuse, fronts = (tuple(Path(other) for other in given) for given in (options.reuse, options.fronts))
    settings = Settings(reuse, fronts, options.force, options.cells_at_once, budget_seconds(options.budget))
    found = run_comparison(asked, path, settings, CellLines(len(asked.games) * len(asked.training_seeds)))
    print(json.dumps(to_json(found))) if options.json else show(found)
    return int(bool(found.missing))
