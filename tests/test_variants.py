"""A sweep's variants: what its file may say, one clip that does nothing and one that acts, and who sees the verdict."""

import csv
import dataclasses
import json

import pytest
import tomli_w
from test_sweep import QUICK, Heard
from tiny import CARTPOLE, config, numbers, replaced

from rl_gns.cli import main
from rl_gns.config import ConfigError
from rl_gns.config_file import find
from rl_gns.noise import fit_front
from rl_gns.report.confounds import COLUMNS, confound_table
from rl_gns.report.page import write
from rl_gns.report.summary import words
from rl_gns.rundir import RunDir, write_json
from rl_gns.study.confounds import clip_families, verdicts
from rl_gns.study.fit import fit
from rl_gns.study.grid import Grid, cell_configs, load_grid
from rl_gns.study.limits import limit_means
from rl_gns.study.sweep import sweep
from rl_gns.study.variants import in_order, load_variants, variant_cells

TABLE = {
    **CARTPOLE,
    "goals": [15.0],
    "total_env_steps": 1500,
    "evaluation_episodes": 4,
    "batch": {**CARTPOLE["batch"], **QUICK["batch"]},
    "learner": {**CARTPOLE["learner"], "clip_range": 0.2},
    "noise": {"every": 0},
    "sweep": {"batch_sizes": [64, 128, 256], "learning_rates": [1e-2], "seeds": [0]},
}
VARIANTS = {
    "a2c": {"learner": {"clip_range": 0.0}},
    "ppo1": {},
    "ppo1_wide": {"learner": {"clip_range": 0.4}},
    "ppo4": {"batch": {"epochs": 4}},
    "ppo4_wide": {"batch": {"epochs": 4}, "learner": {"clip_range": 0.4}, "sweep": {"seeds": [0]}},
}


