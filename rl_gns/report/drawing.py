"""How every figure is drawn, described and written: one style, one palette, PNG, SVG, CSV and a Markdown table."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from rl_gns.report.found import Origin
from rl_gns.rundir import write_text

INK, SOFT, FAINT, PAPER = "#1c1c1e", "#6b6b70", "#d9d9dd", "#fffffe"
BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER)
"""Okabe and Ito's palette: told apart by colour-blind readers too; a marker and a dash go with each."""
MARKERS, DASHES = "osD^vP", ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)))
NAMES = ("ink", "soft", "faint", "paper", "blue", "orange", "green", "purple", "sky", "amber")
VARIABLES = dict(zip((INK, SOFT, FAINT, PAPER, *COLOURS), NAMES, strict=True))
"""Colour -> the page's CSS variable for it, which dark mode sets anew."""
WIDTH = 5.6
"""Inches: the page draws no figure narrower than 560 px, so that 7-point words are 9.7 px high or more."""
MOST_POINTS = 600
"""Of one line of a figure: more cannot be told apart (a choice)."""
FILES = ("png", "svg", "csv", "md")
"""What a figure is written as."""
SIGNATURE_SIZE, SIGNATURE_CHARACTERS, SIGNATURE_LINES = 5.5, 118, 4
"""Points, characters a line and lines of what stands below a figure in its own files: as many as fit `WIDTH`."""

STYLE: dict[str, Any] = {
    "axes.edgecolor": SOFT,
    "axes.facecolor": PAPER,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.unicode_minus": True,
    "figure.facecolor": PAPER,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": SOFT,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.color": SOFT,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8,
}


@dataclass(frozen=True)
class Table:
    """Strings under a head."""

    head: tuple[str, ...]
    lines: list[tuple[str, ...]]

    def markdown(self) -> str:
        rows = [self.head, ("---",) * len(self.head), *self.lines]
        return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)


@dataclass(frozen=True)
class Drawn:
    """One figure, and all that goes with it."""

    name: str
    """Of its files, without an end."""
    title: str
    figure: Figure
    columns: tuple[str, ...]
    """Of the CSV file, units in the names."""
    rows: list[tuple[Any, ...]]
    """What is drawn, a line each; None is an empty cell."""
    table: Table
    caption: str
    origin: Origin


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """The style of all figures; they must be made and written inside it."""
    with matplotlib.rc_context(STYLE):
        yield


def panels(rows: int = 1, columns: int = 1, height: float = 3.6, **kwargs: Any) -> tuple[Figure, Any]:
    """(figure, axes), `height` inches in all."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **kwargs)


def log_axis(axes: Axes, which: str) -> None:
    """A logarithmic axis whose ticks read 20, 1k, 3M."""
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    decades = math.log10(high / low) if 0 < low < high else 1.0
    subs = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.3 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(NullFormatter())


def plain_axis(axes: Axes, which: str) -> None:
    """A linear axis whose ticks read 20, 1k, 3M."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def short(value: float) -> str:
    """`1k`, `1.5M`: at most three digits and a letter."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def legend_below(figure: Figure, axes: Axes, columns: int = 1) -> None:
    """What the axes name, once each, under all panels."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        once = dict(zip(labels, handles, strict=True))
        figure.legend(once.values(), once.keys(), loc="outside lower left", ncols=columns)


def slug(name: str) -> str:
    """Letters, digits, points, dashes: fit for a file and for an id."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:60] or "run"


def thinned(items: Sequence[Any], keep: Sequence[bool] | None = None) -> list[Any]:
    """Every k-th item so that about `MOST_POINTS` are left, the last one and those of `keep`."""
    step = math.ceil(len(items) / MOST_POINTS)
    return [x for i, x in enumerate(items) if i % step == 0 or i == len(items) - 1 or (keep is not None and keep[i])]


def mark_forced(figure: Figure, differences: Sequence[str]) -> None:
    """Say on the figure itself that it mixes protocols."""
    if differences:
        lines = [part for line in differences[:3] for part in textwrap.wrap(line, 84)]
        words = "\n".join(["FORCED: mixed protocols, not a like-for-like comparison", *lines])
        figure.suptitle(words, color=ORANGE, fontsize=8, x=0.02, ha="left", weight="bold")


def write(drawn: Drawn, out: Path, remake: str) -> str:
    """NAME.png, .svg, .csv and .md in `out`, the pictures signed with n, seeds, commit and `remake`; returns the SVG's
    text as it may stand in a page beside others, unsigned: there the caption says it."""
    origin = f"{drawn.origin.words()} Remade by {remake}."
    about = {"Title": drawn.title, "Description": f"{drawn.caption} {origin}"}
    with matplotlib.rc_context({"svg.hashsalt": drawn.name}):
        drawn.figure.draw_without_rendering()
        drawn.figure.set_layout_engine("none")  # the places that were found serve every file
        alone = _svg(drawn.figure, {})
        wide = _signed(drawn.figure, origin)
        drawn.figure.savefig(out / f"{drawn.name}.png", bbox_inches=wide, metadata={"Software": None, **about})
        write_text(out / f"{drawn.name}.svg", _svg(drawn.figure, about, bbox_inches=wide))
    write_text(out / f"{drawn.name}.csv", _csv(drawn))
    runs = [*map("Runs: `{}`.".format, drawn.origin.first_commands), drawn.origin.more_commands]
    notes = [drawn.caption, drawn.origin.words(), f"Remade by `{remake}`.", *filter(None, runs)]
    write_text(out / f"{drawn.name}.md", f"# {drawn.title}\n\n{drawn.table.markdown()}\n" + "\n\n".join(notes) + "\n")
    return inline(alone, drawn.name, drawn.title)


def _svg(figure: Figure, about: dict[str, str], **kwargs: Any) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, **about}, **kwargs)
    return text.getvalue()


def _signed(figure: Figure, words: str) -> Bbox:
    """Write the words below the figure; returns the box, in inches, that holds both."""
    lines = textwrap.wrap(words, SIGNATURE_CHARACTERS, max_lines=SIGNATURE_LINES, placeholder=" ... (see the .md)")
    for legend in figure.legends:  # else it goes to the corner of the larger box
        legend.set_bbox_to_anchor((0, 0, 1, 1), transform=figure.transFigure)
    wide, tall = figure.get_size_inches()
    below = 0.12 * len(lines) + 0.06
    place = {"fontsize": SIGNATURE_SIZE, "color": SOFT, "va": "top", "linespacing": 1.25, "parse_math": False}
    figure.text(0.06 / wide, -0.02 / tall, "\n".join(lines), **place)
    return Bbox([[0.0, -below], [wide, tall]])


def _csv(drawn: Drawn) -> str:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(drawn.columns)
    lines.writerows(drawn.rows)
    return text.getvalue()


def inline(svg: str, name: str, title: str) -> str:
    """An SVG file's element alone: ids that are no other figure's, colours as CSS variables, no size of its own."""
    body = svg[svg.index("<svg ") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.S)
    body = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", body)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    label = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    head, rest = body.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    return f'<svg {box[0] if box else ""} role="img" aria-label="{label}">{rest}'
