"""Measure the anomaly detector without one of its parts at a time: each has to earn its place.

    python benchmarks/detection_ablation.py [--real REAL.parquet]

A row is the detector without one part. Synthetic sensors and those of a building are a sixth of the ones in
their own benchmarks; without a file of real series (see detection_real.py), simulated ones take their place.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import detection
import detection_buildings
import detection_real
import numpy as np

from iot_pipeline.detection import detect_anomalies
from iot_pipeline.samples.series import FAMILIES, NOISES
from iot_pipeline_tests.detection.buildings import KINDS
from iot_pipeline_tests.detection.faults import FAULTS, real_like

PACKAGE = "iot_pipeline.detection"
Part = dict[str, object]
"""What stands for the names of the package while a part is missing."""

PARTS: dict[str, Part] = {
    "all parts": {},
    "cycles": {"model.find_periods": lambda *_: (), "model.repeats": lambda *_: False},
    "days in short series": {"model.repeats": lambda *_: False},
    "piecewise trends": {"model.piecewise_trends": lambda *_: []},
    "rhythm of the noise": {"detect.scale_cycle": lambda *_: None},
    "tails of the noise": {"judge.tail_freedom": lambda _: (np.inf, 1.0)},
    "memory of the noise": {"judge.memory": lambda _: np.empty(0)},
    "variation of sums": {"judge.inflation": lambda *_: 1.0},
    "first guess of calm blocks": {"judge._calm": lambda z: np.ones(len(z), dtype=bool)},
    "collective tests": {"judge.collective_runs": lambda *_: []},
    "single readings": {"judge.point_runs": lambda *_: []},
    "stuck, on residuals": {"judge.stuck_runs": lambda *_, **__: []},
    "innovations": {"detect._ENOUGH": 10**9, "detect._FEWEST_FOLLOWED": 10**9},
    "residuals of Gaussian steps": {"follow.Innovations.are_gaussian": lambda *_: False},
    "times of the day": {"day_cells.DayCells.local_mean": lambda _, v, **__: np.full(len(v), v.mean())},
    "days of the week": {"day_cells._over_weeks": np.zeros_like},
    "patches": {"follow.find_patches": lambda innovations, *_: ([], innovations)},
    "slow shapes": {"follow.slow_evidence": lambda seconds, *_: np.zeros(len(seconds))},
    "stuck, on innovations": {"follow.stuck_runs": lambda *_: []},
    "repeats by nature": {"follow.less_where_usual": lambda runs, _: runs},
    "rate by the hour": {"follow._PER_STEP": 0.0},
    "tempering": {"follow._DOUBTS": (1.0,), "follow._BETWEEN": 1},
}


def synthetic() -> Iterator[float]:
    outcomes = [
        detection.measure((1, 20_000, family, noise, scenario))
        for family in FAMILIES
        for noise in NOISES
        for scenario in ("clean", "small spikes", "all kinds")
    ]
    clean, small, every = (
        [each for each in outcomes if each.scenario == name]
        for name in ("clean", "small spikes", "all kinds")
    )
    yield sum(each.false_alarms for each in clean) / sum(each.readings for each in clean) * 1e5
    yield detection.recall_and_precision(small)[0]
    yield detection.f1(every)
    yield detection.average_precision(every)


def buildings() -> Iterator[float]:
    flagged = readings = 0
    hits: dict[str, list[bool]] = {"spike": [], "level_shift": []}
    for kind in KINDS:
        for memory in (0.0, 0.7):
            for sampling in ((5, 60), (1, 20)):
                clean = detection_buildings.draw(0, kind, memory, sampling, anomalies=False)
                result = detect_anomalies(clean.timestamps, clean.values)
                flagged += int(np.count_nonzero(result.flags & (result.kinds != "gap")))
                readings += len(result.flags)
                spoilt = detection_buildings.draw(0, kind, memory, sampling, anomalies=True)
                result = detect_anomalies(spoilt.timestamps, spoilt.values)
                for name in hits:
                    hits[name] += detection_buildings.found(spoilt, result, name)
    yield 100 * flagged / readings
    yield from (float(np.mean(found)) for found in hits.values())


def series(path: Path | None) -> Iterator[detection_real.Series]:
    if path:
        yield from detection_real.read(path)
        return
    for seed in range(14):
        times, values = real_like(seed)
        nothing = np.zeros(len(values), dtype=bool)
        verdict = detection_real.this_detector(times, values)
        yield detection_real.Series(str(seed), times, values, nothing, labelled=False, verdict=verdict)


def real(path: Path | None) -> Iterator[float]:
    every = list(series(path))
    unlabelled = [each for each in every if not each.labelled]
    limit = detection_real.threshold(unlabelled)
    hours = sum(each.hours() for each in unlabelled)
    yield 1000 * detection_real.false_alarms(unlabelled, lambda verdict: verdict.flags)[0] / hours
    shares = detection_real.recall(unlabelled, {"": detection_real.above(limit)}, 1)[""]
    for name in dict.fromkeys(kind for kind, _ in FAULTS):
        yield float(np.mean([share for (kind, _), share in zip(FAULTS, shares, strict=True) if kind == name]))


def print_table(path: Path | None) -> None:
    """Print a row for each part that is missing."""
    kinds = list(dict.fromkeys(kind for kind, _ in FAULTS))
    print(
        "| without | false alarms in 100,000 | small spikes | F1 | AUC-PR | buildings, % flagged | spikes"
        f" | shifts | {'real' if path else 'simulated'} alarms in 1,000 h | {' | '.join(kinds)} |"
    )
    print("|---" * (9 + len(kinds)) + "|")
    for name, part in PARTS.items():
        patches = [mock.patch(f"{PACKAGE}.{target}", stand_in) for target, stand_in in part.items()]
        for patch in patches:
            patch.start()
        figures = [*synthetic(), *buildings(), *real(path)]
        for patch in patches:
            patch.stop()
        print(f"| {name} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", type=Path, help="real series, see detection_real.py")
    print_table(parser.parse_args().real)


if __name__ == "__main__":
    main()
