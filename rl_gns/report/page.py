"""`rl-gns report`: one self-contained HTML page from directories alone, and every figure as files beside it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2

from rl_gns.on_disk import understood
from rl_gns.report import (
    compared,
    controller,
    curves,
    drawing,
    front_figures,
    game_answers,
    games,
    maps,
    names,
    noise_figures,
    protocols,
)
from rl_gns.report import speed_up as speed_ups
from rl_gns.report.answer import Answer, verdict_table
from rl_gns.report.confounds import confound_table
from rl_gns.report.drawing import Drawn, Table
from rl_gns.report.found import Found, FoundComparison, FoundRun, FoundSweep, look
from rl_gns.report.verdict import answers
from rl_gns.rundir import write_text

PAGE, VERDICT = "index.html", "verdict.md"


@dataclass(frozen=True)
class Report:
    """What one page says."""

    found: list[Found]
    answers: list[Answer]
    opening: list[str]
    """What each comparison of games says as a whole."""
    drawn: list[Drawn]
    absent: list[str]
    """A line for each figure that is not there: what is missing."""
    forced: list[str]
    """How the protocols differ that stand in one figure."""
    command: str
    """That makes the page again."""


def gather(paths: Sequence[Path], force: bool = False, out: Path | None = None) -> Report:
    """Read every directory and draw all that they hold; ConfigError names the first that is nothing whole, and the
    first difference between protocols, unless forced. To be called in `drawing.styled()`."""
    found = look_at_all(paths)
    forced = protocols.check(found, force)
    drawn: list[Drawn] = []
    absent: list[str] = []
    for each, prefix in zip(found, _prefixes(found), strict=True):
        with understood(each.path):
            for figure, missing in _own_figures(each, prefix):
                if figure is None:
                    absent.append(f"{each.name}: {missing}")
                else:
                    drawn.append(figure)
    said = answers(found)
    with understood(Path(" and ".join(str(each.path) for each in found))):
        opening = [line for each in found if isinstance(each, FoundComparison) for line in game_answers.opening(each)]
        drawn = [*_together(found, absent), *drawn] if len(found) > 1 else drawn + _together(found, absent)
    flags = (["--out", str(out)] if out else []) + ["--force"] * force
    command = shlex.join(["rl-gns", "report", *map(str, paths), *flags])
    return Report(found, said, opening, drawn, absent, forced, command)


def look_at_all(paths: Sequence[Path]) -> list[Found]:
    """Every directory once, under names that are no other's."""
    paths = names.once(paths)
    return [replace(look(path), label=name) for path, name in zip(paths, names.distinct(paths), strict=True)]


def _prefixes(found: Sequence[Found]) -> list[str]:
    """What the names of each directory's figures begin with: nothing for one alone, else its own name, made unique."""
    if len(found) == 1:
        return [""]
    taken: list[str] = []
    for each in found:
        name = drawing.slug(each.name)
        taken.append(name if name not in taken else f"{name}-{len(taken) + 1}")
    return [f"{name}--" for name in taken]


def _own_figures(each: Found, prefix: str) -> Iterator[tuple[Drawn | None, str]]:
    """(figure or None, what is missing where there is none) of one directory."""
    if isinstance(each, FoundSweep):
        if each.failed_words:
            yield None, each.failed_words
        if not each.fronts:
            yield None, "no front: no run finished"
            return
        yield front_figures.front(each, f"{prefix}front"), ""
        yield speed_ups.speed_up(each, f"{prefix}speed-up"), "no speed-up: no goal was reached at two batch sizes"
        yield maps.rate_map(each, f"{prefix}rates"), "no map of learning rates: one rate at each batch size"
        yield curves.of_sweep(each, f"{prefix}curves"), "no learning curves: the runs' own logs are not kept here"
    elif isinstance(each, FoundRun):
        if not each.records:
            yield None, "no curves: metrics.jsonl is not here"
            return
        yield noise_figures.noise(each, f"{prefix}noise"), "no noise scale over training: it was not measured"
        if each.config.control.policy != "fixed":
            yield controller.decisions(each, f"{prefix}controller"), "no decisions: none was recorded"
    elif isinstance(each, FoundComparison):
        yield compared.figure(each, f"{prefix}games"), "no comparison: no game has a measurement yet"


def _together(found: Sequence[Found], absent: list[str]) -> list[Drawn]:
    """What several directories say side by side."""
    runs = [each for each in found if isinstance(each, FoundRun)]
    sweeps = [each for each in found if isinstance(each, FoundSweep)]
    drawn = curves.of_runs(runs, "learning-curves")
    beside = [each for each in found if isinstance(each, FoundComparison) and each.saved["fronts"]]
    if sweeps or beside:
        held = games.games([*sweeps, *beside], "predicted-swept")
        if held is None:
            absent.append("no figure of predicted against swept: no goal has both a swept and a predicted knee")
        else:
            drawn.append(held)
    return drawn


def write(paths: Sequence[Path], out: Path | None = None, force: bool = False) -> tuple[Path, Report]:
    """(the page, what it says): everything is written to `out`, by default `report` in the only directory that was
    named, or here."""
    place = out or (paths[0] / "report" if len(paths) == 1 else Path("report"))
    with drawing.styled():
        report = gather(paths, force, out)
        place.mkdir(parents=True, exist_ok=True)
        svgs = [drawing.write(drawn, place, report.command) for drawn in report.drawn]
    write_text(place / VERDICT, verdict_table(report.answers).markdown() if report.answers else "")
    write_text(place / PAGE, render(report, svgs))
    return place / PAGE, report


def render(report: Report, svgs: Sequence[str]) -> str:
    """The page: figures inside it, nothing fetched; all words escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rl_gns.report", ""), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    titles = [each.name for each in report.found]
    return environment.get_template("page.html.j2").render(
        title=", ".join(titles[:4]) + (f" and {len(titles) - 4} more" if len(titles) > 4 else ""),
        report=report,
        figures=list(zip(report.drawn, svgs, strict=True)),
        confounds=[_confounds(each) for each in report.found if isinstance(each, FoundSweep) and _confounds(each)],
        verdict_head=verdict_table(report.answers).head,
    )


def _confounds(found: FoundSweep) -> Table | None:
    """The variants' table, split into cells again."""
    lines = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in confound_table(found.saved)]
    return Table(lines[0], lines[2:]) if lines else None
