"""What a comparison of games says of each game's batch size."""

from __future__ import annotations

from typing import Any

from rl_gns.digits import round3, with_interval
from rl_gns.noise.scale import hopeless_of
from rl_gns.report.answer import NOT_SWEPT, Answer, limits
from rl_gns.report.compared_marks import PART, stage_words
from rl_gns.report.found import FoundComparison

LIMITS, RATIO = ("b_simple", "low", "high"), ("value", "low", "high")


def of_comparison(found: FoundComparison) -> list[Answer]:
    """A game and stage each."""
    return [_answer(found, each) for each in found.saved["results"]]


def opening(found: FoundComparison) -> list[str]:
    """In a line: which games resolve at each stage, the least and the largest noise scale, and which changed."""
    results = found.saved["results"]
    stages = sorted({each["stage"] for each in results})
    of_stages = [_of_stage(stage, [each for each in results if each["stage"] == stage]) for stage in stages]
    words = filter(None, [*of_stages, _growth(results, found.saved["confidence"])])
    return [f"B_simple of the policy gradient in env steps ({found.name}). {' '.join(words)}"] if results else []


def _of_stage(stage: int, results: list[dict[str, Any]]) -> str:
    said = {each["game"]: each["noise"][PART] for each in results}
    sure = sorted((each["b_simple"], game) for game, each in said.items() if each["resolved"])
    open_ended = {game: each for game, each in said.items() if not each["resolved"] and not hopeless_of(each["reason"])}
    floors = [(each["low"], game) for game, each in open_ended.items() if each["low"]]
    head = f"{stage_words(stage).capitalize()}, resolved in {len(sure)} of {len(said)} games"
    names = [f"{game} {with_interval(*(said[game][n] for n in LIMITS))}" for _, game in sure]
    ends = f": {names[0]}" if len(names) == 1 else f", from {names[0]} to {names[-1]}" if names else ""
    if not floors:
        return f"{head}{ends}."
    low, game = max(floors)
    return f"{head}{ends}; of the others only lower limits are known, the highest {round3(low)} ({game})."


def _growth(results: list[dict[str, Any]], confidence: float) -> str:
    """In which games the interval of the ratio to the fresh policies excludes 1, each game by itself."""
    known = [(each, each["growth"][PART]) for each in results if each["growth"] and each["growth"].get(PART)]
    if not known:
        return ""
    several = len({each["stage"] for each, _ in known}) > 1
    grew = [_times(*pair, several) for pair in known if pair[1]["low"] > 1]
    fell = [_times(*pair, several) for pair in known if pair[1]["high"] is not None and pair[1]["high"] < 1]
    return (
        f"Over that of the fresh policies, the {confidence:.0%} interval of each game by itself: above 1 in "
        f"{_listed(grew)}, below 1 in {_listed(fell)}."
    )


def _times(each: dict[str, Any], growth: dict[str, Any], several: bool) -> str:
    when = f" ({stage_words(each['stage'])})" if several else ""
    return f"{each['game']}{when} x {with_interval(*(growth[n] for n in RATIO))}"


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]])) or "none"


def _answer(found: FoundComparison, each: dict[str, Any]) -> Answer:
    saved, said = found.saved, each["noise"][PART]
    fronts = [front for front in saved["fronts"] if front["game"] == each["game"]]
    value, doubt = with_interval(*(said[n] for n in LIMITS)), not said["resolved"]
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
