"""Verbs that look before or after: what a run will cost, and whether machine and instrument are right."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from rl_gns.config import ConfigError, RunConfig
from rl_gns.config_file import find, load
from rl_gns.config_rules import validate
from rl_gns.flags import parse, value_of
from rl_gns.options import (
    BenchOptions,
    DoctorOptions,
    PlanOptions,
    SelftestOptions,
    VerifyResumeOptions,
)
from rl_gns.records import to_json
from rl_gns.verbs.places import default_run_dir, default_sweep_dir


def plan(arguments: list[str]) -> int:
    """What a sweep or a run would cost."""
    options = parse(PlanOptions, PlanOptions(), arguments, "rl-gns plan")
    if not options.config:
        raise ConfigError("--config: what is to be planned? A sweep's file or a single run's; sweeps/cartpole is one")
    if options.cluster:
        return _plan_cluster(options)
    for flag, given in (("rates", options.rates), ("learner-rate", options.learner_rate)):
        if given:
            raise ConfigError(f"--{flag}: only read with --cluster; --cluster nodes=100,cpus=64 is one")
    from rl_gns.study.plan import plan_file
    from rl_gns.study.plan_table import show

    def home(run: RunConfig | None) -> Path:
        default = default_run_dir(options.config, run) if run else default_sweep_dir(options.config)
        return Path(options.run_dir) if options.run_dir else default

    reuse = [Path(other) for other in options.reuse]
    found = plan_file(find(options.config), home, options.cells_at_once, reuse, options.seconds, _to_stderr)
    print(json.dumps(to_json(found))) if options.json else show(found)
    return 0


def _plan_cluster(options: PlanOptions) -> int:
    for flag, given in (
        ("run-dir", options.run_dir),
        ("reuse", options.reuse),
        ("cells-at-once", options.cells_at_once),
    ):
        if given:
            raise ConfigError(f"--{flag}: not read with --cluster; leave it out")
    from rl_gns.study.capacity_plan import plan_cluster
    from rl_gns.study.capacity_table import show

    rates = Path(options.rates) if options.rates else None
    file = find(options.config)
    found = plan_cluster(file, options.cluster, rates, options.learner_rate, options.seconds, _to_stderr)
    print(json.dumps(to_json(found))) if options.json else show(found)
    return 0


def _to_stderr(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


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

    lines = examine(validate(options.run))
    print(json.dumps({"lines": to_json(lines)})) if options.json else show(lines)
    return int(any(line.state == "failure" for line in lines))


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
