"""Measure the anomaly detector and simple peers on real series: faults put into them, and labels.

    python benchmarks/detection_real.py PARQUET [--seeds N]
    python benchmarks/detection_real.py PARQUET --draw PNG NAME [NAME ...]

PARQUET has the columns `series` (text), `timestamp` (UTC), `value` and, if there are labels, `labelled`
(boolean, null in a series without). Series without labels get faults of known size, a share of the range from
their 1st to their 99th percentile. A ramp is a shift of half a day that comes and goes within two hours, a
drift climbs for two days and returns in two.

A fault is found where a reading in it is flagged that was not before; a label where one within three readings
is. Neighbouring flags, less than ten readings apart, are one alarm. Real series hold real anomalies, so that
what is counted as a false alarm need not be one. The second row of each method asks the scores instead of the
flags, with one threshold for all series that gives one false alarm in 1,000 hours.
"""

import argparse
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from iot_pipeline.detection import detect_anomalies
from iot_pipeline.kinds import COLOURS, in_words
from iot_pipeline_tests.detection.faults import FAULTS, put_faults

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
TimeArray = npt.NDArray[np.datetime64]

ONE_ALARM = 10  # readings between two flags that belong together
NEAR = 3  # readings from a label
RATE = 1e-3  # false alarms an hour
LONGEST_STEP = 10.0  # times the usual one that a step counts as observed time


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a method says of the readings of a series."""

    flags: BoolArray
    scores: FloatArray
    misfit: bool = False


Method = Callable[[TimeArray, FloatArray], Verdict]


def this_detector(times: TimeArray, readings: FloatArray) -> Verdict:
    """Judge as the pipeline does."""
    found = detect_anomalies(times, readings)
    return Verdict(found.flags, np.nan_to_num(found.scores), found.model.misfit)


def far_from_the_mean(_: TimeArray, readings: FloatArray) -> Verdict:
    """Flag what lies beyond 3 standard deviations."""
    return beyond(3.0, readings - readings.mean(), float(readings.std()))


def far_from_the_hour(times: TimeArray, readings: FloatArray) -> Verdict:
    """Flag what lies beyond 5 median deviations from the median of its hour of the week."""
    hours = (times - times.astype("datetime64[W]")) // np.timedelta64(1, "h")
    frame = pd.Series(readings)
    away = readings - frame.groupby(hours.astype(int)).transform("median").to_numpy()
    return beyond(5.0, away, 1.4826 * float(np.median(np.abs(away))))


def innovations(times: TimeArray, readings: FloatArray) -> Verdict:
    """Flag what lies beyond 8 running median deviations from where the last 8 readings lead."""
    scaled = (readings - np.median(readings)) / (np.median(np.abs(readings - np.median(readings))) or 1.0)
    clipped = np.clip(scaled, -9.0, 9.0)
    rows = np.lib.stride_tricks.sliding_window_view(clipped, 8)[:-1]
    rows = np.column_stack((rows, np.ones(len(rows))))
    away = np.zeros(len(readings))
    away[8:] = scaled[8:] - rows @ np.linalg.lstsq(rows, clipped[8:], rcond=None)[0]
    a_day = np.timedelta64(1, "D") / max(np.median(np.diff(times)), np.timedelta64(1, "us"))
    sizes = pd.Series(np.abs(away)).rolling(4 * max(int(a_day), 50), center=True, min_periods=20)
    usual = 1.4826 * sizes.median().bfill().ffill().to_numpy()
    return beyond(8.0, away, np.maximum(usual, 0.1 * np.median(usual)))


def beyond(limit: float, away: FloatArray, unit: FloatArray | float) -> Verdict:
    scores = np.abs(away) / np.maximum(unit, 1e-12)
    return Verdict(scores > limit, scores)


METHODS: dict[str, Method] = {
    "this detector": this_detector,
    "3 sd": far_from_the_mean,
    "hour of the week, 5 MAD": far_from_the_hour,
    "AR(8), 8 running MAD": innovations,
}


@dataclass(frozen=True, eq=False)
class Series:
    """A real series, its labels, whether somebody has looked for what to label, and the verdict on it."""

    name: str
    times: TimeArray
    readings: FloatArray
    labels: BoolArray
    labelled: bool
    verdict: Verdict

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
        labelled = bool(rows["labelled"].notna().any())
        result.append(Series(str(name), times, values, labels, labelled, this_detector(times, values)))
    return result


def judged(many: list[Series], method: Method) -> list[Series]:
    """Judge series by another method."""
    return [replace(series, verdict=method(series.times, series.readings)) for series in many]


def runs(flags: BoolArray, apart: int = 0) -> list[tuple[int, int]]:
    """Give the runs of flags; those less than so far apart are one."""
    places = np.flatnonzero(flags)
    if not len(places):
        return []
    parts = np.split(places, np.flatnonzero(np.diff(places) > 1 + apart) + 1)
    return [(int(part[0]), int(part[-1]) + 1) for part in parts]


Way = Callable[[Verdict], BoolArray]


def above(limit: float) -> Way:
    """Flag by the scores."""
    return lambda verdict: verdict.scores > limit


def false_alarms(many: list[Series], flagged: Way) -> tuple[int, int]:
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
    scores = np.concatenate([np.sort(series.verdict.scores)[-2000:] for series in many])
    best = float(scores.max())
    for score in np.quantile(scores, np.linspace(1.0, 0.0, 400)):
        if false_alarms(many, above(float(score)))[0] > budget:
            break
        best = float(score)
    return best


def recall(
    many: list[Series], ways: dict[str, Way], seeds: int, method: Method = this_detector
) -> dict[str, list[float]]:
    """Give the share of faults that each way of flagging finds, for each of `FAULTS`."""
    shares: dict[str, list[float]] = {way: [] for way in ways}
    for kind, size in FAULTS:
        found: dict[str, list[bool]] = {way: [] for way in ways}
        for number, series in enumerate(many):
            for seed in range(seeds):
                rng = np.random.default_rng((seed, number))
                values, faults = put_faults(series.times, series.readings, kind, size, rng)
                verdict = method(series.times, values)
                for way, flagged in ways.items():
                    before, after = flagged(series.verdict), flagged(verdict)
                    found[way] += [bool(after[a:b].any() and not before[a:b].any()) for a, b in faults]
        for way, hits in found.items():
            shares[way].append(float(np.mean(hits)))
    return shares


def faults_table(many: list[Series], seeds: int) -> None:
    """Print how many faults of each kind are found."""
    hours = sum(series.hours() for series in many)
    print(f"{len(many)} series without labels, {hours:,.0f} h, {seeds} seeds\n")
    print("| | alarms in 1,000 h | " + " | ".join(f"{kind} {size:g}" for kind, size in FAULTS) + " |")
    print("|---" * (len(FAULTS) + 2) + "|")
    for name, method in METHODS.items():
        series = judged(many, method)
        limit = threshold(series)
        ways: dict[str, Way] = {
            name: lambda verdict: verdict.flags,
            "one threshold, 1 in 1,000 h": above(limit),
        }
        shares = recall(series, ways, seeds, method)
        for way, flagged in ways.items():
            rate = 1000 * false_alarms(series, flagged)[0] / hours
            row = " | ".join(f"{share:.2f}" for share in shares[way])
            print(f"| {way} | {rate:.2f} | {row} |", flush=True)


def average_precision(scores: FloatArray, labels: BoolArray) -> float:
    """Give the area under the precision-recall curve; equal scores are one step."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    hits = np.cumsum(labels[order])[last]
    return float(np.sum(np.diff(hits, prepend=0) * hits / (last + 1)) / labels.sum())


