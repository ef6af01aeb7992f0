"""The figure of a comparison of games, from a compare.json of known numbers."""

import csv
import json
import shutil
from dataclasses import replace

import pytest
from test_architecture import ROOT

from rl_gns.cli import main
from rl_gns.comparison import ComparedCell, FrontBeside, GameAtStage, GamesCompared, PaperValue
from rl_gns.config import ConfigError
from rl_gns.measurement import Pooled
from rl_gns.records import NoiseScale, to_json
from rl_gns.report import compared as compared_figure
from rl_gns.report import drawing, game_answers, games, protocols
from rl_gns.report.found import look
from rl_gns.report.page import look_at_all, write
from rl_gns.rundir import write_json

PARTS = ("policy", "rest", "total")


def scale(part, b_simple, high):
    resolved = high is not None
    return NoiseScale(
        part, 1.0, b_simple, b_simple, b_simple / 2, high, 0.95, resolved, None, 0, 16, 1000, 4, 0, 0, "frozen"
    )


def pooled(b_simple, high):
    low, resolved = (b_simple or 8.0) / 2, high is not None
    reason, seeds = None if resolved else "no upper end between seeds", (b_simple, b_simple, 2, 2, 0.1, 0.1)
    return Pooled(b_simple, low, high, resolved, reason, "seeds", low, high, low, high, resolved, *seeds)


def at_stage(game, b_simple, high):
    noise = {part: pooled(b_simple, high) for part in PARTS}
    cells = [f"{game}-{seed}" for seed in (0, 1)]
    return GameAtStage(game, 0, [0, 1], cells, 2000, noise, None, 0.5, 1.0, 0.9, 1.1, 1.0, -20.0, -21.0, -19.0, "ours")


def cell(game, seed, b_simple):
    noise = {part: scale(part, b_simple, 2 * b_simple) for part in PARTS}
    after = (1000, 1.0, 0.9, 1.1, 1.0, 3.0, "ours", {}, None, None, None, None)
    return ComparedCell(f"{game}-{seed}", game, 0, seed, 0, -20.0, 3, None, noise, *after)


@pytest.fixture
def compared(tmp_path):
    def made(forced=(), results=True, fronts=()):
        games = ["Pong", "Qbert"]
        record = GamesCompared(
            version=2,
            command=["rl-gns", "compare", "--games", "Pong,Qbert"],
            provenance={"commit": "0123456789abcdef"},
            games=games,
            stages=[0],
            training_seeds=[0, 1, 2],
            initialisations=[0, 1],
            env_steps=2000,
            confidence=0.95,
            settings={},
            results=[at_stage("Pong", 40_000.0, None), at_stage("Qbert", 5_000.0, 9_000.0)] if results else [],
            cells=[cell(game, seed, 4000.0 + seed) for game in games for seed in (0, 1)] if results else [],
            fronts=list(fronts),
            paper=[PaperValue("Pong", 500.0, 2600.0, 100.0, 900.0, -17.0, 17.0, "A2C", "read off a figure")],
            forced=list(forced),
            missing={},
            budget=None,
        )
        write_json(tmp_path / "compare.json", to_json(record))
        return tmp_path

    return made


