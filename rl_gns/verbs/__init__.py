"""The verbs, by name. The only room where study meets report."""

from __future__ import annotations

from collections.abc import Callable

from rl_gns.verbs.checking import bench, doctor, plan, selftest, verify_resume
from rl_gns.verbs.reading import fit, predict, report, status
from rl_gns.verbs.running import branch, compare, measure, sweep, train

VERBS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "train": (train, "train one run, measuring its noise scale; again: go on"),
    "measure": (measure, "freeze a policy and collect until its noise scale resolves"),
    "sweep": (sweep, "a grid of batch sizes, learning rates and seeds, and the knee of the front"),
    "plan": (plan, "what a sweep or a run will cost: cells, env steps, time, disk, memory, CPUs"),
    "branch": (branch, "fork a run at several batch sizes: the largest that is useful near one moment"),
    "compare": (compare, "games beside each other: noise scales at the same stages, seeds and protocol"),
    "fit": (fit, "the knee of every front in a file of runs, with its interval"),
    "predict": (predict, "the front that a run's noise scales predict; of a sweep, beside its knee"),
    "status": (status, "how runs stand, from their directories alone"),
    "selftest": (selftest, "estimates against known answers, without a game; exit code 1 if anything is off"),
    "verify-resume": (verify_resume, "a run killed and gone on, against an unbroken one: the same bits?"),
    "doctor": (doctor, "is this machine, and the cluster at RAY_ADDRESS, fit to run on? exit code 1 on a failure"),
    "bench": (bench, "how fast each part and the whole are, and what the probe costs"),
    "report": (report, "one HTML page, figures and words from run directories: predicted, swept, used"),
}

AGAIN = dict.fromkeys(
    ("train", "sweep", "branch", "compare"), "run the same command again to go on from the last checkpoint"
)
AGAIN |= {
    "verify-resume": "nothing was kept",
    "measure": "finished initialisations of a fresh policy are kept, the rest starts anew",
    "bench": "nothing was kept",
    "plan": "nothing was kept",
}
