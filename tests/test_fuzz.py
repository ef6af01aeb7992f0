"""Files that users write, and names in them, made by hypothesis: one line of ConfigError or a sound value.

Slow, all fuzz tests together: over 10,000 cases (CASES, here and in test_fuzz_runs)."""

import ast
import copy
import tomllib

import pytest
import tomli_w
from damage import HOSTILE, HUGE, cuts, flips, fuzz, json_values, names, scalars, wrecks, writes_only_below
from hypothesis import strategies as st
from test_architecture import ROOT

from rl_gns.config import ConfigError, RunConfig
from rl_gns.config_file import find, keys, load, load_toml, presets, to_toml
from rl_gns.rundir import RunDir
from rl_gns.study.build import checked
from rl_gns.study.grid import cell_configs, load_grid
from rl_gns.study.points import COLUMNS, GoalRun, read_csv
from rl_gns.study.variants import in_order, load_variants, variant_cells
from rl_gns.verbs.places import default_run_dir, default_sweep_dir

SOME = pytest.param(100, marks=pytest.mark.sampled)
MANY = pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.patient])
CASES = pytest.mark.parametrize("cases", [SOME, MANY], ids=["some", "many"])
FRONTS = (ROOT / "docs/results/paper/mccandlish2018_atari_fronts.csv").read_bytes()
GRID = {"batch_sizes": [64, 256], "learning_rates": [0.001], "seeds": [0, 1]}
SHIPPED = [path.read_bytes() for path in presets().values()]
TABLES = [{}, *map(load_toml, presets().values())]
SETTINGS = [*keys(RunConfig()), "batch", "atari", "base", "nonsense"]


def refused_in_one_line(call, *arguments):
    """What it returns; None where it raised a ConfigError of one printable line."""
    try:
        return call(*arguments)
    except ConfigError as error:
        said = str(error)
        assert said and said.isprintable() and len(said) < 10_000
        return None


def a_run(file):
    return checked(load(file))


def a_sweep(file):
    return in_order(variant_cells(load_variants(file)))


def a_grid(file):
    return cell_configs(*load_grid(file))


def read_as_config(file, content):
    """Every reader of config files on one file; what they accept reads back the same."""
    file.write_bytes(content)
    with writes_only_below(None):
        run = refused_in_one_line(a_run, file)
        cells = [refused_in_one_line(call, file) or {} for call in (a_sweep, a_grid)]
    for config in [run, *cells[0].values(), *cells[1].values()]:
        if config is not None:
            file.write_text(to_toml(config), encoding="utf-8")
            assert a_run(file) == config
    for name in [*cells[0], *cells[1]]:
        assert "/" not in name and name.strip(".") and len(name) < 200


def toml(table):
    """Its text; integers that Python will not print in decimal are written in hexadecimal."""
    return tomli_w.dumps(table).encode()


toml_values = st.recursive(
    scalars | st.datetimes() | st.dates() | st.times(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=10,
)
numbers = (0, 1, 2, 64, 0.5, True)
plausible = st.sampled_from(
    ("Pong", "CartPole", "Bandit", "follow", "linear", *numbers, [1.0, 2.0], [64], {}, {"size": 8})
)
values = toml_values | plausible | st.lists(st.sampled_from(HUGE) | plausible, max_size=3)
more = st.sampled_from([*presets(), *HOSTILE])


@st.composite
def almost_valid(draw):
    """A preset, or the defaults, with some settings replaced; often a sweep's, with variants."""
    table = copy.deepcopy(draw(st.sampled_from(TABLES)))
    if draw(st.booleans()):
        table["goals"], table["sweep"] = [10.0], dict(GRID)
        if draw(st.booleans()):
            table["sweep"][draw(st.sampled_from([*GRID, "max_optimizer_steps"]))] = draw(values)
    if draw(st.integers(0, 2)) == 0:
        table["variants"] = {draw(names): draw(changes()) for _ in range(draw(st.integers(0, 2)))}
    return replaced(table, draw(changes()))


@st.composite
def changes(draw):
    found = {}
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(SETTINGS) | names)
        value = draw(values | more)
        found = replaced(found, {name: value})
    return found