def written(path, **tables):
    path.write_text(tomli_w.dumps(TABLE | tables))
    return path


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of five variants, three batch sizes each."""
    path = tmp_path_factory.mktemp("confounds")
    file = written(path / "grid.toml", variants=VARIANTS)
    result = sweep(*load_grid(file), path / "sweep", Heard(), cells_at_once=1, variants=load_variants(file))
    assert result.failed == {}
    return path / "sweep", result, variant_cells(load_variants(file))


def test_where_every_ratio_is_one_the_clip_does_nothing(swept):
    """One epoch, one minibatch: no clip, 0.2 and 0.4 give the same records, bit for bit, and the same front. With four
    epochs they do not."""
    path, result, cells = swept
    runs = {name: [[numbers(r) for r in RunDir(path / cell).records()] for cell in its] for name, its in cells.items()}
    assert runs["a2c"] == runs["ppo1"] == runs["ppo1_wide"] and len(runs["a2c"]) == 3
    assert runs["ppo4"] != runs["ppo4_wide"]
    fronts = {f.variant: f for f in result.fronts}
    assert fronts["a2c"].front == fronts["ppo1"].front == fronts["ppo1_wide"].front
    for name in ("ppo1", "ppo1_wide"):
        assert fronts[name].trust_region.verdict == "not limited" and fronts[name].limited_by is None
        assert "the same runs" in fronts[name].trust_region.reason
    assert fronts["a2c"].trust_region.reason == "there is no clip"
    assert fronts["ppo4"].trust_region.wider == "ppo4_wide", "never held against another number of epochs"


def test_how_hard_runs_met_their_limits_is_kept(swept):
    path, result, cells = swept
    fronts = {f.variant: f for f in result.fronts}
    assert [at.batch_size for at in fronts["ppo4"].limits_met] == [64, 128, 256]
    largest = fronts["ppo4"].limits_met[-1]
    (cell,) = [
        c
        for c in json.loads((path / "sweep.json").read_text())["cells"]
        if c["name"] in cells["ppo4"] and c["batch_size"] == 256
    ]
    before = [r for r in RunDir(path / cell["name"]).records() if r["optimizer_steps"] <= cell["optimizer_steps"]]
    if before:
        assert largest.clip_fraction == pytest.approx(sum(r["clip_fraction"] for r in before) / len(before))
    assert all(at.clip_fraction in (0, None) for at in fronts["ppo1"].limits_met)


def test_means_are_of_the_steps_to_the_goal():
    records = [
        {"optimizer_steps": s, "approx_kl": kl, "clip_fraction": 0.1, "grad_clip_fraction": None}
        for s, kl in ((4, 0.01), (8, 0.03), (12, 9.0))
    ]
    assert limit_means(records, 8.5) == {
        "approx_kl": pytest.approx(0.02),
        "clip_fraction": pytest.approx(0.1),
        "grad_clip_fraction": None,
    }
    assert set(limit_means(records, 3).values()) == {None}


def test_points_fit_and_report_name_the_variant(swept, capsys):
    path, result, _ = swept
    lines = list(csv.DictReader((path / "points.csv").open()))
    assert len(lines) == 15 and list(lines[0])[-1] == "variant"
    assert {(line["variant"], line["epochs"]) for line in lines} == {
        ("a2c", "1"), ("ppo1", "1"), ("ppo1_wide", "1"), ("ppo4", "4"), ("ppo4_wide", "4"),
    }  # fmt: skip
    fitted = fit(path)
    assert [f["variant"] for f in fitted] == [f.variant for f in result.fronts]
    for of_points, of_sweep in zip(fitted, result.fronts, strict=True):
        assert of_points["limited_by"] == of_sweep.limited_by
        if of_sweep.front:
            assert of_points["s_min"] == pytest.approx(of_sweep.front.s_min, rel=1e-6)
            assert of_points["trust_region"]["verdict"] == of_sweep.trust_region.verdict
    assert main(["fit", str(path)]) == 0
    assert "limited by the trust region: no (there is no clip)" in " ".join(capsys.readouterr().out.split())
    said = "\n".join(words(path))
    assert "CartPole (ppo4_wide) to an evaluation return of 15" in said and "| 15 | a2c | 1 | none |" in said
    assert (write([path])[0].parent / "front.png").stat().st_size > 10_000


def saved_with(narrow, wide):
    """sweep.json of two clips whose fronts have these floors."""
    settings = config(CARTPOLE, {"batch": QUICK["batch"] | {"epochs": 4}})
    clips = {
        name: replaced(settings, learner=replaced(settings.learner, clip_range=clip))
        for name, clip in (("ppo4", 0.2), ("ppo4_wide", 0.4))
    }
    sizes = [64.0, 128.0, 256.0, 512.0, 1024.0]
    fronts = {
        (name, 9.0): fit_front(sizes, [s * (1 + 100 / b) for b in sizes], 4)
        for name, s in (("ppo4", narrow), ("ppo4_wide", wide))
    }
    said = verdicts(fronts, clips)
    met = {"batch_size": 1024, "approx_kl": 0.0123, "clip_fraction": 0.25, "grad_clip_fraction": 0}
    return {
        "variants": {name: {"config": dataclasses.asdict(c)} for name, c in clips.items()},
        "fronts": [
            {
                "goal_return": goal,
                "variant": name,
                "reached": 5,
                "cells": 5,
                "front": dataclasses.asdict(front),
                "limits_met": [met],
                "limited_by": said[name, goal].limited_by,
                "trust_region": dataclasses.asdict(said[name, goal]),
            }
            for (name, goal), front in fronts.items()
        ],
    }


def test_a_floor_of_the_clip_is_not_called_a_critical_batch():
    saved = saved_with(120.0, 50.0)
    assert {f["limited_by"] for f in saved["fronts"]} == {"trust region"}
    assert all(f["front"]["b_crit"] == pytest.approx(100) for f in saved["fronts"]), "the fit's knee rides along"
    _, _, narrow, wide = confound_table(saved)
    for row in (narrow, wide):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[COLUMNS.index("B_crit (90 %)")] == "trust-region limited" and "100 [" not in row
        assert cells[-5:] == ["1,024", "0.012", "25.0%", "0.0%", "yes"]
    assert "100 [" in confound_table(saved_with(50.0, 50.0))[2]


@pytest.mark.parametrize(("wide", "limited"), [(50.0, True), (120.0, False)])
def test_no_prediction_is_held_against_a_floor_of_the_clip(tmp_path, capsys, wide, limited):
    saved = saved_with(120.0, wide)
    known = {"s_min": 60.0, "e_min": 1500.0, "b_crit": 100.0, "low": 50.0, "high": 200.0, "gamma": 0.9, "covered": 1.0}
    prediction = {**known, "epochs": 4, "minibatches": 1}
    cells = [
        {"goal_return": 9.0, "variant": name, "batch_size": size, "chosen": True, "reached": True}
        | {"prediction": prediction}
        for name in saved["variants"]
        for size in (64, 128, 256)
    ]
    config_there = saved["variants"]["ppo4"]["config"]
    write_json(tmp_path / "sweep.json", saved | {"config": config_there, "cells": cells, "failed": {}})
    assert main(["predict", "--run-dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert ("trust-region limited: no B_crit" in said) is limited
    assert ("they agree" in said) is not limited and "predicted from 3 runs" in said


def test_a_sweeps_cells_keep_their_names(tmp_path):
    """Variants or none, a cell is the same experiment: what a plain sweep has run is found."""
    settings, grid = load_grid(written(tmp_path / "plain.toml"))
    plain = cell_configs(settings, grid)
    assert variant_cells(load_variants(tmp_path / "plain.toml")) == {"": plain}
    cells = variant_cells(load_variants(written(tmp_path / "grid.toml", variants=VARIANTS)))
    assert cells["ppo1"] == plain and len(in_order(cells)) == 15


def test_all_fronts_of_a_seed_run_before_the_next(tmp_path):
    seeds = TABLE["sweep"] | {"seeds": [3, 1]}
    variants = load_variants(written(tmp_path / "grid.toml", sweep=seeds, variants={"a": {}, "b": VARIANTS["ppo4"]}))
    cells = in_order(variant_cells(variants))
    assert [(c.seed, c.batch.epochs) for c in cells.values()] == [
        (s, e) for s in (3, 1) for e in (1, 4) for _ in range(3)
    ]


def test_families_differ_in_nothing_but_the_clip(tmp_path):
    variants = load_variants(written(tmp_path / "grid.toml", variants=VARIANTS))
    configs = {name: each for name, (each, _) in variants.items()}
    assert clip_families(configs) == [
        {"a2c": 0.0, "ppo1": 0.2, "ppo1_wide": 0.4},
        {"ppo4": 0.2, "ppo4_wide": 0.4},
    ]
    other = replaced(configs["ppo4"], learner=replaced(configs["ppo4"].learner, clip_range=0.8, entropy_coef=0.5))
    assert clip_families({"ppo4": configs["ppo4"], "other": other}) == []
    assert clip_families({"slow": configs["ppo4"], "fast": configs["ppo4"]}) == [], "one clip, two grids"


@pytest.mark.parametrize(
    ("variants", "said"),
    [
        ({"a": {"learner": {"clip_rang": 0.1}}}, "variants.a.learner.clip_rang: no such setting"),
        ({"a": {"goals": [3.0]}}, "variants.a.goals: all variants share it"),
        ({"a": {"sweep": {"seed": [1]}}}, "variants.a.sweep.seed: no such setting"),
        ({"a": {"sweep": 3}}, "variants.a.sweep: 3 is not a table"),
        ({"a b": {}}, "'a b': a name has letters"),
        ({"a": 3}, "needs tables"),
        ({}, "needs tables"),
        ({"a": {}, "b": {}}, "variants.b: the same experiment as variants.a"),
    ],
)
def test_a_variant_that_cannot_be_is_one_line(tmp_path, variants, said):
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        variant_cells(load_variants(written(tmp_path / "grid.toml", variants=variants)))


def test_the_shipped_confounds_are_what_they_say():
    variants = load_variants(find("sweeps/cartpole_confounds"))
    families = clip_families({name: each for name, (each, _) in variants.items()})
    assert {"a2c": 0.0, "ppo1": 0.2} in families
    clips = next(f for f in families if "ppo4" in f)
    assert clips["ppo4_wide"] == 2 * clips["ppo4"]
    assert {c.learner.optimizer for c in in_order(variant_cells(variants)).values()} == {"adam"}
    assert Grid(**dataclasses.asdict(variants["ppo4"][1])) == variants["ppo4_wide"][1]
