"""Measure the anomaly detector on synthetic sensors of a building, which no function of time describes.

    python benchmarks/detection_buildings.py [--seeds N]

People's days and weeks, noise that remembers its past, two weeks missing. What matters is that few regular
readings are flagged, and that spikes of eight standard deviations, a stuck value and a shift of the level by
six are found.
"""

import argparse

import numpy as np

from iot_pipeline.detection import Detection, detect_anomalies
from iot_pipeline.samples.series import LabelledSeries
from iot_pipeline_tests.detection.buildings import KINDS, make_building, regular_timestamps

SAMPLINGS = [(15, 1_095), (5, 365), (5, 60), (1, 60), (1, 20)]  # minutes between readings, days
MEMORIES = [0.0, 0.5, 0.7, 0.9]
A_WHILE = 40  # days, beyond which two weeks are missing


def draw(
    seed: int, kind: str, memory: float, sampling: tuple[int, int], *, anomalies: bool
) -> LabelledSeries:
    minutes, days = sampling
    times = regular_timestamps("2013-01-20", days=days, minutes=minutes, weeks_missing=2 * (days > A_WHILE))
    place = (seed, KINDS.index(kind), MEMORIES.index(memory), SAMPLINGS.index(sampling))
    rng = np.random.default_rng(place)
    return make_building(rng, times, kind=kind, memory=memory, anomalies=anomalies)


def found(series: LabelledSeries, result: Detection, kind: str) -> list[bool]:
    """Tell of each anomaly of a kind whether half of its readings are flagged."""
    return [result.flags[start:stop].mean() >= 0.5 for name, start, stop in series.events if name == kind]


def print_table(seeds: int) -> None:
    print(
        f"{'':27} {'regular readings':>16} {'misfits':>8}   found: {'spikes':>6} {'stuck':>6} {'shifts':>6}"
    )
    print(f"{'':27} {'flagged, %':>16}")
    for kind in KINDS:
        flagged = readings = misfits = 0
        hits: dict[str, list[bool]] = {"spike": [], "stuck": [], "level_shift": []}
        cases = [
            (seed, kind, memory, sampling)
            for seed in range(seeds)
            for memory in MEMORIES
            for sampling in SAMPLINGS
        ]
        for case in cases:
            clean = draw(*case, anomalies=False)
            result = detect_anomalies(clean.timestamps, clean.values)
            single = result.flags & (result.kinds != "gap")
            flagged, readings = flagged + int(single.sum()), readings + len(single)
            misfits += result.model.misfit
            spoilt = draw(*case, anomalies=True)
            result = detect_anomalies(spoilt.timestamps, spoilt.values)
            for name, list_of_hits in hits.items():
                list_of_hits.extend(found(spoilt, result, name))
        shares = " ".join(f"{np.mean(each):6.3f}" for each in hits.values())
        print(f"{kind:27} {100 * flagged / readings:16.4f} {misfits:4} of {len(cases):3} {'':8} {shares}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each kind (default: 3)")
    print_table(parser.parse_args().seeds)


if __name__ == "__main__":
    main()