def replaced(table, changed):
    """The table with dotted names set; where a table is in the way of a value, the value wins."""
    for name, value in changed.items():
        *path, leaf = name.split(".") if name in SETTINGS else [name]
        at = table
        for part in path:
            if not isinstance(at.get(part), dict):
                at[part] = {}
            at = at[part]
        at[leaf] = value
    return table


@CASES
def test_any_bytes_as_a_config(cases, tmp_path):
    fuzz(
        cases, st.sampled_from(SHIPPED).flatmap(wrecks), lambda content: read_as_config(tmp_path / "some.toml", content)
    )


@CASES
def test_any_table_as_a_config(cases, tmp_path):
    tables = st.dictionaries(st.sampled_from(["sweep", "variants", *SETTINGS]) | names, toml_values, max_size=4)
    fuzz(cases, tables, lambda table: read_as_config(tmp_path / "some.toml", toml(table)))


@CASES
def test_any_change_of_a_preset(cases, tmp_path):
    fuzz(cases, almost_valid(), lambda table: read_as_config(tmp_path / "some.toml", toml(table)))


@pytest.mark.parametrize(
    "text, complaint",
    [
        (f"seed = {'9' * 5000}", "4300 digits"),
        (f"seed = 0x{'f' * 5000}", "seed: that int has more than 64 bits"),
        (f"seed = [0x{'f' * 5000}]", "seed: that list is no int"),
        (f"a = {'[' * 5000}", "nested too deep"),
        ('"a\\n\\u001b[2J" = 1', r"a \\x1b\[2J: no such setting"),
        ("goals = 'abc'", "goals: 'abc' is no list of numbers"),
        ("[batch]\nsegment-steps = 16\nsegment_steps = 32", "batch.segment_steps: given twice"),
        ("env = 'Pong'\n[batch]\nsegment_steps = 0", "--batch.segment-steps: 0 is too small"),
        ("env = 'Pong'\n[checkpoint]\nexact_resume = true\nevery_env_steps = 0", "--checkpoint.every-env-steps: 0"),
        ("base = 'some.toml'", "neither a preset nor a file"),
        ('base = "a\\u0000b"', "neither a preset nor a file"),
        ("base = '/dev/zero'", "neither a preset nor a file"),
    ],
    ids=lambda text: text[:20],
)
def test_what_was_found_once(tmp_path, text, complaint):
    file = tmp_path / "some.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        a_run(file)
    assert refused_in_one_line(a_run, file) is None


