"""The verbs: what each reads and prints. The only place where study meets report; what is heavy is imported late."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rl_gns.config import ConfigError, RunConfig, config_id
from rl_gns.config_file import find, load
from rl_gns.flags import directories, parse, value_of
from rl_gns.options import (
    FIT_USAGE,
    STATUS_USAGE,
    BenchOptions,
    BranchOptions,
    DoctorOptions,
    MeasureOptions,
    PlanOptions,
    PredictOptions,
    SelftestOptions,
    SweepOptions,
    TrainOptions,
    VerifyResumeOptions,
)
from rl_gns.records import to_json
from rl_gns.rundir import write_json

if TYPE_CHECKING:
    from rl_gns.records import NoiseScale


def train(arguments: list[str]) -> int:
    """Train one run."""
    options = parse(TrainOptions, TrainOptions(run=_preset(arguments)), arguments, "rl-gns train")
    from rl_gns.study.live import LiveView
    from rl_gns.study.train import train as run_training

    path = Path(options.run_dir) if options.run_dir else default_run_dir(options.config, options.run)
    with contextlib.ExitStack() as open_views:
        views = [open_views.enter_context(LiveView(f"{options.run.env} in {path}", options.run.total_env_steps))]
        if options.tensorboard:
            from rl_gns.study.tensorboard import EventFiles

            views.append(open_views.enter_context(EventFiles(path)))
        result = run_training(options.run, path, lambda record: [view.show(record) for view in views])
    if options.json:
        print(json.dumps(result))
        return 0
    from rl_gns.report.summary import run_words

    print("\n".join(run_words(path, result)))
    return 0


def measure(arguments: list[str]) -> int:
    """Freeze a policy and measure its noise scale."""
    options = parse(MeasureOptions, MeasureOptions(run=_preset(arguments)), arguments, "rl-gns measure")
    _check_measure(options, arguments)
    from rl_gns.report.summary import measurement_words

    measured = _measured(options, options.precision or math.inf)
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
    if options.hessian and not options.all:
        raise ConfigError("--hessian: only read with --all; add it, or leave --hessian out")
    if not options.run_dir:
        return
    read = {"run-dir", "actors", "max-env-steps", "precision"}
    read |= {f"{no}{name}" for name in ("json", "all", "hessian") for no in ("", "no-")}
    given = [token.partition("=")[0].removeprefix("--").replace("_", "-") for token in arguments if token[:2] == "--"]
    if unread := [flag for flag in given if flag not in read]:
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
    path = Path(options.run_dir) if options.run_dir else runs_root() / Path(options.config).stem
    lines, reuse = CellLines(len(in_order(variant_cells(variants)))), [Path(other) for other in options.reuse]
    result = run_sweep(*load_grid(file), path, lines, options.cells_at_once, reuse, variants)
    if options.json:
        print(json.dumps(to_json(result)))
        return int(bool(result.failed))
    from rl_gns.report.summary import sweep_words

    print("\n".join(sweep_words(path)))
    return int(bool(result.failed))


def verify_resume(arguments: list[str]) -> int:
    """Hold a killed run against an unbroken one."""
    preset = load(find(value_of(arguments, "config") or VerifyResumeOptions.config))
    options = parse(VerifyResumeOptions, VerifyResumeOptions(run=preset), arguments, "rl-gns verify-resume")
    from rl_gns.study.verify_resume import verify_resume as verify
    from rl_gns.study.verify_resume import words

    with tempfile.TemporaryDirectory(prefix="rl-gns-") as scratch:
        verdict = verify(options.run, options.first, options.then, Path(options.run_dir or scratch))
    print(json.dumps(to_json(verdict)) if options.json else "\n".join(words(verdict)))
    return int(not verdict.identical)


def plan(arguments: list[str]) -> int:
    """What a sweep or a run would cost."""
    options = parse(PlanOptions, PlanOptions(), arguments, "rl-gns plan")
    if not options.config:
        raise ConfigError("--config: what is to be planned? A sweep's file or a single run's; sweeps/cartpole is one")
    from rl_gns.study.plan import plan_file
    from rl_gns.study.plan_table import show

    def home(run: RunConfig | None) -> Path:
        default = default_run_dir(options.config, run) if run else runs_root() / Path(options.config).stem
        return Path(options.run_dir) if options.run_dir else default

    reuse = [Path(other) for other in options.reuse]
    found = plan_file(find(options.config), home, options.cells_at_once, reuse, options.seconds, _to_stderr)
    print(json.dumps(to_json(found))) if options.json else show(found)
    return 0


def _to_stderr(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


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


def bench(arguments: list[str]) -> int:
    """Measure the parts and the whole."""
    preset = load(find(value_of(arguments, "config") or BenchOptions.config))
    options = parse(BenchOptions, BenchOptions(run=preset), arguments, "rl-gns bench")
    if options.profile:
        from rl_gns.study.bench_profile import markdown, profile

        seconds = profile(options.run, rollouts=4)
        print(json.dumps(seconds) if options.json else markdown(seconds))
        return 0
    from rl_gns.study.bench import bench as run_bench
    from rl_gns.study.bench_table import show

    result = run_bench(options.run, options.alternations, _to_stderr)
    if options.json:
        print(json.dumps(to_json(result)))
    else:
        show(result)
    return int(any(v.verdict == "fail" for v in result.verdicts.values()))


def selftest(arguments: list[str]) -> int:
    """Hold estimates against known answers."""
    options = parse(SelftestOptions, SelftestOptions(), arguments, "rl-gns selftest")
    from rl_gns.study import selftest as tests

    result = tests.selftest(_to_stderr)
    if options.json:
        print(json.dumps(to_json(result)))
    else:
        tests.show(result)
    return int(not result.passed)


def doctor(arguments: list[str]) -> int:
    """Look at the machine and at its cluster."""
    preset = load(find(value_of(arguments, "config") or DoctorOptions.config))
    options = parse(DoctorOptions, DoctorOptions(run=preset), arguments, "rl-gns doctor")
    from rl_gns.study.doctor import doctor as examine
    from rl_gns.study.doctor_table import show

    lines = examine(options.run)
    print(json.dumps({"lines": to_json(lines)})) if options.json else show(lines)
    return int(any(line.state == "failure" for line in lines))


def report(arguments: list[str]) -> int:
    """Words and figures from run directories alone."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: rl-gns report DIR [DIR ...]\n\nPlain words and a PNG for each run or sweep directory.")
        return 0 if arguments else 2
    from rl_gns.report.figures import figure
    from rl_gns.report.summary import words

    for path in directories(arguments, (), "report")[0]:
        print("\n".join(words(path)))
        print(f"  figure: {figure(path)}\n")
    return 0


