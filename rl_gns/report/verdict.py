"""What a reader came for: the batch size predicted, swept and used, side by side, and no more than is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rl_gns.digits import round3, with_interval
from rl_gns.noise.pooled_prediction import CONFIDENCE
from rl_gns.noise.run_log import run_log
from rl_gns.noise.run_prediction import RunPrediction, predict_run
from rl_gns.on_disk import understood
from rl_gns.report import front_answers, game_answers
from rl_gns.report.answer import NOT_SWEPT, Answer, limits
from rl_gns.report.found import Found, FoundComparison, FoundRun, FoundSweep
from rl_gns.report.summary import advice, control_words, scale_words


def answers(found: Sequence[Found]) -> list[Answer]:
    """Sweeps before runs before comparisons, the answers for one world together, in the order of the directories."""
    kinds = (FoundSweep, front_answers.of_sweep), (FoundRun, _of_run), (FoundComparison, game_answers.of_comparison)
    all_of_them: list[Answer] = []
    for kind, said in kinds:
        for each in (one for one in found if isinstance(one, kind)):
            with understood(each.path):
                all_of_them += said(each)
    worlds = list(dict.fromkeys(answer.env for answer in all_of_them))
    return sorted(all_of_them, key=lambda answer: worlds.index(answer.env))


def _of_run(run: FoundRun) -> list[Answer]:
    sizes = [record["batch_size"] for record in run.records] or [
        (run.result or {}).get("batch_size", run.config.batch.size)
    ]
    found = prediction(run)
    scale, _ = newest_scale(run)
    numbers = {
        "seed": run.config.seed,
        "b_simple": limits(scale, "b_simple"),
        "predicted_b_crit": limits(found and {**vars(found.b_crit), "resolved": found.resolved}, "value"),
        "swept_b_crit": limits(None),
        "used": {"least": min(sizes), "most": max(sizes)},
        "largest_useful_batch": limits(None),
    }
    state = "" if run.result else ", so far"
    answer = Answer(
        env=run.config.env,
        what=f"run {run.name}, seed {run.config.seed}{state}",
        predicted=_run_prediction(scale, found),
        swept=NOT_SWEPT,
        used=_used(sizes),
        useful="not known from one run",
        says=_run_says(run, sizes[-1]),
        numbers=numbers,
    )
    return [answer]


def _used(sizes: list[int]) -> str:
    if len(set(sizes)) == 1:
        return f"{sizes[-1]:,}"
    ends = sorted((sizes[0], sizes[-1])) == [min(sizes), max(sizes)]
    return f"{sizes[0]:,} to {sizes[-1]:,} (controller" + ("" if ends else f"; {min(sizes):,} to {max(sizes):,}") + ")"


def newest_scale(run: FoundRun) -> tuple[dict[str, Any] | None, str]:
    """(the policy's noise scale, of which policy): frozen where it was measured, else pooled at the end of the log."""
    if run.measured:
        return run.measured["noise"]["policy"], f"policy frozen at E = {run.measured['policy_env_steps']:,}"
    last = run.records[-1]["noise"] if run.records else (run.result or {}).get("noise")
    return (last or {}).get("policy"), "pooled at the end of the log"


def _run_prediction(scale: dict[str, Any] | None, found: RunPrediction | None) -> str:
    now = "" if scale is None else f"B_simple {_scale(scale)}"
    if found is None:
        return now or "nothing: its noise scale was not measured"
    knee = with_interval(found.b_crit.value, found.b_crit.low, found.b_crit.high)
    whole = f"B_crit over the run {knee}{'' if found.resolved else ', not resolved'}"
    return f"{now}; {whole}" if now else whole


def prediction(run: FoundRun) -> RunPrediction | None:
    """B_crit that its noise scales predict from its start to its end; None where no probe counts."""
    log = run_log(run.records, "policy") if run.records else None
    if log is None or not len(log.probe):
        return None
    batch = run.config.batch
    return predict_run(log, run.config.noise.window_env_steps, batch.epochs, batch.minibatches, CONFIDENCE)


def _scale(scale: dict[str, Any]) -> str:
    if scale["resolved"]:
        return with_interval(scale["b_simple"], scale["low"], scale["high"])
    least = f"at least {round3(scale['low'])}" if scale["low"] else "no limit yet"
    return f"unresolved, {least}"


def _run_says(run: FoundRun, batch_size: int) -> str:
    scale, which = newest_scale(run)
    if scale is None:
        return "its noise scale was not measured."
    trips = control_words(run.records)
    warning = f" {trips[0].strip()}" if trips else ""
    return f"{scale_words(scale)}, {which}. {advice(scale, batch_size)}{warning}"