def labels_table(many: list[Series]) -> None:
    """Print how many labelled events are found."""
    n_events = sum(len(runs(series.labels)) for series in many)
    hours = sum(series.hours() for series in many)
    print(f"\n{len(many)} series with {n_events} labelled events, {hours:,.0f} h\n")
    print("| | events found | alarms right | false in 1,000 h | found at 1 in 1,000 h | AUC-PR | misfits |")
    print("|---" * 7 + "|")
    for name, method in METHODS.items():
        series = judged(many, method)
        limit = threshold(series)
        wrong, right = false_alarms(series, lambda verdict: verdict.flags)
        own = events_found(series, lambda verdict: verdict.flags)
        at_one = events_found(series, above(limit))
        precision = np.mean(
            [average_precision(each.verdict.scores, each.labels) for each in series if each.labels.any()]
        )
        print(
            f"| {name} | {own:.2f} | {right} of {right + wrong} | {1000 * wrong / hours:.2f} | {at_one:.2f}"
            f" | {precision:.3f} | {sum(each.verdict.misfit for each in series)} |"
        )


def events_found(many: list[Series], flagged: Way) -> float:
    """Give the share of the labelled events that have a flag in them or near."""
    return float(
        np.mean(
            [
                flagged(series.verdict)[max(start - NEAR, 0) : stop + NEAR].any()
                for series in many
                for start, stop in runs(series.labels)
            ]
        )
    )


def print_tables(path: Path, seeds: int) -> None:
    """Print a table of faults and one of labels."""
    every = read(path)
    labelled = [series for series in every if series.labelled]
    unlabelled = [series for series in every if not series.labelled]
    if unlabelled:
        faults_table(unlabelled, seeds)
    if labelled:
        labels_table(labelled)


def draw(every: list[Series], names: list[str], path: Path) -> None:
    """Draw series, two in a row, with what is found in them and why."""
    from matplotlib import pyplot as plt  # noqa: PLC0415  the tables do without
    from PIL import Image  # noqa: PLC0415

    plt.switch_backend("agg")
    plt.rcParams["date.converter"] = "concise"
    by_name = {series.name: series for series in every}
    figure, panels = plt.subplots(-(-len(names) // 2), 2, figsize=(11, 2.9 * -(-len(names) // 2)), dpi=80)
    for panel, name in zip(panels.flat, names, strict=False):
        series = by_name[name]
        verdict = detect_anomalies(series.times, series.readings)
        panel.plot(series.times, series.readings, color="#4c78a8", lw=0.5)
        for kind, colour in COLOURS.items():
            there = verdict.kinds == kind
            if there.any():
                panel.plot(series.times[there], series.readings[there], ".", color=colour, ms=5, label=kind)
        words = in_words(verdict.model.reasoning)
        panel.set_title(f"{name}\n" + "\n".join(textwrap.wrap(words, 100)), fontsize=7, loc="left")
        panel.tick_params(labelsize=6)
        if verdict.events:
            panel.legend(fontsize=6, loc="upper right")
    figure.tight_layout()
    figure.savefig(path)
    with Image.open(path) as image:
        image.quantize(64).save(path, optimize=True)


def main() -> None:
    """Read the series and print a table of faults and one of labels."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parquet", type=Path, help="the series")
    parser.add_argument("--seeds", type=int, default=3, help="faults of each kind and series (default: 3)")
    parser.add_argument("--draw", nargs="+", metavar=("PNG", "NAME"), help="draw these series instead")
    options = parser.parse_args()
    if options.draw:
        path, *names = options.draw
        draw(read(options.parquet), names, Path(path))
    else:
        print_tables(options.parquet, options.seeds)


if __name__ == "__main__":
    main()