def predict(arguments: list[str]) -> int:
    """The front that a run's noise scales say lies ahead; of a sweep, beside the knee that it found."""
    named = ["--run-dir"] if arguments and not arguments[0].startswith("-") else []
    options = parse(PredictOptions, PredictOptions(), [*named, *arguments], "rl-gns predict")
    if not options.run_dir:
        raise ConfigError("--run-dir: which run's or sweep's noise scales?")
    from rl_gns.study.held import predictions

    found, words = predictions(Path(options.run_dir), options.part, options.until_env_steps)
    print(json.dumps(to_json(found)) if options.json else "\n".join(words))
    return 0


def status(arguments: list[str]) -> int:
    """How runs stand, from their directories alone."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(STATUS_USAGE)
        return 0 if arguments else 2
    paths, given = directories(arguments, ("--watch", "--json"), "status")
    if not paths:
        raise ConfigError(f"status: a directory is needed; runs lie in {runs_root()} unless told otherwise")
    from rl_gns.study import status_view

    look = status_view.watch if "--watch" in given else status_view.show
    look(paths, as_json="--json" in given)
    return 0


def fit(arguments: list[str]) -> int:
    """The knee of every front in a file of runs, or in a sweep's directory."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(FIT_USAGE)
        return 0 if arguments else 2
    paths, given = directories(arguments, ("--json",), "fit")
    if len(paths) != 1:
        raise ConfigError(f"fit: one CSV file or sweep directory is needed, got {len(paths)}")
    from rl_gns.study import fit as study

    fronts = study.fit(paths[0])
    if "--json" in given:
        print(json.dumps(to_json(fronts)))
    else:
        study.show(fronts)
    return 0


def _preset(arguments: list[str]) -> RunConfig:
    """The settings of --config, or the defaults: what the other flags come on top of."""
    name = value_of(arguments, "config")
    return load(find(name)) if name else RunConfig()


def runs_root() -> Path:
    """Where runs lie unless told otherwise."""
    return Path(os.environ.get("RL_GNS_RUNS", "runs"))


def default_run_dir(preset: str, config: RunConfig) -> Path:
    """A name that the same settings always give, so that the same command finds its run again."""
    stem = Path(preset).stem or config.env
    return runs_root() / f"{stem}-B{config.batch.size}-s{config.seed}-{config_id(config)}"


VERBS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "train": (train, "train one run, measuring its noise scale; again: go on"),
    "measure": (measure, "freeze a policy and collect until its noise scale resolves"),
    "sweep": (sweep, "a grid of batch sizes, learning rates and seeds, and the knee of the front"),
    "plan": (plan, "what a sweep or a run will cost: cells, env steps, time, disk, memory, CPUs"),
    "branch": (branch, "fork a run at several batch sizes: the largest that is useful near one moment"),
    "fit": (fit, "the knee of every front in a file of runs, with its interval"),
    "predict": (predict, "the front that a run's noise scales predict; of a sweep, beside its knee"),
    "status": (status, "how runs stand, from their directories alone"),
    "selftest": (selftest, "estimates against known answers, without a game; exit code 1 if anything is off"),
    "verify-resume": (verify_resume, "a run killed and gone on, against an unbroken one: the same bits?"),
    "doctor": (doctor, "is this machine, and the cluster at RAY_ADDRESS, fit to run on? exit code 1 on a failure"),
    "bench": (bench, "how fast each part and the whole are, and what the probe costs"),
    "report": (report, "plain words and figures from run directories"),
}

AGAIN = dict.fromkeys(("train", "sweep", "branch"), "run the same command again to go on from the last checkpoint")
AGAIN |= {
    "verify-resume": "nothing was kept",
    "measure": "finished initialisations of a fresh policy are kept, the rest starts anew",
    "bench": "nothing was kept",
    "plan": "nothing was kept",
}
