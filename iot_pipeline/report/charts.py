"""Small charts of counts over time, for Dagster's web page."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from iot_pipeline.kinds import title
from iot_pipeline.report.plot import colour_of

MOST_LABELS = 12


def plot_counts(
    counts: Mapping[str, Mapping[str, int]], *, what: str, per: Literal["month", "week"]
) -> Figure:
    """Plot counts over time as a stacked step chart.

    Args:
        counts: For each series, the counts by period: a month like ``2013-01``, or the Monday of a week like
            ``2013-01-07``. Missing periods count as 0. There must be at least one period.
        what: What is counted.
        per: The length of a period.

    Returns:
        The figure, 800 by 240 pixels, with a legend if there is more than one series.
    """
    unit, step = {"month": ("M", 1), "week": ("D", 7)}[per]
    found = np.array(sorted({period for of_series in counts.values() for period in of_series}), f"M8[{unit}]")
    periods = np.arange(found[0], found[-1] + step, step)
    labels = np.datetime_as_string(periods)
    edges = np.arange(len(periods) + 1) - 0.5

    figure = Figure(figsize=(8, 2.4), dpi=100, layout="constrained")
    axes = figure.subplots()
    below = np.zeros(len(periods))
    for name, of_series in counts.items():
        above = below + [of_series.get(label, 0) for label in labels]
        axes.stairs(above, edges, baseline=below, fill=True, color=colour_of(name), label=title(name))
        below = above
    every = -(-len(labels) // MOST_LABELS)
    axes.set_xticks(range(0, len(labels), every), labels[::every])
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"{what}\nper {per}")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color="#ececec", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if len(counts) > 1:
        figure.legend(loc="outside upper center", ncols=len(counts), frameon=False, fontsize=8)
    return figure
