"""What `rl-gns report --json` prints: the verdict in numbers, and every file that was written with what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rl_gns.report.answer import Answer
from rl_gns.report.drawing import FILES, Drawn
from rl_gns.report.found import FoundComparison, FoundRun
from rl_gns.report.page import VERDICT, Report


def facts(page: Path, report: Report) -> dict[str, Any]:
    """Plain data: numbers of the verdict in env steps, units in the names of columns, null for what is not known."""
    return {
        "page": str(page),
        "verdict_table": str(page.parent / VERDICT),
        "command": report.command,
        "directories": [{"path": str(each.path), "kind": _kind(each)} for each in report.found],
        "forced": report.forced,
        "opening": report.opening,
        "verdict": [_answer(each) for each in report.answers],
        "figures": [_figure(each, page.parent) for each in report.drawn],
        "absent": report.absent,
    }


def _kind(found: Any) -> str:
    return "run" if isinstance(found, FoundRun) else "comparison" if isinstance(found, FoundComparison) else "sweep"


def _answer(answer: Answer) -> dict[str, Any]:
    return {"env": answer.env, "what": answer.what, "says": answer.says, "env_steps": answer.numbers}


def _figure(drawn: Drawn, out: Path) -> dict[str, Any]:
    origin = drawn.origin
    return {
        "name": drawn.name,
        "title": drawn.title,
        "caption": drawn.caption,
        "n": origin.n,
        "seeds": list(origin.seeds),
        "commits": list(origin.commits),
        "commands": list(origin.commands),
        "files": {end: str(out / f"{drawn.name}.{end}") for end in FILES},
        "columns": list(drawn.columns),
        "rows": [list(row) for row in drawn.rows],
    }
