"""Measure the anomaly detector on real series: faults put into them, and labels where they have some.

    python benchmarks/detection_real.py PARQUET [--seeds N]

PARQUET has the columns `series` (text), `timestamp` (UTC), `value` and, if there are labels, `labelled`
(boolean, null in a series without). Series without labels get faults of known size, a share of the range from
their 1st to their 99th percentile. A ramp is a shift of half a day that comes and goes within two hours, a
drift climbs for two days and returns in two.

A fault is found where a reading in it is flagged that was not before; a label where one within three readings
is. Neighbouring flags, less than ten readings apart, are one alarm. Real series hold real anomalies, so that
what is counted as a false alarm need not be one. The second row of a table asks the scores instead of the
flags, with one threshold for all series that gives one false alarm in 1,000 hours.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from iot_pipeline.detection import Detection, detect_anomalies

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Fault = tuple[int, int]

ONE_ALARM = 10  # readings between two flags that belong together
NEAR = 3  # readings from a label
RATE = 1e-3  # false alarms an hour
LONGEST_STEP = 10.0  # times the usual one that a step counts as observed time
KINDS = (
    *(("spike", size) for size in (0.15, 0.3, 0.6)),
    *(("shift", size) for size in (0.1, 0.2, 0.4)),
    *(("stuck", days) for days in (0.25, 1.0)),
    *(("ramp", size) for size in (0.2, 0.4)),
    *(("drift", size) for size in (0.2, 0.4)),
    *(("noise", size) for size in (0.05, 0.1)),
)
COUNTS = {"spike": 5, "shift": 2, "stuck": 2, "ramp": 2, "drift": 1, "noise": 2}


@dataclass(frozen=True, eq=False)
class Series:
    """A real series, its labels if it has some, and the detector's verdict on it."""

    name: str
    times: npt.NDArray[np.datetime64]
    readings: FloatArray
    labels: BoolArray
    verdict: Detection

    def hours(self) -> float:
        """Give for how long readings without a label were observed."""
        steps = np.diff(self.times) / np.timedelta64(1, "h")
        return float(np.minimum(steps, LONGEST_STEP * np.median(steps))[~self.labels[1:]].sum())


def read(path: Path) -> list[Series]:
    """Read the series and judge them."""
    table = pd.read_parquet(path)
    if "labelled" not in table:
        table["labelled"] = None
    result = []
    for name, rows in table.groupby("series", sort=False):
        times = pd.to_datetime(rows["timestamp"], utc=True).dt.tz_localize(None).to_numpy("datetime64[us]")
        values = rows["value"].to_numpy(np.float64)
        labels = rows["labelled"].astype("boolean").fillna(value=False).to_numpy(dtype=np.bool_)
        result.append(Series(str(name), times, values, labels, detect_anomalies(times, values)))
    return result


def runs(flags: BoolArray, apart: int = 0) -> list[Fault]:
    """Give the runs of flags; those less than so far apart are one."""
    places = np.flatnonzero(flags)
    if not len(places):
        return []
    parts = np.split(places, np.flatnonzero(np.diff(places) > 1 + apart) + 1)
    return [(int(part[0]), int(part[-1]) + 1) for part in parts]