def test_games_stand_beside_each_other(compared, capsys):
    path = compared()
    assert main(["report", str(path)]) == 0
    said = capsys.readouterr().out
    assert ": B_simple of the policy 40,000 [20,000 to no upper limit] env steps, unresolved." in said
    assert (
        "<td" in (page := (path / "report" / "index.html").read_text())
        and "B_simple 5,000 [2,500 to 9,000]</td>" in page
    )
    out = path / "report"
    with open(out / "games.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    together = [r for r in rows if r["seed"] == "all" and r["part"] == "policy"]
    assert [(r["game"], r["b_simple_env_steps"], r["high"]) for r in together] == [
        ("Pong", "40000.0", ""),
        ("Qbert", "5000.0", "9000.0"),
    ]
    assert len([r for r in rows if r["seed"] != "all"]) == 4 * len(PARTS)
    words = (out / "games.md").read_text()
    assert (
        "500, 2,600" in words
        and "commit of the measurements: not recorded in the directory; pooled at 0123456" in words
        and "The paper's, another protocol: A2C" in words
    )
    assert "FORCED" not in (out / "games.svg").read_text()


COMMITTED = ROOT / "docs" / "results" / "2026-11-23-compare"


def lines_of(axes, marker):
    """(x, y, hollow) of what is drawn with that marker, the legend's empty lines left out."""
    kept = [line for line in axes.lines if line.get_marker() == marker and len(line.get_xdata())]
    hollow = [line.get_markerfacecolor() in (drawing.PAPER, "none") for line in kept]
    return [(list(line.get_xdata()), list(line.get_ydata()), h) for line, h in zip(kept, hollow, strict=True)]


def test_an_interval_is_the_wider_of_both_and_resolved_only_where_both_are():
    """Space Invaders' fresh policies: none resolves, their estimates lie close together by chance."""
    found = look(COMMITTED)
    (its,) = [e for e in found.saved["results"] if (e["game"], e["stage"]) == ("SpaceInvaders", 0)]
    pooled = its["noise"]["policy"]
    assert pooled["between_high"] is not None and not pooled["within_resolved"], "what the rule is about"
    drawn = compared_figure.figure(found, "games")
    row = dict(
        zip(drawn.columns, next(r for r in drawn.rows if r[:4] == ("SpaceInvaders", 0, "policy", "all")), strict=True)
    )
    assert (row["low"], row["high"], row["resolved"]) == (pooled["within_low"], None, False)
    assert (row["between_low"], row["between_high"]) == (pooled["between_low"], pooled["between_high"])
    (cells,) = [line for line in drawn.table.lines if line[:2] == ("SpaceInvaders", "fresh")]
    assert cells[2] == "66,500 [32,200 to no upper limit], unresolved: no upper end within seeds"
    assert cells[3] == "34,700 to 783,000"
    (answer,) = [a for a in game_answers.of_comparison(found) if a.env == "SpaceInvaders" and "fresh" in a.what]
    assert "66,500 [32,200 to no upper limit] env steps, unresolved" in answer.says
    assert answer.numbers["b_simple"] == {
        "value": pooled["b_simple"],
        "low": pooled["within_low"],
        "high": None,
        "resolved": False,
    }
    axes = drawn.figure.axes[0]
    (hollow,) = [h for x, y, h in lines_of(axes, "o") + lines_of(axes, "s") if x == [pooled["b_simple"]]]
    assert hollow


def test_a_comparison_opens_with_what_it_says_as_a_whole(compared, capsys):
    """Which games resolve, the least and the largest, and which changed."""
    (said,) = game_answers.opening(look(COMMITTED))
    assert (
        "Fresh, resolved in 3 of 7 games, from Qbert 7,190 [4,410 to 19,500] to Alien 36,500 [24,600 to 70,200]; of "
        "the others only lower limits are known, the highest 48,600 (Breakout)." in said
    )
    assert "After 200,000 env steps, resolved in 1 of 7 games: Alien 35,000 [21,600 to 92,100]; " in said
    grew = "Qbert x 3.58 [1.03 to no upper limit] and Seaquest x 6.6 [1.8 to no upper limit]"
    assert said.endswith(f"the 95% interval of each game by itself: above 1 in {grew}, below 1 in none.")
    assert main(["report", str(compared())]) == 0
    ours = "Fresh, resolved in 1 of 2 games: Qbert 5,000 [2,500 to 9,000]; "
    first = capsys.readouterr().out.splitlines()[0]
    assert ours in first and f"<p>{first}</p>" in (compared() / "report" / "index.html").read_text()


def test_every_policy_has_its_mark():
    """A dot at its estimate, else an arrow at its lower limit."""
    found = look(COMMITTED)
    axes = compared_figure.figure(found, "games").figure.axes[0]
    scales = [cell["noise"]["policy"] for cell in found.saved["cells"]]
    small = [line for line in axes.lines if line.get_alpha() == 0.6 and line.get_marker() in "o>"]
    drawn = {m: sorted(x for line in small if line.get_marker() == m for x in line.get_xdata()) for m in "o>"}
    assert drawn["o"] == sorted(s["b_simple"] for s in scales if s["b_simple"])
    assert drawn[">"] == sorted(s["low"] for s in scales if not s["b_simple"]) and len(drawn[">"]) == 6
    assert len(drawn["o"]) + len(drawn[">"]) == len(scales) == 56
    _, words = axes.get_legend_handles_labels()
    assert {"fresh", "after 200,000 env steps", "hollow: unresolved", "dot: one policy"} <= set(words)


def test_the_reason_is_said_where_it_is_known(compared):
    path = compared()
    saved = json.loads((path / "compare.json").read_text())
    saved["results"][0]["noise"]["policy"]["reason"] = "between seeds: signal's interval touches zero"
    write_json(path / "compare.json", saved)
    drawn = compared_figure.figure(look(path), "games")
    assert drawn.table.lines[0][2].endswith(", unresolved: between seeds: signal's interval touches zero")
    assert drawn.rows[0][8] == "between seeds: signal's interval touches zero"


def test_the_commits_are_those_of_the_measurements(compared):
    """And seeds are named by stage, where the stages have not the same."""
    path = compared()
    saved = json.loads((path / "compare.json").read_text())
    for each, commit in zip(saved["cells"], ("a" * 40, "b" * 40, None, "a" * 40), strict=True):
        each["commit"] = commit
    saved["cells"][3] |= {"stage": 200_000, "seed": 2}
    write_json(path / "compare.json", saved)
    assert compared_figure.figure(look(path), "games").origin.words() == (
        "n = 4 policies; fresh seeds 0, 1, after 200,000 env steps seed 2; commit of the measurements: aaaaaaa, "
        "bbbbbbb; commit of 1 of them not recorded; pooled at 0123456."
    )


def test_a_forced_comparison_says_so_on_the_figure(compared):
    page, _ = write([compared(["Qbert: learner.gamma: 0.99 there, 0.9 here"])])
    assert "FORCED: mixed protocols" in (page.parent / "games.svg").read_text()


def front(goal_return, b_crit, forced=None):
    knee = (b_crit, b_crit and b_crit / 2, b_crit and 3 * b_crit, b_crit is not None, None if b_crit else "too few")
    return FrontBeside(
        "Pong", "runs/pong", goal_return, "", *knee, 0.9, 3000.0, 1000.0, 9000.0, None, None, "theirs", forced
    )


def test_fronts_beside_the_games_are_drawn(compared):
    """Those with both numbers; where one was forced in, the figure says so."""
    page, said = write(
        [compared(fronts=[front(-19.0, 1500.0, "learner.gamma: 0.99 there, 0.9 here"), front(-15.0, None)])]
    )
    with open(page.parent / "predicted-swept.csv", encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["game"], row["sweep"], row["goal_return"], row["swept_b_crit_env_steps"]) == (
        "Pong",
        "pong",
        "-19.0",
        "1500.0",
    )
    assert float(row["ratio"]) == pytest.approx(2.0)
    assert "FORCED" in (page.parent / "predicted-swept.svg").read_text()
    swept = {each.env: each.swept for each in said.answers}
    assert swept == {"Pong": "to -19: 1,500 [750 to 4,500]; none to -15: too few", "Qbert": "not swept"}


def test_a_sweep_that_a_comparison_names_is_drawn_once(compared):
    """And a sweep of another protocol than the comparison's is refused."""
    path = compared(fronts=[front(-19.0, 1500.0)])
    pair = games.pairs([look(path)])
    assert games.pairs([look(path), look(path)]) == pair and len(pair) == 1
    with pytest.raises(ConfigError, match=r"mixed protocols: batch\.epochs: 4 there, 1 here"):
        protocols.check([look(path), look(ROOT / "docs" / "results" / "2026-11-23-breakout-front")], force=False)


BREAKOUT = ROOT / "docs" / "results" / "2026-11-23-breakout-front"


def test_sweeps_of_one_name_are_all_drawn(tmp_path):
    """Two places hold a directory `front`: four goals, told apart by the shortest end of the path; a path to one of
    them that reads otherwise is no third."""
    for place in ("seed0", "seed1"):
        (tmp_path / place / "front").mkdir(parents=True)
        shutil.copy(BREAKOUT / "sweep.json", tmp_path / place / "front")
    (tmp_path / "link").symlink_to(tmp_path / "seed1" / "front")
    paths = [tmp_path / name for name in ("seed0/front", "seed1/front", "link", "seed0/../seed0/front")]
    found = look_at_all(paths)
    assert [each.name for each in found] == ["seed0/front", "seed1/front"]
    drawn = games.games(found, "predicted-swept")
    assert [row[1] for row in drawn.rows] == ["seed0/front"] * 2 + ["seed1/front"] * 2
    assert len({line[0] for line in drawn.table.lines}) == 2 and drawn.origin.n == "4 fronts of 2 sweeps"


def test_a_sweep_that_was_moved_since_a_comparison_named_it_is_drawn_once(compared, tmp_path):
    saved = json.loads((BREAKOUT / "sweep.json").read_text())["fronts"][0]
    swept, predicted = saved["front"], saved["predicted"]
    knee = (swept["b_crit"], swept["low"], swept["high"], swept["resolved"], None, 0.9)
    ends = (predicted["b_crit"], predicted["low"], predicted["high"])
    moved = FrontBeside("Breakout", f"runs/{BREAKOUT.name}", 2.0, "", *knee, *ends, None, None, "ours", None)
    other = replace(moved, predicted=2 * ends[0])
    both = [look(BREAKOUT), look(compared(fronts=[moved]))]
    assert [pair.sweep for pair in games.pairs(both)] == [BREAKOUT.name] * 2
    both[1] = look(compared(fronts=[other]))
    assert [pair.sweep for pair in games.pairs(both)] == [f"results/{BREAKOUT.name}"] * 2 + [f"runs/{BREAKOUT.name}"]


def test_a_comparison_without_a_measurement_is_said(compared):
    path = compared(results=False)
    page, _ = write([path])
    assert "no comparison: no game has a measurement yet" in page.read_text() and look(path).saved["results"] == []
