"""What a sweep's fronts say of the batch size, and no more than is known."""

from __future__ import annotations

from typing import Any

import numpy as np

from rl_gns.digits import round3, with_interval
from rl_gns.noise.pooled_prediction import hold_against
from rl_gns.noise.useful import useful_limits
from rl_gns.report.answer import Answer, limits
from rl_gns.report.confounds import LIMITED
from rl_gns.report.found import FoundSweep
from rl_gns.report.summary import agree_words


def of_sweep(found: FoundSweep) -> list[Answer]:
    """A front each; one in all where no cell finished."""
    return [_of_front(found, each) for each in found.fronts] or [_of_none(found)]


def _of_none(found: FoundSweep) -> Answer:
    numbers = {name: limits(None) for name in ("predicted_b_crit", "swept_b_crit", "largest_useful_batch")}
    return Answer(
        env=found.env,
        what=f"every goal ({found.name})",
        predicted="nothing: no run finished",
        swept="no front",
        used="not known",
        useful="not known",
        says=f"not answered: no run of the sweep finished{found.failed_words and ', ' + found.failed_words}.",
        numbers=numbers | {"used": {"least": None, "most": None}},
    )


def _of_front(found: FoundSweep, each: dict[str, Any]) -> Answer:
    variant, sizes = each.get("variant", ""), sorted({cell["batch_size"] for cell in found.cells(each)})
    what = f"{variant}{', ' * bool(variant)}to a return of {each['goal_return']:g} ({found.name})"
    used = f"{sizes[0]:,} to {sizes[-1]:,}, swept" if len(sizes) > 1 else f"{sizes[0]:,}"
    useful = useful_ends(each, found.cells(each))
    numbers = {
        "goal_return": each["goal_return"],
        "predicted_b_crit": limits(each["predicted"]),
        "swept_b_crit": limits(None if each.get("limited_by") else each["front"]),
        "used": {"least": sizes[0], "most": sizes[-1]},
        "largest_useful_batch": {"value": each["largest_useful_batch"], "low": useful[0], "high": useful[1]},
    }
    return Answer(
        found.env, what, _predicted(each), _swept(each), used, _useful(each, sizes, useful), _says(each), numbers
    )


def useful_ends(each: dict[str, Any], cells: list[dict[str, Any]]) -> tuple[float | None, float | None]:
    """The interval of the largest useful batch; None where it is not known, or the cells have too few seeds."""
    if each["largest_useful_batch"] is None:
        return None, None
    names = ("batch_size", "learning_rate", "env_steps", "reached")
    return useful_limits(*(np.array([cell[name] for cell in cells]) for name in names)) or (None, None)


def _predicted(each: dict[str, Any]) -> str:
    if (found := each["predicted"]) is None:
        return "nothing: noise scales not known"
    knee = with_interval(found["b_crit"], found["low"], found["high"])
    return knee if knee != "unknown" else "nothing yet: noise scales too noisy"


def _swept(each: dict[str, Any]) -> str:
    fit = each["front"]
    if each.get("limited_by"):
        return f"none: {LIMITED}"
    if not fit:
        return "no front"
    knee = with_interval(fit["b_crit"], fit["low"], fit["high"])
    return knee if fit["resolved"] else f"{knee}, not resolved"


def _useful(each: dict[str, Any], sizes: list[int], ends: tuple[float | None, float | None]) -> str:
    if (size := each["largest_useful_batch"]) is None:
        return "not known"
    interval = f" [{round3(ends[0])} to {round3(ends[1])}]" if ends[0] is not None and ends[1] is not None else ""
    if size == sizes[-1] and len(sizes) > 1:
        return f"{size:,.0f}{interval} or more: the largest tried"
    return f"{size:,.0f}{interval}{': the smallest tried' if size == sizes[0] else ''}"


def _says(each: dict[str, Any]) -> str:
    fit, predicted = each["front"], each["predicted"]
    if each.get("limited_by"):
        return "the floor of S is the clip's, so the knee is no critical batch size, and nothing is held against it."
    if not fit:
        return f"not answered: {each.get('no_front') or 'too few runs reached the goal'}."
    if fit["resolved"]:
        says = f"the critical batch size is {with_interval(fit['b_crit'], fit['low'], fit['high'])} env steps."
    else:
        says = f"not settled: the swept knee is not resolved ({fit['reason']})."
    return f"{says} {_agreement(predicted, fit)}"


def _agreement(predicted: dict[str, Any] | None, fit: dict[str, Any]) -> str:
    if predicted is None:
        return "Nothing was predicted: the runs' noise scales are not known."
    held = hold_against(predicted, fit)
    if held.ratio is None and held.low == 0:
        return "The prediction says nothing yet, so the two cannot be compared."
    ratio = with_interval(held.ratio, held.low, held.high)
    if held.agree is False:
        return f"Predicted and swept DO NOT AGREE: predicted over swept is {ratio}."
    return f"Predicted over swept is {ratio}: {agree_words(held.agree, fit['resolved'])}."
