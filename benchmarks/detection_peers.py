"""Compare the anomaly detector with well-known methods on the same labelled synthetic sensors.

    pip install ruptures statsmodels scikit-learn stumpy
    python benchmarks/detection_peers.py [--points N] [--seeds N]

A few short sensors only, since some peers take minutes for one. Each peer gets the settings that its users
start from, or better ones where those fail outright, and is compiled beforehand where it needs to be. Gaps
are not asked for: no peer looks at times. Times are CPU seconds of one process.
"""

import argparse
import importlib
import time
import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from iot_pipeline.detection import detect_anomalies
from iot_pipeline.samples.series import (
    ANOMALIES,
    FAMILIES,
    LabelledSeries,
    irregular_timestamps,
    make_series,
)

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

HELD_OUT = 5000
A_DAY = 96  # readings
KINDS = tuple(kind for kind in ANOMALIES if kind != "gap")


def ours(series: LabelledSeries) -> BoolArray:
    return detect_anomalies(series.timestamps, series.values).flags


def pelt(series: LabelledSeries) -> BoolArray:
    """Cut by PELT with the l2 cost, fit a line to each segment, flag what lies beyond 3 sd."""
    ruptures = importlib.import_module("ruptures")
    values = series.values
    penalty = 3 * np.log(len(values)) * np.var(np.diff(values)) / 2
    edges = ruptures.Pelt(model="l2", min_size=A_DAY, jump=5).fit(values).predict(pen=penalty)
    place = np.arange(len(values))
    residual = np.empty_like(values)
    for start, stop in zip([0, *edges[:-1]], edges, strict=True):
        here = slice(start, stop)
        residual[here] = values[here] - np.polyval(np.polyfit(place[here], values[here], 1), place[here])
    return beyond(residual, 3 * float(np.std(residual)))


def pwlf(series: LabelledSeries) -> BoolArray:
    """Fit six lines to every 20th reading, flag what lies beyond 3 sd."""
    x = np.linspace(0.0, 1.0, len(series.values))
    fit = importlib.import_module("pwlf").PiecewiseLinFit(x[::20], series.values[::20], seed=0)
    fit.fitfast(6)
    residual = series.values - fit.predict(x)
    return beyond(residual, 3 * float(np.std(residual)))


def stl(series: LabelledSeries) -> BoolArray:
    """Decompose robustly into a trend, a day and a rest, flag what lies beyond 5 median deviations."""
    statsmodels = importlib.import_module("statsmodels.tsa.seasonal")
    residual = statsmodels.STL(series.values, period=A_DAY, robust=True).fit().resid
    return beyond(residual, 5 * 1.4826 * np.median(np.abs(residual - np.median(residual))))


def isolation_forest(series: LabelledSeries) -> BoolArray:
    """Isolate on value, difference and rolling figures, flag the share that really is anomalous."""
    ensemble = importlib.import_module("sklearn.ensemble")
    values = series.values
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, (12, 12), mode="edge"), 25)
    features = np.column_stack(
        (values, np.diff(values, prepend=values[0]), windows.mean(axis=1), windows.std(axis=1))
    )
    features = np.column_stack((features, values - np.median(windows, axis=1)))
    share = max(float(np.mean(series.labels != "")), 1e-3)
    forest = ensemble.IsolationForest(contamination=share, random_state=0)
    return np.asarray(forest.fit_predict(features) < 0)


def matrix_profile(series: LabelledSeries) -> BoolArray:
    """Flag the windows of two hours that are the farthest from all others: beyond 5 median deviations."""
    stumpy = importlib.import_module("stumpy")
    window = 8
    profile = np.asarray(stumpy.stump(series.values, window, normalize=False)[:, 0], dtype=np.float64)
    middle = np.median(profile)
    strange = profile > middle + 5 * 1.4826 * np.median(np.abs(profile - middle))
    # A reading is anomalous where all windows around it are.
    return np.convolve(strange, np.ones(window)) >= window


METHODS: dict[str, Callable[[LabelledSeries], BoolArray]] = {
    "this detector": ours,
    "PELT l2, lines, 3 sd (ruptures)": pelt,
    "six lines, 3 sd (pwlf)": pwlf,
    "STL, 5 MAD (statsmodels)": stl,
    "Isolation Forest, true share given (scikit-learn)": isolation_forest,
    "matrix profile, 5 MAD (stumpy)": matrix_profile,
}


def beyond(residual: FloatArray, limit: float) -> BoolArray:
    """Mark residuals beyond a limit."""
    return np.asarray(np.abs(residual - np.median(residual)) > limit)


def draw(seed: int, points: int, family: str, anomalies: tuple[str, ...]) -> LabelledSeries:
    """Draw one sensor with Gaussian noise."""
    rng = np.random.default_rng((seed, FAMILIES.index(family), len(anomalies)))
    times = irregular_timestamps(rng, start="2013-01-01", days=points / A_DAY)
    return make_series(rng, times, family=family, anomalies=anomalies)


def table_row(
    name: str,
    method: Callable[[LabelledSeries], BoolArray],
    dirty: list[LabelledSeries],
    clean: list[LabelledSeries],
) -> str:
    """Measure one method and give its row of the table."""
    method(clean[0])  # compiles and imports
    start = time.process_time()
    found = [method(series) for series in dirty]
    alarms = sum(int(method(series).sum()) for series in clean)
    seconds = time.process_time() - start
    hits = wrong = missed = 0
    for series, flags in zip(dirty, found, strict=True):
        truth = series.labels != ""
        hits += int(np.count_nonzero(flags & truth))
        wrong += int(np.count_nonzero(flags & ~truth))
        missed += int(np.count_nonzero(~flags & truth))
    regular = sum(len(series.values) for series in clean)
    total = regular + sum(len(series.values) for series in dirty)
    return (
        f"| {name} | {2 * hits / (2 * hits + wrong + missed):.3f} | {hits / max(hits + wrong, 1):.3f} "
        f"| {hits / (hits + missed):.3f} | {alarms / regular * 1e5:,.1f} | {seconds / total * 2e4:.2f} |"
    )


def main() -> None:
    """Run every method that is installed and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=10_000, help="readings of a sensor (default: 10,000)")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of each family (default: 1)")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # the peers' own

    seeds = range(HELD_OUT, HELD_OUT + options.seeds)
    dirty, clean = (
        [draw(seed, options.points, family, kinds) for seed in seeds for family in FAMILIES]
        for kinds in (KINDS, ())
    )
    print(
        f"{len(dirty)} sensors with anomalies, {len(clean)} without, of about {options.points:,} readings\n"
    )
    print("| method | F1 | precision | recall | false alarms per 100,000 clean | s per 20,000 |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, method in METHODS.items():
        try:
            print(table_row(name, method, dirty, clean), flush=True)
        except ImportError as error:
            print(f"| {name} | not installed: {error.name} |||||", flush=True)


if __name__ == "__main__":
    main()