def test_bases_that_go_round_or_down_for_ever(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.toml").write_text(f"base = '{tmp_path}/{(i + 1) % 3}.toml'")
    with pytest.raises(ConfigError, match="stands on this file itself"):
        load(tmp_path / "0.toml")
    for i in range(40):
        (tmp_path / f"{i}.toml").write_text(f"base = '{tmp_path}/{i + 1}.toml'")
    (tmp_path / "40.toml").write_text("seed = 1")
    assert load(tmp_path / "30.toml") == RunConfig(seed=1)
    with pytest.raises(ConfigError, match="16 files deep"):
        load(tmp_path / "0.toml")


def test_a_grid_of_zeros_and_negative_rates_is_refused(tmp_path):
    for line in ("batch_sizes = [0]", "batch_sizes = [-64]", "learning_rates = [-1.0]", "learning_rates = [0.0]"):
        grid = {**GRID, **tomllib.loads(line), "learning_rate_rule": "sqrt"}
        (tmp_path / "some.toml").write_bytes(toml({"goals": [10.0], "sweep": grid}))
        with pytest.raises(ConfigError):
            a_sweep(tmp_path / "some.toml")


def test_directories_named_after_files_lie_where_runs_do(tmp_path, monkeypatch):
    root = tmp_path / "runs"
    monkeypatch.setenv("RL_GNS_RUNS", str(root))
    possible = [each for each in HOSTILE if "\0" not in each]
    for name in [f"{each}.toml" for each in possible] + possible:
        for path in (default_run_dir(name, RunConfig()), refused_in_one_line(default_sweep_dir, name)):
            assert path is None or path.resolve().parent == root.resolve(), name


def test_a_run_directory_of_any_name_is_made_or_refused(tmp_path):
    inside = tmp_path / "a" / "b" / "c"
    inside.mkdir(parents=True)
    for name in HOSTILE:
        if not name.startswith("/"):
            run = RunDir(inside / name / "run")
            with writes_only_below(tmp_path):
                refused_in_one_line(run.open, RunConfig())
            run.close()
        refused_in_one_line(find, name)


def read_as_points(file, content):
    file.write_bytes(content)
    with writes_only_below(None):
        runs = refused_in_one_line(read_csv, file)
    for run in runs or ():
        assert isinstance(run, GoalRun) and run.batch_env_steps >= 1 and run.optimizer_steps >= 1


@CASES
def test_any_bytes_as_points(cases, tmp_path):
    head = b"".join(FRONTS.splitlines(keepends=True)[:12])
    other = head.replace(b",", b";")
    strategy = wrecks(head) | flips(other) | cuts(FRONTS)
    fuzz(cases, strategy, lambda content: read_as_points(tmp_path / "points.csv", content))


@CASES
def test_any_cells_as_points(cases, tmp_path):
    cell = json_values.map(str) | st.sampled_from(
        ("1", "64", "0.5", "nan", "inf", "1e999", "1_0", "٣", "true", '"', ",")
    )
    columns = st.lists(st.sampled_from([*COLUMNS, *COLUMNS, "B", "goal"]), min_size=4, max_size=11, unique=True)
    tables = st.tuples(columns, st.lists(st.lists(cell, min_size=4, max_size=11), max_size=3))

    def write(table):
        text = "\n".join(",".join(line) for line in [table[0], *table[1]])
        read_as_points(tmp_path / "points.csv", text.encode(errors="replace"))

    fuzz(cases, tables, write)


def test_a_long_seed_keeps_its_last_digits(tmp_path):
    lines = "game,goal_return,batch_env_steps,optimizer_steps,seed\nPong,1,64,10,9007199254740993\n"
    (tmp_path / "points.csv").write_text(lines)
    assert read_csv(tmp_path / "points.csv")[0].seed == 9007199254740993


UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "yaml", "jsonpickle"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
TRANSPORT_ONLY = {"rl_gns/study/bench_components.py": {"dumps", "PickleBuffer"}}
"""It times Ray's own serialisation of a block, which meets no disk: what it may use of pickle."""


def unsafe(path, source):
    """`line: what` of everything that would run what it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            allowed = {"pickle"} if path in TRANSPORT_ONLY and isinstance(node, ast.Import) else set()
            taken = {module.split(".")[0] for module in modules} & UNSAFE_MODULES
            found += [f"{node.lineno}: {each}" for each in taken - allowed]
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
            found += [f"{node.lineno}: pickle.{node.attr}"] * (node.attr not in TRANSPORT_ONLY.get(path, ()))
        if isinstance(node, ast.Call):
            called, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            loads = called == "torch.load" and given.get("weights_only") != "True"
            loads |= called.startswith(("np.", "numpy.")) and given.get("allow_pickle", "False") != "False"
            shell = given.get("shell", "False") != "False" or called == "os.system"
            found += [f"{node.lineno}: {called}"] * (called in UNSAFE_CALLS or loads or shell)
    return found


def test_no_source_runs_what_it_reads():
    files = [p for d in ("rl_gns", "envs", "scripts") for p in (ROOT / d).rglob("*") if p.is_file()]
    sources = [p for p in files if p.suffix == ".py" or p.read_bytes().startswith(b"#!/usr/bin/env python3")]
    assert len(sources) > 100
    found = {str(p.relative_to(ROOT)): unsafe(str(p.relative_to(ROOT)), p.read_text(encoding="utf-8")) for p in sources}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "code",
    [
        *("import pickle", "from pickle import loads", "import yaml", "def f():\n    import dill", "eval('1')"),
        *("torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f, allow_pickle=True)", "exec(text)"),
        *("subprocess.run(text, shell=True)", "os.system(text)"),
    ],
)
def test_a_planted_one_is_found(code):
    assert unsafe("rl_gns/rundir.py", code)


def test_what_the_benchmark_may_do_with_pickle_is_writing():
    (path,) = TRANSPORT_ONLY
    assert unsafe(path, "import pickle\npickle.loads(b'')") == ["2: pickle.loads"]
