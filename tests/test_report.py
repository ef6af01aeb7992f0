"""The page and its files from directories alone: what is drawn lies on disk, and no more is said than is known."""

import csv
import dataclasses
import json
import re
import shutil

import pytest
from test_architecture import ROOT
from tiny import CARTPOLE, config

from rl_gns.cli import main
from rl_gns.config import ConfigError
from rl_gns.report import controller, curves, drawing, front_figures, names, protocols
from rl_gns.report.found import Origin, look, seeds_words
from rl_gns.report.maps import squares
from rl_gns.report.page import write
from rl_gns.rundir import RunDir
from rl_gns.study.status import survey
from rl_gns.study.train import train

RESULTS = ROOT / "docs" / "results"
BREAKOUT, OLD, CONFOUNDS = (
    RESULTS / name
    for name in ("2026-11-23-breakout-front", "2026-11-23-cartpole-sweep", "2026-11-23-cartpole-confounds")
)
MEASURED = RESULTS / "2026-11-23-noise-scales" / "Pong-seed1"
FOLLOW = {"total_env_steps": 6000, "control": {"policy": "follow", "max_batch_size": 512}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run whose controller may move the batch size, under a name that means something to a browser."""
    path = tmp_path_factory.mktemp("runs") / "<script>alert(1)&amp;"
    train(config(CARTPOLE, FOLLOW), path)
    return path


@pytest.fixture(scope="module")
def both(run, tmp_path_factory):
    """(the page's folder, its text) of that run and a committed sweep."""
    out = tmp_path_factory.mktemp("report")
    page, _ = write([run, BREAKOUT], out)
    return out, page.read_text(encoding="utf-8")


def lines(file):
    with open(file, encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def test_every_figure_has_its_files_and_says_where_it_is_from(both, run):
    out, text = both
    names = set(re.findall(r'<section id="([^"]+)">', text))
    own = {f"{drawing.slug(run.name)}--{name}" for name in ("noise", "controller")}
    assert names == own | {
        f"{BREAKOUT.name}--front",
        f"{BREAKOUT.name}--speed-up",
        "learning-curves",
        "predicted-swept",
    }
    for name in names:
        picture, drawing_alone = (out / f"{name}.png").read_bytes(), (out / f"{name}.svg").read_text()
        for signed in (picture.decode("latin-1"), drawing_alone):
            assert "commit of the runs: " in signed and "; seed 0; " in signed and "Remade by rl-gns report " in signed
        assert (out / f"{name}.svg").read_text().startswith("<?xml") and lines(out / f"{name}.csv")
        words = (out / f"{name}.md").read_text()
        assert re.search(r"n = \d+ .*; seeds? 0; commit of the runs: [0-9a-f]{7}", words), words
        assert f"rl-gns report '{run}' {BREAKOUT}" in words and "| ---" in words
    assert "Runs: <code>rl-gns sweep --config paper/breakout_first" in text


@pytest.mark.slow
def test_the_same_directories_give_the_same_bytes(both, run, tmp_path):
    out, _ = both
    again = tmp_path / "again"
    write([run, BREAKOUT], again)
    different = [f.name for f in sorted(out.iterdir()) if f.read_bytes() != (again / f.name).read_bytes()]
    named = {f.name for f in out.iterdir() if str(out) in f.read_text(errors="ignore")}
    assert set(different) == named, "nothing but the command that names the folder"


def test_names_are_escaped_and_ids_are_unique(both):
    _, text = both
    assert "<script" not in text.lower() and "&lt;script&gt;alert(1)&amp;amp;" in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)) > 100
    pointed = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', text))
    assert pointed and pointed <= set(ids)
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', text)
    assert drawing.INK not in text.split("</style>", 1)[1] and "var(--ink)" in text


def test_what_is_drawn_of_a_front_is_in_sweep_json(both):
    out, _ = both
    saved = json.loads((BREAKOUT / "sweep.json").read_text())
    drawn = lines(out / f"{BREAKOUT.name}--front.csv")
    assert [(float(d["optimizer_steps"]), float(d["env_steps"])) for d in drawn] == [
        (cell["optimizer_steps"], cell["env_steps"]) for cell in saved["cells"] if cell["chosen"]
    ]
    held = lines(out / "predicted-swept.csv")
    assert [float(each["ratio"]) for each in held] == [
        pytest.approx(front["predicted"]["b_crit"] / front["front"]["b_crit"]) for front in saved["fronts"]
    ]
    first = [d for d in lines(out / f"{BREAKOUT.name}--speed-up.csv") if d["goal_return"] == "2.0"]
    steps = {c["batch_env_steps"]: c["optimizer_steps"] for c in saved["cells"] if c["goal_return"] == 2}
    assert {float(d["batch_env_steps"]): float(d["speed_up"]) for d in first} == pytest.approx(
        {size: steps[min(steps)] / its for size, its in steps.items()}
    )


def test_a_runs_figures_are_its_records(both, run):
    out, _ = both
    records = list(RunDir(run).records())
    drawn = lines(out / f"{drawing.slug(run.name)}--noise.csv")
    assert [int(d["env_steps"]) for d in drawn] == [record["env_steps"] for record in records]
    known = [(record["noise"] or {}).get("policy", {}).get("b_simple") for record in records]
    assert [d["b_simple_policy_env_steps"] for d in drawn] == ["" if b is None else str(b) for b in known]
    assert any(known)
    moves = [d for d in lines(out / f"{drawing.slug(run.name)}--controller.csv") if d["moved"] == "True"]
    assert len(moves) == RunDir(run).read_result()["batch_size_moves"]


def test_what_a_controller_saw_once_is_drawn(run):
    """Resolved between two that are not: a dot and a bar, since a line and a band have no width there."""
    found = look(run)
    records = [json.loads(json.dumps(record)) for record in found.records[:5]]
    for i, record in enumerate(records):
        saw = {"saw_b_simple": 200.0, "saw_low": 100.0, "saw_high": 400.0, "target_batch_size": 150.0}
        record["decision"] |= {"saw_resolved": i == 2, "moved": i == 2, **(saw if i == 2 else dict.fromkeys(saw))}
    drawn = controller.decisions(dataclasses.replace(found, records=records), "controller")
    axes = drawn.figure.axes[0]
    begun = records[2]["env_steps"] - records[2]["used_env_steps"]
    dots = {line.get_label(): line for line in axes.lines if line.get_marker() == "." and line.get_markevery() == [2]}
    for label, value in (("wanted: kappa x B_simple", 150.0), ("B_simple seen", 200.0)):
        assert (dots[label].get_xdata()[2], dots[label].get_ydata()[2]) == (begun, value)
    (bars,) = [each for each in axes.collections if hasattr(each, "get_segments")]
    assert [segment.tolist() for segment in bars.get_segments()] == [[[begun, 100.0], [begun, 400.0]]]
    (moved,) = [line for line in axes.lines if line.get_label() == "moved"]
    (row,) = [row for row in drawn.rows if row[-2]]
    assert list(moved.get_xdata()) == [row[drawn.columns.index("begun_env_steps")]] == [begun]


def test_a_run_whose_log_is_gone_still_has_its_numbers(tmp_path):
    page, said = write([MEASURED], tmp_path)
    text = page.read_text()
    assert (
        said.answers[0].predicted.startswith("B_simple 14,000 [9,860 to 23,900]")
        and "metrics.jsonl is not here" in text
    )
    assert "14,000 [9,860 to 23,900]" in text and not list(tmp_path.glob("*.png"))


def test_the_edge_of_the_rates_is_flagged():
    found = look(CONFOUNDS)
    for front in found.fronts:
        its = squares(found.cells(front))
        for size in {square.batch_size for square in its}:
            tried = sorted(square.learning_rate for square in its if square.batch_size == size)
            (chosen,) = [square for square in its if square.batch_size == size and square.chosen]
            assert chosen.edge == (chosen.learning_rate in (tried[0], tried[-1]))
    assert sum(square.edge for front in found.fronts for square in squares(found.cells(front))) > 3


def test_mixed_protocols_are_refused_or_marked(tmp_path, capsys):
    assert main(["report", str(BREAKOUT), str(OLD), "--out", str(tmp_path / "out")]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "mixed protocols: batch.segment_steps: 5 there, 8 here" in said and "--force" in said
    assert not (tmp_path / "out").exists()
    page, _ = write([BREAKOUT, OLD], tmp_path / "out", force=True)
    assert "FORCED: mixed protocols" in (page.parent / "predicted-swept.svg").read_text()
    assert "FORCED" not in (page.parent / f"{BREAKOUT.name}--front.svg").read_text()
    assert page.read_text().count("batch.segment_steps: 5 there, 8 here") >= 2, "on the page and on the figure"


def test_runs_in_one_world_are_compared_and_others_are_not(run, tmp_path):
    other = config(CARTPOLE, {"learner": {"gamma": 0.9}, "total_env_steps": 600})
    train(other, tmp_path / "other")
    with pytest.raises(ConfigError, match=r"learner\.gamma: 0\.99 there, 0\.9 here"):
        protocols.check([look(run), look(tmp_path / "other")], force=False)
    assert protocols.check([look(run), look(BREAKOUT), look(MEASURED)], force=False) == []


def test_the_flags_of_report(capsys, tmp_path):
    assert main(["report"]) == 2 and main(["report", "--help"]) == 0
    capsys.readouterr()
    assert main(["report", "--forse", str(BREAKOUT)]) == 2
    assert "the nearest is --force" in capsys.readouterr().err
    assert main(["report", f"--out={tmp_path}", str(BREAKOUT)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Breakout, to a return of 2") and f"page: {tmp_path}/index.html" in said


def test_runs_of_one_name_have_a_line_and_a_name_each(run, tmp_path):
    """In the learning curves, their legend and their file, and in the names of their own figures."""
    for place in ("one", "two"):
        shutil.copytree(run, tmp_path / place / "run")
    _, said = write([tmp_path / "one" / "run", tmp_path / "two" / "run"], tmp_path / "out")
    drawn = {each.name: each for each in said.drawn}
    both = drawn["learning-curves"]
    assert {row[1] for row in both.rows} == {"one/run", "two/run"}
    axes = both.figure.axes[0]
    looks = {(line.get_label(), line.get_color(), line.get_linestyle()) for line in axes.lines}
    assert {label for label, _, _ in looks} == {"one/run", "two/run"}
    assert len({colour for _, colour, _ in looks}) == len({dashes for _, _, dashes in looks}) == 2
    assert {"one-run--noise", "two-run--noise"} <= set(drawn)
    assert [answer.what.split(",")[0] for answer in said.answers] == ["run one/run", "run two/run"]


def test_names_are_the_shortest_ends_that_differ(tmp_path):
    ends = ("a/run", "b/run", "other", "a/x/run")
    assert names.distinct([tmp_path / end for end in ends]) == ["a/run", "b/run", "other", "x/run"]
    assert names.distinct([tmp_path / "a", tmp_path / "b" / ".." / "a"]) == ["a", "a"]


def test_waves_are_part_of_the_protocol():
    """The same columns again in a rollout are correlated: another key, also beside runs from before there were any."""
    config = look(MEASURED).config
    twice = dataclasses.replace(config, rollout=dataclasses.replace(config.rollout, waves=2))
    hosted = dataclasses.replace(config, rollout=dataclasses.replace(config.rollout, columns_per_collector=99))
    others = [dataclasses.replace(look(MEASURED), config=each) for each in (hosted, twice)]
    with pytest.raises(ConfigError, match=r"rollout\.waves: 1 there, 2 here"):
        protocols.check([look(MEASURED), *others], force=False)
    assert len(protocols.check([look(MEASURED), *others], force=True)) == 1, "which hosts whom is no protocol"


def test_json_has_the_verdict_in_numbers_and_every_file(capsys, tmp_path):
    assert main(["report", str(BREAKOUT), "--json", "--out", str(tmp_path)]) == 0
    said = json.loads(capsys.readouterr().out)
    saved = json.loads((BREAKOUT / "sweep.json").read_text())
    for answer, front in zip(said["verdict"], saved["fronts"], strict=True):
        numbers = answer["env_steps"]
        assert [numbers["swept_b_crit"][n] for n in ("value", "low", "high")] == [
            front["front"][n] for n in ("b_crit", "low", "high")
        ]
        assert numbers["predicted_b_crit"]["value"] == front["predicted"]["b_crit"]
        assert numbers["largest_useful_batch"] == {"value": front["largest_useful_batch"], "low": None, "high": None}
        assert numbers["used"] == {"least": 40, "most": 1280} and not numbers["swept_b_crit"]["resolved"]
    written = {said["page"], said["verdict_table"]} | {f for each in said["figures"] for f in each["files"].values()}
    assert written == {str(path) for path in tmp_path.iterdir()}
    for each in said["figures"]:
        assert len(lines(each["files"]["csv"])) == len(each["rows"]) > 0
        assert each["seeds"] == [0] and each["commits"] == ["cf79d2d"] and len(each["commands"]) == 2


def test_where_report_writes_is_no_run(tmp_path):
    """`status` counts no run in it, and a job's upload leaves the folder of several directories out."""
    shutil.copytree(MEASURED, tmp_path / "runs" / "pong")
    write([tmp_path / "runs" / "pong"])
    write([tmp_path / "runs" / "pong", BREAKOUT], tmp_path / "runs" / "report")
    assert [each.name for each in survey([tmp_path / "runs"])] == ["pong"]
    assert "/report" in (ROOT / ".rayignore").read_text().split()


def test_a_cell_that_ended_no_episode_has_no_curve(run, tmp_path):
    """Chosen cells of a sweep may be too short for a return; an empty log is one too."""
    shutil.copy(OLD / "sweep.json", tmp_path)
    name = next(cell["name"] for cell in look(OLD).cells() if cell["chosen"])
    shutil.copytree(run, tmp_path / name)
    assert [each.name for each in look(tmp_path).chosen_runs] == [name]
    assert curves.of_sweep(look(tmp_path), "curves").origin.n == "1 run"
    (tmp_path / name / "metrics.jsonl").write_text("")
    assert curves.of_sweep(look(tmp_path), "curves") is None


def test_commands_that_are_left_out_are_counted(tmp_path):
    origin = Origin("9 runs", (0,), ("cf79d2d",), tuple(f"rl-gns train --seed {seed}" for seed in range(9)))
    assert len(origin.first_commands) == 4 and origin.more_commands.startswith("And 5 commands more: ")
    assert dataclasses.replace(origin, commands=origin.commands[:4]).more_commands == ""
    with drawing.styled():
        drawn = dataclasses.replace(front_figures.front(look(BREAKOUT), "front"), origin=origin)
        drawing.write(drawn, tmp_path, "rl-gns report")
    words = (tmp_path / "front.md").read_text()
    assert words.count("Runs: `") == 4 and "And 5 commands more: `rl-gns report --json` names all." in words


def test_small_words():
    assert [drawing.short(v) for v in (0.001, 20, 1500, 3e6)] == ["0.001", "20", "1.5k", "3M"]
    assert (
        seeds_words((3,)) == "seed 3"
        and seeds_words((0, 1, 2)) == "seeds 0 to 2"
        and seeds_words((0, 2)) == "seeds 0, 2"
    )
    assert drawing.slug("../<a b>/é") == "a-b" and drawing.slug("///") == "run"
    kept = drawing.thinned(range(5000), [i == 1234 for i in range(5000)])
    assert len(kept) < 602 + 2 and {0, 1234, 4999} <= set(kept)
