"""Learning curves of several runs in one figure: `python -m rl_gns.report.curves OUT.png RUN_DIR [RUN_DIR ...]`."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

from rl_gns.report.figures import BLUE, GREEN, GREY, ORANGE, save, series
from rl_gns.rundir import RunDir

matplotlib.use("Agg")

import matplotlib.pyplot as plt

COLOURS = (BLUE, ORANGE, GREEN, GREY, "#CC79A7", "#56B4E9")


def learning_curves(out: Path, paths: list[Path]) -> Path:
    """Return over env steps and over minutes of the runs' own clocks, one line a run, named by its directory."""
    panels, axes = plt.subplots(1, 2, sharey=True, figsize=(10, 4))
    for path, colour in zip(paths, COLOURS * len(paths), strict=False):
        records = list(RunDir(path).records())
        score, minutes = series(records, "return_mean"), series(records, "seconds").cumsum() / 60
        for panel, along in zip(axes, (series(records, "env_steps"), minutes), strict=True):
            panel.plot(along, score, color=colour, lw=1.2, label=path.name)
    axes[0].set(xlabel="env steps", ylabel="return (mean of the last finished episodes)")
    axes[1].set(xlabel="minutes")
    axes[0].legend(fontsize=8)
    return save(panels, out)


if __name__ == "__main__":
    print(learning_curves(Path(sys.argv[1]), [Path(p) for p in sys.argv[2:]]))
