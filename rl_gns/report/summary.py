"""Plain words about a run, a measurement or a sweep, from its directory alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rl_gns.control_channel import trip_words, tripped
from rl_gns.digits import round3
from rl_gns.noise.pooled_prediction import AGREE_WORDS, hold_against
from rl_gns.on_disk import understood
from rl_gns.report.confounds import LIMITED, confound_table, floor_words
from rl_gns.report.faults import fault_words
from rl_gns.rundir import RunDir, read_json

MOVES_SHOWN = 12

PART_WORDS = {"policy": "policy gradient", "rest": "value and entropy", "total": "whole loss"}


def words(path: Path) -> list[str]:
    """What the directory holds, said in a few lines; ConfigError where it holds neither a run nor a sweep."""
    with understood(path):
        return _words(path)


def _words(path: Path) -> list[str]:
    if (path / "sweep.json").is_file():
        return sweep_words(path)
    result = RunDir(path).read_result()
    lines = run_words(path, result) if result else _so_far(path)
    if (path / "measure.json").is_file():
        lines += measurement_words(read_json(path / "measure.json"))
    return lines


def _so_far(path: Path) -> list[str]:
    config, records = RunDir(path).config(), list(RunDir(path).records())
    done = records[-1]["env_steps"] if records else 0
    lines = [f"{config.env}, seed {config.seed}, in {path}: {done:,} of {config.total_env_steps:,} env steps so far."]
    for part, scale in (records[-1]["noise"] or {}).items() if records else ():
        lines.append(f"  Noise scale of the {PART_WORDS[part]} so far: {scale_words(scale)}.")
    return lines + control_words(records)


def run_words(path: Path, result: dict[str, Any]) -> list[str]:
    """A finished run."""
    score = "no episode finished" if result["return_mean"] is None else f"mean return {result['return_mean']:.2f}"
    lines = [
        f"{result['env']}, seed {result['seed']}, in {path}:",
        f"  {result['env_steps']:,} env steps, {result['optimizer_steps']:,} optimizer steps of "
        f"{result['batch_size']:,} env steps each, {result['seconds']:,.0f} s; {score}.",
    ]
    lines += _moves(path)
    if result["skipped_steps"]:
        lines.append(f"  {result['skipped_steps']} optimizer steps were skipped: their gradient was not finite.")
    lines += fault_words(result)
    if result.get("noise_control_trips"):
        lines += control_words(list(RunDir(path).records()))
    for part, scale in (result["noise"] or {}).items():
        lines.append(f"  Noise scale of the {PART_WORDS[part]} at the end: {scale_words(scale)}.")
    if result["noise"]:
        lines.append(f"  {advice(result['noise']['policy'], result['batch_size'])}")
    return lines


def control_words(records: list[dict[str, Any]]) -> list[str]:
    """What the control channel read wrong at last; nothing where it did not."""
    trips = [record for record in records if tripped(record)]
    if not trips:
        return []
    return [
        f"  The control channel, of known noise scale, read wrong after {len(trips)} rollouts; do not trust the noise "
        f"scales of this run. At last it {trip_words(trips[-1])}."
    ]


def _moves(path: Path) -> list[str]:
    """How the controller changed the batch size, where it did."""
    moved = [r for r in RunDir(path).records() if (r.get("decision") or {}).get("moved")]
    lines = []
    for record in moved[-MOVES_SHOWN:]:
        seen = record["decision"]
        interval = f"{round3(seen['saw_low'])} to {round3(seen['saw_high'])}"
        lines.append(
            f"  From env step {record['env_steps'] - record['used_env_steps']:,} on: B = {seen['got_batch_size']:,}, "
            f"on B_simple = {round3(seen['saw_b_simple'])} ({interval})."
        )
    left_out = len(moved) - len(lines)
    return [f"  The batch size changed {len(moved)} times; the last {len(lines)}:", *lines] if left_out else lines


def measurement_words(measured: dict[str, Any]) -> list[str]:
    """A frozen-policy measurement."""
    policy, scale = measured["policy"], measured["noise"]["policy"]
    lines = [
        f"Frozen policy ({policy}, after {measured['policy_env_steps']:,} env steps of training): "
        f"{scale['env_steps']:,} more env steps in {scale['n_groups']} groups of columns, {measured['seconds']:,.0f} s."
    ]
    for part, each in measured["noise"].items():
        lines.append(f"  Noise scale of the {PART_WORDS[part]}: {scale_words(each)}.")
    if scale["long_run_ratio"] is not None:
        lines.append(
            f"  Long-run over within-rollout noise trace: {scale['long_run_ratio']:.2f} (1: columns do not persist)."
        )
    if measured.get("design_effect") is not None:
        lines.append(f"  {_design_words(measured)}")
    if measured.get("env_steps_needed"):
        lines.append(
            f"  {_precision_words(measured)}: about {round3(measured['env_steps_needed'])} more env steps "
            f"(the half width falls as {measured['law']})."
        )
    if scale.get("batch_size"):
        lines.append(f"  {advice(scale, scale['batch_size'])}")
    return lines + _initialisation_lines(measured.get("initialisations"))


def _design_words(measured: dict[str, Any]) -> str:
    low, high = (measured[f"design_effect_{end}"] for end in ("low", "high"))
    interval = f" ({round3(low)} to {round3(high)})" if low is not None and high is not None else ""
    return (
        f"Groups of columns show {round3(measured['design_effect'])}{interval} times the noise of shuffled "
        f"transitions: so far off is an estimate that shuffles."
    )


def _precision_words(measured: dict[str, Any]) -> str:
    precision = measured["precision"]
    return "Until it resolves" if precision is None else f"Until +-{precision:.0%}"


def _unresolved(reason: str | None) -> str:
    return f", unresolved together: {reason}" if reason else ""


def _initialisation_lines(found: dict[str, Any] | None) -> list[str]:
    """What several fresh policies say together, one line a part that has anything to say."""
    if not found:
        return []
    n, seeds = len(found["seeds"]), found["seeds"]
    lines = [f"  {n} initialisations (seeds {seeds[0]} to {seeds[-1]}), {found['env_steps']:,} env steps in all:"]
    for part, spread in found["spread"].items():
        ends = f"{round3(spread['low'])} to {'no upper limit' if spread['high'] is None else round3(spread['high'])}"
        together = "no estimate" if spread["b_simple"] is None else round3(spread["b_simple"])
        single = ", ".join(
            "none" if scale[part]["b_simple"] is None else round3(scale[part]["b_simple"]) for scale in found["noise"]
        )
        lines.append(
            f"    {PART_WORDS[part]}: {together} env steps ({ends}); "
            f"one by one {single}; {spread['n_resolved']} resolved{_unresolved(spread.get('reason'))}."
        )
    return lines


def scale_words(scale: dict[str, Any]) -> str:
    """`B_simple = 12,000 env steps (95 % interval 8,000 to 20,000)`, or what is known while it is unresolved."""
    if scale["resolved"]:
        return (
            f"B_simple = {round3(scale['b_simple'])} env steps "
            f"({scale['confidence']:.0%} interval {round3(scale['low'])} to {round3(scale['high'])})"
        )
    estimate = "no estimate" if scale["b_simple"] is None else f"estimate {round3(scale['b_simple'])}"
    bound = f"at least {round3(scale['low'])} env steps" if scale["low"] > 0 else "no limit yet"
    more = f"; at least {round3(scale['env_steps_needed'])} more env steps needed" if scale["env_steps_needed"] else ""
    return f"unresolved ({scale['reason']}): {bound}, {estimate}{more}"


def advice(scale: dict[str, Any], batch_size: int) -> str:
    """What the noise scale says about the batch size in use; nothing that the interval does not carry."""
    only_the_signal = not scale["resolved"] and scale["reason"].startswith("signal")
    if scale["low"] > batch_size and (scale["resolved"] or only_the_signal):
        return f"The batch of {batch_size:,} lies below it: a larger batch would still save optimizer steps."
    if scale["resolved"] and scale["high"] < batch_size:
        return f"The batch of {batch_size:,} lies above it: a larger batch would mostly waste env steps."
    return f"Whether the batch of {batch_size:,} is too small or too large, the interval does not tell."


def sweep_words(path: Path) -> list[str]:
    """A sweep's table and knees."""
    saved = read_json(path / "sweep.json")
    config, lines = saved["config"], []
    for front in saved["fronts"]:
        goal, variant = front["goal_return"], front.get("variant", "")
        cells = [c for c in saved["cells"] if (c["goal_return"], c.get("variant", "")) == (goal, variant)]
        judged = {"evaluation": "an evaluation return", "training": "a smoothed training return"}[front["judged_on"]]
        lines += [
            f"{config['env']}{variant and f' ({variant})'} to {judged} of {goal:g}: {front['reached']} of "
            f"{front['cells']} runs got there ({path}).",
            *_collapse_words(front),
            *_table(cells),
            *_knee(front, saved.get("variants", {}).get(variant, saved)["config"]["batch"]["minibatches"]),
            *floor_words(front),
        ]
    lines += confound_table(saved)
    return lines + [f"FAILED: {name}: {reason}" for name, reason in saved["failed"].items()]


