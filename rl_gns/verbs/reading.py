"""Verbs that only read what is on disk: no torch, no Ray, no game."""

from __future__ import annotations

import json
from pathlib import Path

from rl_gns.config import ConfigError
from rl_gns.flags import directories, parse, taken
from rl_gns.options import (
    FIT_USAGE,
    REPORT_USAGE,
    STATUS_USAGE,
    PredictOptions,
)
from rl_gns.records import to_json
from rl_gns.verbs.places import runs_root


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


def report(arguments: list[str]) -> int:
    """A page, figures and words from run directories alone."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(REPORT_USAGE)
        return 0 if arguments else 2
    arguments, out = taken(arguments, "out")
    paths, given = directories(arguments, ("--force", "--json"), "report")
    if not paths:
        raise ConfigError(f"report: a directory is needed; runs lie in {runs_root()} unless told otherwise")
    from rl_gns.report.page import write
    from rl_gns.study.status import check_directories

    check_directories(paths)
    page, said = write(paths, Path(out) if out else None, "--force" in given)
    if "--json" in given:
        from rl_gns.report.as_json import facts

        print(json.dumps(facts(page, said)))
        return 0
    from rl_gns.report.answer import verdict_words
    from rl_gns.report.found import COMPARE
    from rl_gns.report.summary import words

    of_each = (words(path) for path in paths if not (path / COMPARE).is_file())
    for lines in (said.opening, verdict_words(said.answers), *of_each):
        if lines:
            print("\n".join(lines) + "\n")
    print(f"page: {page}, and beside it every figure as PNG and SVG with its CSV and Markdown table")
    return 0