def spoil(series: Series, kind: str, size: float, rng: np.random.Generator) -> tuple[FloatArray, list[Fault]]:
    """Put faults of a kind into a series: its new values, and where they are."""
    values = np.copy(series.readings)
    n = len(values)
    a_day = round(float(np.timedelta64(1, "D") / np.median(np.diff(series.times))))
    a_day = min(max(a_day, 12), n // 8)
    height = size * float(np.subtract(*np.quantile(values, (0.99, 0.01))))
    length = {"spike": 1, "drift": 4 * a_day, "stuck": round(size * a_day)}.get(kind, a_day // 2)
    length = max(min(length, n // 10), 1 if kind == "spike" else 6)
    edges = np.linspace(0.08, 0.9, COUNTS[kind] + 1) * n
    faults = []
    for low, high in pairwise(edges):
        start = int(rng.uniform(low, max(low + 1, high - length)))
        stop, sign = min(start + length, n), rng.choice((-1, 1))
        place = np.arange(stop - start)
        if kind == "stuck":
            values[start:stop] = values[start]
        elif kind == "noise":
            values[start:stop] += height * rng.standard_normal(stop - start)
        elif kind == "ramp":
            rise = max(a_day // 12, 1)
            values[start:stop] += sign * height * np.minimum(1, np.minimum(place, place[::-1]) / rise)
        elif kind == "drift":
            values[start:stop] += sign * height * (1 - np.abs(np.linspace(-1, 1, stop - start)))
        else:
            values[start:stop] += sign * height
        faults.append((start, stop))
    steps = np.diff(np.unique(series.readings))
    resolution = float(steps.min()) if len(steps) else 0.0
    if resolution and len(steps) < n / 4 and kind != "stuck":
        values = np.round(values / resolution) * resolution
    return values, faults


def false_alarms(many: list[Series], flagged: Callable[[Detection], BoolArray]) -> tuple[int, int]:
    """Count the alarms that are near no label, and those that are near one."""
    wrong = right = 0
    for series in many:
        near = np.convolve(series.labels, np.ones(2 * NEAR + 1), mode="same") > 0
        for start, stop in runs(flagged(series.verdict), ONE_ALARM):
            hit = bool(near[start:stop].any())
            right, wrong = right + hit, wrong + (not hit)
    return wrong, right


def threshold(many: list[Series]) -> float:
    """Give the lowest threshold from which on false alarms are as rare as asked for."""
    budget = RATE * sum(series.hours() for series in many)
    scores = np.concatenate([np.sort(np.nan_to_num(series.verdict.scores))[-2000:] for series in many])
    best = float(scores.max())
    for score in np.quantile(scores, np.linspace(1.0, 0.0, 400)):
        if false_alarms(many, lambda verdict, limit=score: verdict.scores > limit)[0] > budget:  # type: ignore[misc]
            break
        best = float(score)
    return best


def faults_table(many: list[Series], seeds: int) -> None:
    """Print how many faults of each kind are found."""
    limit = threshold(many)
    hours = sum(series.hours() for series in many)
    ways: dict[str, Callable[[Detection], BoolArray]] = {
        "own flags": lambda verdict: verdict.flags,
        "at 1 in 1,000 h": lambda verdict: verdict.scores > limit,
    }
    shares: dict[str, list[float]] = {way: [] for way in ways}
    for kind, size in KINDS:
        found: dict[str, list[bool]] = {way: [] for way in ways}
        for number, series in enumerate(many):
            for seed in range(seeds):
                values, faults = spoil(series, kind, size, np.random.default_rng((seed, number)))
                verdict = detect_anomalies(series.times, values)
                for way, flagged in ways.items():
                    before, after = flagged(series.verdict), flagged(verdict)
                    found[way] += [bool(after[a:b].any() and not before[a:b].any()) for a, b in faults]
        for way, hits in found.items():
            shares[way].append(float(np.mean(hits)))
    print(f"{len(many)} series without labels, {hours:,.0f} h, {seeds} seeds\n")
    print("| | alarms in 1,000 h | " + " | ".join(f"{kind} {size:g}" for kind, size in KINDS) + " |")
    print("|---" * (len(KINDS) + 2) + "|")
    for way, flagged in ways.items():
        rate = 1000 * false_alarms(many, flagged)[0] / hours
        print(f"| {way} | {rate:.2f} | " + " | ".join(f"{share:.2f}" for share in shares[way]) + " |")


def average_precision(scores: FloatArray, labels: BoolArray) -> float:
    """Give the area under the precision-recall curve; equal scores are one step."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    hits = np.cumsum(labels[order])[last]
    return float(np.sum(np.diff(hits, prepend=0) * hits / (last + 1)) / labels.sum())


def labels_table(many: list[Series]) -> None:
    """Print how many labelled events are found."""
    limit = threshold(many)
    events = [(series, start, stop) for series in many for start, stop in runs(series.labels)]
    hours = sum(series.hours() for series in many)

    def found(flagged: Callable[[Detection], BoolArray]) -> float:
        return float(
            np.mean([flagged(each.verdict)[max(a - NEAR, 0) : b + NEAR].any() for each, a, b in events])
        )

    wrong, right = false_alarms(many, lambda verdict: verdict.flags)
    precision = np.mean([average_precision(np.nan_to_num(each.verdict.scores), each.labels) for each in many])
    print(f"\n{len(many)} series with {len(events)} labelled events, {hours:,.0f} h\n")
    print("| events found | alarms right | false in 1,000 h | found at 1 in 1,000 h | AUC-PR | misfits |")
    print("|---" * 6 + "|")
    print(
        f"| {found(lambda verdict: verdict.flags):.2f} | {right} of {right + wrong}"
        f" | {1000 * wrong / hours:.2f} | {found(lambda verdict: verdict.scores > limit):.2f}"
        f" | {precision:.3f} | {sum(each.verdict.model.misfit for each in many)} |"
    )


def main() -> None:
    """Read the series and print a table of faults and one of labels."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parquet", type=Path, help="the series")
    parser.add_argument("--seeds", type=int, default=3, help="faults of each kind and series (default: 3)")
    options = parser.parse_args()
    every = read(options.parquet)
    labelled = [series for series in every if series.labels.any()]
    unlabelled = [series for series in every if not series.labels.any()]
    if unlabelled:
        faults_table(unlabelled, options.seeds)
    if labelled:
        labels_table(labelled)


if __name__ == "__main__":
    main()