def _collapse_words(front: dict[str, Any]) -> list[str]:
    if not front["collapsed"]:
        return []
    share = front["collapsed"] / front["cells"]
    return [f"  {front['collapsed']} runs ({share:.0%}) collapsed: half-way there or more, then half of that lost."]


def _table(cells: list[dict[str, Any]]) -> list[str]:
    head = "  batch size B  learning rate  runs  reached  "
    lines = [head + "optimizer steps S (range)    env steps E (range); geometric means"]
    for size, rate in sorted({(c["batch_size"], c["learning_rate"]) for c in cells}):
        here = [c for c in cells if (c["batch_size"], c["learning_rate"]) == (size, rate)]
        there, mark = [c for c in here if c["reached"]], "*" if here[0]["chosen"] else " "
        lines.append(
            f"  {size:12,}  {rate:12g}{mark}  {len(here):4}  {len(there):7}  {_spread(there, 'optimizer_steps'):27}"
            f"  {_spread(there, 'env_steps')}"
        )
    return [*lines, "  * the learning rate that stands for its batch size: most runs there, then fewest steps"]


def _spread(cells: list[dict[str, Any]], name: str) -> str:
    if not cells:
        return "not reached"
    values = [c[name] for c in cells]
    middle = math.exp(sum(math.log(v) for v in values) / len(values))
    return f"{middle:,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def _knee(front: dict[str, Any], minibatches: int) -> list[str]:
    fit, predicted, lines = front["front"], front["predicted"], []
    if fit is None:
        lines.append(f"  No front: {front.get('no_front') or 'too few runs got there'}.")
    elif front.get("limited_by"):
        floor = f"{round3(fit['s_min'])} optimizer steps"
        lines.append(f"  Swept: {LIMITED}. The floor of S, {floor}, is the clip's; its knee is no critical batch size.")
    else:
        knee = "beyond all batch sizes" if fit["b_crit"] is None else f"{round3(fit['b_crit'])} env steps"
        high = "no upper limit" if fit["high"] is None else round3(fit["high"])
        doubt = "" if fit["resolved"] else f"; not resolved: {fit['reason']}"
        lines.append(
            f"  Swept: B_crit, the batch size at the knee, is {knee} "
            f"({fit['confidence']:.0%} interval {round3(fit['low'])} to {high}{doubt})."
        )
    if front["largest_useful_batch"] is not None:
        lines.append(f"  Largest batch size within 1.2 of the fewest env steps: {front['largest_useful_batch']:,.0f}.")
    if predicted is None:
        lines.append("  Predicted: nothing, the runs' noise scales were not known.")
    elif predicted["b_crit"] is None:
        bound = f"at least {round3(predicted['low'])} env steps" if predicted["low"] else "nothing yet"
        lines.append(f"  Predicted B_crit, from the same runs' noise scales: {bound} ({predicted['n_runs']} runs).")
    else:
        high = "no upper limit" if predicted["high"] is None else round3(predicted["high"])
        limits = f"{predicted['confidence']:.0%} interval {round3(predicted['low'])} to {high}"
        value, runs = round3(predicted["b_crit"]), predicted["n_runs"]
        lines.append(
            f"  Predicted B_crit, from the same runs' noise scales: {value} env steps ({limits}, {runs} runs)."
        )
    held = predicted and fit and not front.get("limited_by")
    return lines + (_held(predicted, fit, minibatches) if held else [])


def agree_words(agree: bool | None, resolved: bool) -> str:
    """Of predicted and swept; a knee that is not resolved has nothing to agree with."""
    return "they do not contradict each other" if agree and not resolved else AGREE_WORDS[agree]


def _held(predicted: dict[str, Any], fit: dict[str, Any], minibatches: int) -> list[str]:
    """Whether the two agree, and both in env steps a rollout where that is another number."""
    held = hold_against(predicted, fit)
    ratio = "unknown" if held.ratio is None else round3(held.ratio)
    high = "no upper limit" if held.high is None else round3(held.high)
    verdict = agree_words(held.agree, fit["resolved"])
    lines = [
        f"  Predicted over swept: {ratio} ({fit['confidence']:.0%} interval {round3(held.low)} to {high}): {verdict}."
    ]
    if minibatches > 1:
        knees = [found["b_crit"] and round3(minibatches * found["b_crit"]) for found in (predicted, fit)]
        lines.append(f"  A rollout, x {minibatches} minibatches: predicted {knees[0] or '?'}, swept {knees[1] or '?'}.")
    return lines
