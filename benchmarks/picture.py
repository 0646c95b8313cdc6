"""Draws the figures of the benchmarks.

Bars begin at zero. On a logarithmic axis, where nothing begins at zero, there are points instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no window
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.kit import Figure, number


@dataclass(frozen=True)
class Panel:
    """Those figures of one benchmark that have one unit, but for those with `without` in their name."""

    benchmark: str
    unit: str
    axis: str
    logarithmic: bool = False
    without: str = "/"


PANELS = (
    Panel("sending", "events/s", "events a second (logarithmic)", logarithmic=True, without="at the limit"),
    Panel("pace", "/s", "requests a second"),
    Panel("disturbed", "/s", "requests a second, disturbed"),
    Panel("ledger", "events/s", "events a second"),
    Panel("enqueue", "rows/s", "rows a second"),
    Panel("hour", "s", "seconds (logarithmic)", logarithmic=True),
    Panel("latency", "s", "seconds (logarithmic)", logarithmic=True),
    Panel("airflow", "s", "seconds"),
)

COLOUR, OURS = "#8a94a6", "#2563a8"
MARK = "this project"


def draw(told: Mapping[str, tuple[str, Sequence[Figure]]], file: Path) -> None:
    """told: title and figures by benchmark. Panels that have no figures are left out."""
    shown = []
    for panel in PANELS:
        title, figures = told.get(panel.benchmark, ("", []))
        of_unit = [figure for figure in figures if figure.unit == panel.unit and figure.value > 0]
        chosen = [figure for figure in of_unit if not figure.is_detail and panel.without not in figure.name]
        if chosen:
            shown.append((panel, title, chosen))
    if not shown:
        return
    heights = [0.28 * len(chosen) + 1.1 for _, _, chosen in shown]
    canvas, axes = pyplot.subplots(
        len(shown), figsize=(10, sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for (panel, title, chosen), axis in zip(shown, axes[:, 0], strict=True):
        _panel(axis, panel, title, chosen)
    canvas.savefig(file, dpi=110)
    pyplot.close(canvas)


def _panel(axis: Axes, panel: Panel, title: str, figures: Sequence[Figure]) -> None:
    names, values = [figure.name for figure in figures], [figure.value for figure in figures]
    colours = [OURS if MARK in name or not any(MARK in other for other in names) else COLOUR for name in names]
    rows = range(len(figures))
    if panel.logarithmic:
        axis.set_xscale("log")
        axis.scatter(values, rows, c=colours, s=40, zorder=3)
        axis.set_xlim(min(values) / 2, max(values) * 4)
        axis.xaxis.set_major_locator(LogLocator(subs=(1,) if max(values) / min(values) > 100 else (1, 2, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        axis.xaxis.set_minor_formatter(NullFormatter())
    else:
        axis.barh(rows, values, color=colours, height=0.6)
        axis.set_xlim(0, max(values) * 1.15)
    for row, value in zip(rows, values, strict=True):
        axis.annotate(number(value), (value, row), xytext=(7, 0), textcoords="offset points", va="center", fontsize=9)
    axis.set_yticks(list(rows), names, fontsize=9)
    axis.invert_yaxis()
    axis.set_xlabel(panel.axis, fontsize=9)
    axis.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axis.grid(axis="x", color="#e3e6ea", zorder=0)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
