"""Measure the anomaly detector on real series with labelled windows: the Numenta Anomaly Benchmark.

    git clone --depth 1 https://github.com/numenta/NAB
    python benchmarks/detection_nab.py NAB

A window counts as found when any of its readings is flagged. Most of these series are no sensors, but loads
of servers, tweets and prices; two are temperatures.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from iot_pipeline.detection import detect_anomalies


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, help="of the benchmark's repository")
    parser.add_argument("--each", action="store_true", help="also print each series")
    options = parser.parse_args()
    windows = json.loads((options.directory / "labels" / "combined_windows.json").read_text())
    groups: dict[str, list[tuple[int, int, int, int, bool]]] = defaultdict(list)
    for key, labelled in sorted(windows.items()):
        table = pd.read_csv(options.directory / "data" / key, parse_dates=["timestamp"])
        times = table["timestamp"].to_numpy(dtype="datetime64[us]")
        result = detect_anomalies(times, table["value"].to_numpy(dtype=np.float64))
        inside = np.zeros(len(times), dtype=bool)
        found = 0
        for first, last in labelled:
            window = (times >= np.datetime64(first)) & (times <= np.datetime64(last))
            inside |= window
            found += bool(result.flags[window].any())
        outside = int(np.count_nonzero(result.flags & ~inside))
        misfit = result.model.misfit
        groups[key.split("/", maxsplit=1)[0]].append((found, len(labelled), outside, len(times), misfit))
        if options.each:
            verdict = "misfit" if misfit else f"{100 * outside / len(times):.2f} % flagged outside"
            print(f"{key:62} {found} of {len(labelled)} windows, {verdict}: {result.model.name}")
    print(f"{'':24} {'series':>6} {'misfits':>8} {'windows':>8} {'found':>6} {'flagged outside, %':>19}")
    for name, rows in groups.items():
        found, labelled, outside, readings, misfits = (sum(column) for column in zip(*rows, strict=True))
        share = 100 * outside / readings
        print(f"{name:24} {len(rows):6} {misfits:8} {labelled:8} {found:6} {share:19.2f}")


if __name__ == "__main__":
    main()
