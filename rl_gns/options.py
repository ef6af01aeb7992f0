"""What each verb reads from its command line; the docstrings are its --help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from rl_gns.config import RunConfig


@dataclass(frozen=True)
class TrainOptions:
    """Train one run. The same command again goes on from the last checkpoint."""

    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)
    config: str = ""
    """A shipped preset (pong, pong_small, cartpole, ...) or a TOML file; flags come on top."""
    run_dir: str = ""
    """Where the run lies; by default named after its settings under $RL_GNS_RUNS or ./runs."""
    tensorboard: bool = False
    """Write RUN_DIR/tensorboard too, for `tensorboard --logdir runs`; needs the extra rl-gns[tensorboard]."""
    json: bool = False
    """Print the result as one JSON object, and nothing else on standard output."""


@dataclass(frozen=True)
class MeasureOptions:
    """Freeze a policy and collect until its noise scale resolves: a run's newest checkpoint, or a fresh policy."""

    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)
    config: str = ""
    """A preset or TOML file for a fresh policy."""
    run_dir: str = ""
    """Measure this run's newest checkpoint with the run's own settings (only --actors is read beside it)."""
    max_env_steps: int = 400_000
    """Stop here if the interval has not resolved (each initialisation, if the policy is fresh)."""
    initialisations: int = 5
    """A fresh policy: measure so many, of this seed and the next ones, each with up to max-env-steps."""
    precision: float = 0.0
    """Go on until the interval is no wider than +- this fraction of B_simple; 0: until it resolves at all."""
    whole: bool = False
    """Spend all of --max-env-steps, wherever it resolves: what stops where it resolves reads somewhat low, and is not
    taken by `compare --reuse`."""
    all: bool = False
    """Also, with the same --max-env-steps again: per layer, in Adam's metric, weighed with the Fisher matrix, by a
    one-step line search, and split by its source. A fresh policy: of the first initialisation."""
    hessian: bool = False
    """With --all: weighed with the surrogate's Hessian too."""
    json: bool = False
    """Print the measurement as one JSON object."""


@dataclass(frozen=True)
class SweepOptions:
    """Run a grid of batch sizes, learning rates and seeds, and fit the knee of its front. The same command again runs
    what is missing. Exit code 1 where a cell failed."""

    config: str = ""
    """A sweep preset (sweeps/cartpole) or a TOML file with a [sweep] table."""
    run_dir: str = ""
    """Where the cells lie; by default named after the file under $RL_GNS_RUNS or ./runs."""
    reuse: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Another sweep's directory, whose finished cells are copied where this grid has the same; may be repeated."""
    cells_at_once: int = 0
    """Cells that run at once, as Ray tasks; 0: as many as there are CPUs for. 1: in turn, in this process, without Ray
    (unless RAY_ADDRESS names a cluster)."""
    json: bool = False
    """Print the fronts and the failed cells as one JSON object."""


@dataclass(frozen=True)
class CompareOptions:
    """Hold games against each other at the same stages of training: the same protocol, seeds and env steps for each.
    The same command again does what is missing. Exit code 1 where a cell failed."""

    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)
    config: str = ""
    """A preset (pong_small) or TOML file whose settings all games share; its world, budget and goals are not read."""
    games: str = "Alien,BeamRider,Breakout,Pong,Qbert,Seaquest,SpaceInvaders"
    """Names with commas between them; by default the paper's seven."""
    stages: str = "fresh,200000"
    """`fresh` and env steps of training, with commas between them."""
    seeds: int = 3
    """Training seeds of each game, from --seed on; fewer than 3 have no interval between seeds."""
    initialisations: int = 5
    """Seeds of the fresh policies, from --seed on."""
    env_steps: int = 300_000
    """Of frozen policy, of each game at each stage, split over its seeds. None is stopped early."""
    run_dir: str = ""
    """Where the cells and compare.json lie; by default named after the settings under $RL_GNS_RUNS or ./runs."""
    reuse: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A directory with runs, measurements or another comparison in or below it, which are taken where a cell's settings
    are theirs; may be repeated."""
    fronts: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A sweep's directory, whose B_crit is to stand beside; may be repeated."""
    force: bool = False
    """Take from --reuse and --fronts what is of another protocol too, and mark it."""
    budget: str = ""
    """A time (10m, 2h) that all is to fit into, by fewer --env-steps; says what precision that bought."""
    cells_at_once: int = 0
    """As for `sweep`."""
    json: bool = False
    """Print compare.json, and nothing else on standard output."""


@dataclass(frozen=True)
class PlanOptions:
    """What a sweep or a single run is going to cost: cells, env steps, time, disk, memory, CPUs. Nothing is started but
    a calibration, and nothing is left."""

    config: str = ""
    """A preset or TOML file, a sweep's or a single run's."""
    run_dir: str = ""
    """Where it would lie: what is finished there costs nothing. By default as `sweep` and `train` have it."""
    reuse: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Another sweep's directory, as for `sweep`; may be repeated."""
    cells_at_once: int = 0
    """As for `sweep`."""
    seconds: float = 30.0
    """That the calibration takes in all, about; 0: none, and no word about time, disk and memory."""
    cluster: str = ""
    """nodes=100,cpus=64[,gpus=8][,network=Gbit/s][,memory=GiB][,actors=cores]: plan a single run there
    instead (nodes alike; cpus, gpus, network and memory of each), from rates that are measured here."""
    rates: str = ""
    """With --cluster: rates from an earlier --json instead of measuring."""
    learner_rate: float = 0.0
    """With --cluster: a learner's valid rows a second of one epoch as measured elsewhere (`bench`); 0: as measured."""
    json: bool = False
    """Print the plan as one JSON object."""


