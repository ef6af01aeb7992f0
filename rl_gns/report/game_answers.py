"""What a comparison of games says of each game's batch size."""

from __future__ import annotations

from typing import Any

from rl_gns.digits import with_interval
from rl_gns.report.answer import NOT_SWEPT, Answer, limits
from rl_gns.report.compared_marks import PART, stage_words
from rl_gns.report.found import FoundComparison
from rl_gns.report.spreads import believed


def of_comparison(found: FoundComparison) -> list[Answer]:
    """A game and stage each."""
    return [_answer(found, each) for each in found.saved["results"]]


def _answer(found: FoundComparison, each: dict[str, Any]) -> Answer:
    saved, said = found.saved, believed(each["noise"][PART])
    fronts = [front for front in saved["fronts"] if front["game"] == each["game"]]
    value, doubt = with_interval(*(said[n] for n in ("b_simple", "low", "high"))), not said["resolved"]
    size = saved["settings"]["batch"]["size"] if saved["settings"] else None
    return Answer(
        env=each["game"],
        what=f"{stage_words(each['stage'])}, {len(each['seeds'])} seeds ({found.name})",
        predicted=f"B_simple {value}{', unresolved' * doubt}",
        swept="; ".join(map(_swept, fronts)) or NOT_SWEPT,
        used=f"{size:,}" if each["stage"] and size else "not trained" if not each["stage"] else "not known",
        useful="not known from noise scales",
        says=f"B_simple of the policy {value} env steps{', unresolved' * doubt}.",
        numbers={
            "stage_env_steps": each["stage"],
            "seeds": each["seeds"],
            "b_simple": limits(said, "b_simple"),
            "predicted_b_crit": limits(None),
            "swept_b_crit": [limits(front) | {"goal_return": front["goal_return"]} for front in fronts],
            "used": {"least": size, "most": size} if each["stage"] else limits(None),
            "largest_useful_batch": limits(None),
        },
        brief=True,
    )


def _swept(front: dict[str, Any]) -> str:
    if front["b_crit"] is None:
        return f"none to {front['goal_return']:g}: {front['no_b_crit'] or 'not known'}"
    knee = with_interval(front["b_crit"], front["low"], front["high"])
    return f"to {front['goal_return']:g}: {knee}{'' if front['resolved'] else ', not resolved'}"
