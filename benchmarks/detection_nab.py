"""Measure the anomaly detector on real series with labelled windows: the Numenta Anomaly Benchmark.

    git clone --depth 1 https://github.com/numenta/NAB
    python benchmarks/detection_nab.py NAB

A window counts as found when any of its readings is flagged. Most of these series are no sensors, but loads
of servers, tweets and prices; two are temperatures. The score is the benchmark's own (Lavin & Ahmad,
"Evaluating real-time anomaly detection algorithms", ICMLA 2015; the standard profile, 100 is the best and 0
that of a detector which finds nothing): the first reading of each event counts, by its greatest score and
with the one threshold for all series that is best, which is the benchmark's way.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from iot_pipeline.detection import Detection, detect_anomalies

FALSE_ALARM = 0.11  # what one costs, in windows
PROBATION, LONGEST_PROBATION = 0.15, 750  # the share of a series, and readings, at its start that don't count

Window = tuple[int, int]
Alarm = tuple[float, tuple[str, int] | None, float]
"""The score of an event, the window that it is in, if any, and what finding it is worth."""


def scaled_sigmoid(place: float) -> float:
    """Weigh an alarm by its place: -1 is a window's first reading, 0 its last, 1 as far behind it."""
    return -1.0 if place > 3.0 else 2.0 / (1.0 + np.exp(5.0 * place)) - 1.0


def alarms(key: str, result: Detection, windows: list[Window]) -> Iterator[Alarm]:
    """Give what the benchmark counts of one series."""
    begin = min(PROBATION * len(result.flags), LONGEST_PROBATION)
    for number, event in enumerate(result.events):
        first = int(np.argmax(result.event_ids == number))
        if first < begin:
            continue
        within = next((i for i, (low, high) in enumerate(windows) if low <= first <= high), None)
        if within is not None:
            low, high = windows[within]
            worth = scaled_sigmoid(-(high - first + 1) / (high - low + 1)) / scaled_sigmoid(-1.0)
            yield event.peak_score, (key, within), worth
            continue
        before = [(low, high) for low, high in windows if high < first]
        place = (first - before[-1][1]) / (before[-1][1] - before[-1][0]) if before else np.inf
        yield event.peak_score, None, FALSE_ALARM * scaled_sigmoid(place)


def nab_score(every: list[Alarm], windows: int) -> float:
    """Give the score of the best threshold."""
    best = total = 0.0
    found: dict[tuple[str, int], float] = {}
    ordered = sorted(every, key=lambda alarm: -alarm[0])
    for i, (score, window, worth) in enumerate(ordered):
        if window is None:
            total += worth
        else:
            total += max(worth - found.get(window, -1.0), 0.0)
            found[window] = max(worth, found.get(window, -1.0))
        if i + 1 == len(ordered) or ordered[i + 1][0] < score:
            best = max(best, total)
    return 100 * best / (2 * windows)


def read(path: Path) -> tuple[npt.NDArray[np.datetime64], npt.NDArray[np.float64]]:
    """Read a series of the benchmark."""
    table = pd.read_csv(path, parse_dates=["timestamp"])
    return table["timestamp"].to_numpy(dtype="datetime64[us]"), table["value"].to_numpy(dtype=np.float64)


def print_tables(directory: Path) -> None:
    """Print what is found in each group of series, and the score."""
    labels = json.loads((directory / "labels" / "combined_windows.json").read_text())
    groups: dict[str, list[tuple[int, int, int, int, bool]]] = defaultdict(list)
    every: list[Alarm] = []
    for key, labelled in sorted(labels.items()):
        times, values = read(directory / "data" / key)
        result = detect_anomalies(times, values)
        windows = [
            (
                int(np.searchsorted(times, np.datetime64(first))),
                int(np.searchsorted(times, np.datetime64(last))),
            )
            for first, last in labelled
        ]
        inside = np.zeros(len(times), dtype=bool)
        for low, high in windows:
            inside[low : high + 1] = True
        found = sum(bool(result.flags[low : high + 1].any()) for low, high in windows)
        outside = int(np.count_nonzero(result.flags & ~inside))
        row = found, len(windows), outside, len(times), result.model.misfit
        groups[key.split("/", maxsplit=1)[0]].append(row)
        every += alarms(key, result, windows)
    print("| | series | misfits | labelled windows | found | flagged outside, % |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, rows in groups.items():
        found, labelled, outside, readings, misfits = (sum(column) for column in zip(*rows, strict=True))
        print(f"| {name} | {len(rows)} | {misfits} | {labelled} | {found} | {100 * outside / readings:.2f} |")
    print(f"\nThe benchmark's own score: {nab_score(every, sum(map(len, labels.values()))):.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, help="of the benchmark's repository")
    print_tables(parser.parse_args().directory)


if __name__ == "__main__":
    main()
