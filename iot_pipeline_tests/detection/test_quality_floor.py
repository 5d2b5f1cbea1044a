"""What the detector finds and what it flags in vain on some hundreds of seeded series: a floor to stand on.

The floors are what it reached when they were written, with a small margin; those of alarms are ceilings.
Where a change is better on the whole (see benchmarks/detection_all.py) but not for one of them, write the
new figures here.
"""

from collections import defaultdict

import numpy as np
import numpy.typing as npt
import pytest

from iot_pipeline.detection import Detection, detect_anomalies
from iot_pipeline.samples.series import ANOMALIES, FAMILIES, NOISES
from iot_pipeline_tests.detection.faults import FAULTS, put_faults, real_like
from iot_pipeline_tests.detection.series import sensor

BoolArray = npt.NDArray[np.bool_]

CURVES = {
    "spike": 0.749,
    "burst": 0.992,
    "level_shift": 0.985,
    "stuck": 0.992,
    "drift": 0.926,
    "variance": 0.961,
    "gap": 0.992,
    "louder stretch": 0.552,
    "spike, score": 4.93,
    "burst, score": 13.45,
    "level_shift, score": 16.15,
    "stuck, score": 8.89,
    "drift, score": 16.6,
    "variance, score": 14.48,
    "gap, score": 17.88,
    "alarms": 463,
    "single alarms": 6,
}
INNOVATIONS = {
    "spike 0.15": 0.287,
    "spike 0.3": 0.697,
    "spike 0.6": 0.857,
    "shift 0.1": 0.117,
    "shift 0.2": 0.582,
    "shift 0.4": 0.83,
    "stuck 0.25": 0.72,
    "stuck 1": 0.77,
    "ramp 0.2": 0.067,
    "ramp 0.4": 0.4,
    "drift 0.2": 0.067,
    "drift 0.4": 0.36,
    "noise 0.05": 0.279,
    "noise 0.1": 0.692,
    "spike, score": 5.42,
    "shift, score": 4.88,
    "stuck, score": 9.36,
    "ramp, score": 4.28,
    "drift, score": 4.08,
    "noise, score": 4.82,
    "alarms": 141,
    "readings in alarms": 6150,
}


def below(measured: dict[str, float], floors: dict[str, float]) -> list[str]:
    """Tell which figures are worse than their floor; those of alarms are to be small."""
    return [
        f"{name}: {measured[name]:.4f}, floor {floor:.4f}"
        for name, floor in floors.items()
        if (measured[name] > floor if "alarms" in name else measured[name] < floor)
    ]


def curves() -> dict[str, float]:
    """Give the share of readings found of each kind, and false alarms, on sensors that curves describe."""
    found: dict[str, list[float]] = defaultdict(list)
    scores: dict[str, list[float]] = defaultdict(list)
    alarms = spikes = 0
    for number, family in enumerate(FAMILIES):
        for noise in NOISES:
            for seed in (number, 40 + number, 100 + number):
                sizes = (4.5, 7.0) if seed < 100 else (6.0, 15.0)
                series = sensor(family, noise, *ANOMALIES, seed=seed, points=4_000, spike_sd=sizes)
                result = detect_anomalies(series.timestamps, series.values)
                wrong = result.flags & (series.labels == "")
                alarms += int(np.count_nonzero(wrong))
                spikes += int(np.count_nonzero(wrong & (result.kinds == "spike")))
                for kind in ANOMALIES:
                    there = series.labels == kind
                    if there.any():
                        found[kind].append(float(result.flags[there].mean()))
                        scores[f"{kind}, score"].append(float(np.median(result.scores[there])))
                clean = sensor(family, noise, seed=seed, points=4_000)
                alarms += int(detect_anomalies(clean.timestamps, clean.values).flags.sum())
                louder = clean.values.copy()
                louder[2_000:2_080] += 0.9 * (clean.values - clean.expected)[2_000:2_080]
                flags = detect_anomalies(clean.timestamps, louder).flags
                found["louder stretch"].append(float(flags[2_000:2_080].mean()))
    measured = {kind: float(np.mean(shares)) for kind, shares in found.items()}
    measured |= {kind: float(np.median(each)) for kind, each in scores.items()}
    return {**measured, "alarms": alarms, "single alarms": spikes}


def innovations() -> dict[str, float]:
    """Give the share of faults found of each kind and size, and false alarms, on series as real ones are."""
    found: dict[str, list[bool]] = defaultdict(list)
    events = flagged = 0
    scores: dict[str, list[float]] = defaultdict(list)
    for seed in range(40):
        times, values = real_like(seed)
        clean = detect_anomalies(times, values)
        events += sum(event.kind != "gap" for event in clean.events)
        flagged += int(clean.flags.sum())
        for kind, size in FAULTS:
            spoilt, faults = put_faults(times, values, kind, size, np.random.default_rng(seed))
            result = detect_anomalies(times, spoilt)
            found[f"{kind} {size:g}"] += [hit(clean, result, a, b) for a, b in faults]
            scores[f"{kind}, score"] += [float(np.max(result.scores[a:b])) for a, b in faults]
    measured = {kind: float(np.mean(hits)) for kind, hits in found.items()}
    measured |= {kind: float(np.median(each)) for kind, each in scores.items()}
    return {**measured, "alarms": events, "readings in alarms": flagged}


def hit(clean: Detection, spoilt: Detection, start: int, stop: int) -> bool:
    """Say whether a fault is flagged where nothing was before."""
    return bool(spoilt.flags[start:stop].any() and not clean.flags[start:stop].any())


@pytest.mark.system
def test_sensors_that_a_curve_describes_lose_no_recall_and_gain_no_alarms() -> None:
    assert below(curves(), CURVES) == []


@pytest.mark.system
def test_sensors_that_follow_themselves_lose_no_recall_and_gain_no_alarms() -> None:
    assert below(innovations(), INNOVATIONS) == []