@dataclass(frozen=True)
class BranchOptions:
    """Fork a checkpoint of RUN at several batch sizes over the same env steps, and say which of them lose nothing that
    matters: the batch that is useful near that moment. The same command again runs what is missing. Exit code 1 where
    a branch failed."""

    at: int = 0
    """Fork the newest checkpoint that the run had written by this env step; 0: the newest. A run keeps its last two,
    and those of --checkpoint.keep."""
    batch_sizes: tuple[int, ...] = ()
    """B of the branches, env steps; the reference joins them."""
    reference: int = 0
    """The batch size that all are held against, at the rate in use at the fork; 0: the one in use there."""
    env_steps: int = 0
    """Further env steps of each branch, which ends with the rollout nearest to it; 0: 8 rollouts of the largest."""
    seeds: int = 5
    """Branches of each batch size and rule; fewer than 5 give numbers but no verdict."""
    learning_rate_rules: tuple[Literal["none", "sqrt", "linear"], ...] = ()
    """How the learning rate goes with B / reference; a batch passes under its better rule. None given: none and sqrt
    for Adam, none and linear for the others."""
    tolerance: float = 0.25
    """A batch passes where it surely loses less than this part of the reference's gain. By the model 0.25 marks a third
    of B_crit, 0.5 B_crit itself, where the reference is far below it."""
    evaluation_episodes: int = 0
    """Complete episodes that score a branch at its end; 0: the run's evaluation_episodes."""
    burn_in_env_steps: int = 1024
    """Each new column plays so many under the forked policy before any counts."""
    run_dir: str = ""
    """Where the branches lie; by default in RUN/branches."""
    actors: int = 0
    """Ray actors of each branch that host its collectors; 0: in its own process."""
    cells_at_once: int = 0
    """Branches that run at once, as Ray tasks; as `rl-gns sweep` has it."""
    json: bool = False
    """Print branch.json, and nothing else on standard output."""


@dataclass(frozen=True)
class PredictOptions:
    """The front that noise scales predict, from a directory alone: `rl-gns predict DIR`. A sweep's: each goal, beside
    the knee that it found. A run's; where it is a cell of a sweep, also beside the knees of the goals it reached."""

    run_dir: str = ""
    """The run or the sweep; may be given first, without the flag."""
    part: Literal["policy", "rest", "total"] = "policy"
    """Whose noise scale."""
    until_env_steps: int = 0
    """Up to this E, for the goal that was reached there; 0: to where the run stands."""
    json: bool = False
    """Print the prediction as one JSON object."""


@dataclass(frozen=True)
class VerifyResumeOptions:
    """Train N + M env steps, and again with a kill -9 behind the checkpoint at N: is it the same to the bit? Exit code
    1 where it is not, with the first key that differs."""

    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)
    config: str = "cartpole"
    """A preset or TOML file; flags come on top."""
    first: int = 8000
    """N, env steps to the checkpoint."""
    then: int = 8000
    """M, env steps after it."""
    run_dir: str = ""
    """Keep both runs there; by default they are deleted."""
    json: bool = False
    """Print the verdict as one JSON object."""


@dataclass(frozen=True)
class BenchOptions:
    """Measure how fast each part is alone, the loop end to end, the probe's cost, and bytes an env step.

    Nothing is judged on a machine that others use. Exit code 1 where a judged bound fails.
    """

    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)
    config: str = "pong"
    """A preset or TOML file; the bounds are for pong's sizes."""
    alternations: int = 3
    """Each measures everything once, in turn."""
    profile: bool = False
    """Show where the seconds of a rollout go, and nothing else."""
    json: bool = False
    """Print the result as one JSON object."""


@dataclass(frozen=True)
class DoctorOptions:
    """Is this machine, and the cluster that RAY_ADDRESS names, fit to run on? Exit code 1 on a failure."""

    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)
    config: str = "pong"
    """A preset or TOML file: the run whose object store must fit into shared memory."""
    json: bool = False
    """Print {"lines": [{what, state, found, do}, ...]}; state is ok, warning or failure."""


@dataclass(frozen=True)
class SelftestOptions:
    """Hold the instrument against known answers: no game, one core, about a minute. Exit code 1 if anything is off."""

    json: bool = False
    """Print the result as one JSON object."""


FIT_USAGE = """usage: rl-gns fit POINTS.csv | DIR [--json]

S = S_min (1 + B_crit / B) fitted to every game and goal, by maximum likelihood in ln S, with an interval of B_crit.
POINTS.csv: a line a run; columns game, goal_return, batch_env_steps, optimizer_steps, and where known learning_rate,
epochs, reached (false: stopped at optimizer_steps short of the goal), seed, num_envs, env_steps. DIR: a sweep's.
  --json   a list of objects, units in the names"""

STATUS_USAGE = """usage: rl-gns status DIR [DIR ...] [--watch] [--json]

How runs stand, from their directories alone. DIR is a run's, a sweep's, or any directory with runs below it.
  --watch  look again every 2 s until all have finished (not on a terminal: a line a run and minute)
  --json   one JSON object a run and line, units in the names"""

REPORT_USAGE = """usage: rl-gns report DIR [DIR ...] [--out DIR] [--force] [--json]

Predicted, swept and used batch sizes side by side, then one HTML page (index.html; it fetches nothing) and beside it
each figure as PNG and SVG with its CSV and a Markdown table. DIR is a run's, a sweep's or a comparison's directory.
  --out    where to write; default: DIR/report, of several directories ./report
  --force  draw runs or sweeps of different protocols in one figure, which then says so
  --json   one object: the verdict in numbers, and every file written with what it holds, units in the names"""
