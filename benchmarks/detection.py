"""Measure the anomaly detector on labelled synthetic sensors, next to the targets that it has to reach.

    OPENBLAS_NUM_THREADS=1 python benchmarks/detection.py [--seeds N] [--points N] [--processes N]

The suite crosses every family, noise and kind of anomaly. The seeds from 0 on are those that the detector was
developed on; those from 3000 on were never looked at while it was. Times are CPU seconds of one process, with
one thread for linear algebra, as the pipeline's workers have: more of them wait busily.

Small spikes drown in the noise that is added to them. How many of them can be found at all is told by an
oracle that knows the sensor's function and the size of its noise, and flags beyond one distance for all
sensors, the one at which its precision is still what is asked for.
"""

import argparse
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from iot_pipeline.detection import detect_anomalies
from iot_pipeline.samples.series import ANOMALIES, FAMILIES, NOISES, irregular_timestamps, make_series
from iot_pipeline_tests.detection.faults import real_like

DEVELOPMENT, HELD_OUT = 0, 3000
FULL_SIZE = 105_000
LARGE_SPIKES, SMALL_SPIKES = (6.0, 15.0), (4.5, 6.0)
SCORE_EDGES = np.concatenate((np.linspace(0.0, 12.0, 2401), np.geomspace(12.1, 1e9, 400)))
RARE, FREQUENT = 1_500, 500  # readings per spike
PRECISION = 0.97  # that small spikes have to be found at
CLEAN_SEEDS = 4  # times as many clean sensors, since false alarms are rare
SCENARIOS: dict[str, tuple[tuple[str, ...], tuple[float, float], int]] = {
    "clean": ((), LARGE_SPIKES, RARE),
    "small spikes": (("spike",), SMALL_SPIKES, RARE),
    **{kind: ((kind,), LARGE_SPIKES, RARE) for kind in ANOMALIES},
    "all kinds": (ANOMALIES, LARGE_SPIKES, RARE),
    "frequent small spikes": (("spike",), SMALL_SPIKES, FREQUENT),
}


@dataclass
class Outcome:
    """What was counted on one sensor.

    Attributes:
        anomalous: int64, anomalous readings by their score.
        regular: Likewise the regular ones.
        distant: int64, anomalous readings by their true distance in standard deviations of the noise.
        distant_regular: Likewise the regular ones.
    """

    scenario: str
    sensor: str
    gaussian: bool
    readings: int
    hits: int
    false_alarms: int
    misses: int
    model_error: float
    found: dict[str, list[bool]] = field(default_factory=dict)
    anomalous: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    regular: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    distant: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    distant_regular: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


def measure(task: tuple[int, int, str, str, str]) -> Outcome:
    """Draw one sensor, detect, and compare with the truth."""
    seed, points, family, noise, scenario = task
    place = (FAMILIES.index(family), NOISES.index(noise), list(SCENARIOS).index(scenario))
    rng = np.random.default_rng((seed, *place))
    times = irregular_timestamps(rng, start="2013-01-01", days=points / 96)
    anomalies, sizes, rarity = SCENARIOS[scenario]
    series = make_series(
        rng,
        times,
        family=family,
        noise=noise,
        anomalies=anomalies,
        spike_sd=sizes,
        readings_per_spike=rarity,
    )
    result = detect_anomalies(series.timestamps, series.values)
    truth = series.labels != ""
    scores = np.searchsorted(SCORE_EDGES, result.scores)
    away = np.searchsorted(SCORE_EDGES, np.abs(series.values - series.expected) / series.noise_sd)
    found: dict[str, list[bool]] = {}
    for kind, start, stop in series.events:
        found.setdefault(kind, []).append(bool(result.flags[start:stop].mean() >= 0.5))
    return Outcome(
        scenario=scenario,
        sensor=f"{family}, {noise}",
        gaussian=noise in {"gaussian", "heteroscedastic"},
        readings=len(truth),
        hits=int(np.count_nonzero(result.flags & truth)),
        false_alarms=int(np.count_nonzero(result.flags & ~truth)),
        misses=int(np.count_nonzero(~result.flags & truth)),
        model_error=float(np.sqrt(np.mean(((result.expected - series.expected) / series.noise_sd) ** 2))),
        found=found,
        anomalous=np.bincount(scores[truth], minlength=len(SCORE_EDGES) + 1),
        regular=np.bincount(scores[~truth], minlength=len(SCORE_EDGES) + 1),
        distant=np.bincount(away[truth], minlength=len(SCORE_EDGES) + 1),
        distant_regular=np.bincount(away[~truth], minlength=len(SCORE_EDGES) + 1),
    )


def cpu_of_innovations(seed: int) -> float:
    """Detect on a series of full size that follows itself, and give the CPU time."""
    times, values = real_like(seed, points=FULL_SIZE)
    start = time.process_time()
    detect_anomalies(times, values)
    return time.process_time() - start


def cpu_seconds(task: tuple[int, str, str, tuple[str, ...]]) -> float:
    """Detect on one sensor of full size, and give the CPU time."""
    seed, family, noise, anomalies = task
    rng = np.random.default_rng((seed, FAMILIES.index(family), NOISES.index(noise)))
    times = irregular_timestamps(rng, start="2013-01-01", days=FULL_SIZE / 96)
    series = make_series(rng, times, family=family, noise=noise, anomalies=anomalies)
    start = time.process_time()
    detect_anomalies(series.timestamps, series.values)
    return time.process_time() - start


def average_precision(outcomes: list[Outcome]) -> float:
    """Give the area under the precision-recall curve over all readings, from histograms of the scores."""
    hits = np.cumsum(np.add.reduce([each.anomalous for each in outcomes])[::-1])
    flagged = hits + np.cumsum(np.add.reduce([each.regular for each in outcomes])[::-1])
    precision = hits / np.maximum(flagged, 1)
    return float(np.sum(np.diff(hits, prepend=0) * precision) / hits[-1])


def f1(outcomes: list[Outcome]) -> float:
    """Give F1 over the readings of several sensors."""
    hits = sum(each.hits for each in outcomes)
    wrong = sum(each.false_alarms + each.misses for each in outcomes)
    return 2 * hits / max(2 * hits + wrong, 1)


def small_spike_rows(what: str, outcomes: list[Outcome]) -> Iterator[tuple[str, str, str]]:
    """Give recall and precision, and the recall on Gaussian noise next to the most that is possible there."""
    recall, precision = recall_and_precision(outcomes)
    yield f"recall, {what}", ">= 0.80", f"{recall:.3f}"
    yield f"precision, {what}", ">= 0.97", f"{precision:.3f}"
    gaussian = [each for each in outcomes if each.gaussian]
    yield f"recall on Gaussian noise, {what}", "", f"{recall_and_precision(gaussian)[0]:.3f}"
    yield f"an oracle's recall, {what}", "", f"{oracle_recall(gaussian):.3f}"


def recall_and_precision(outcomes: list[Outcome]) -> tuple[float, float]:
    """Give both over the readings of several sensors."""
    hits = sum(each.hits for each in outcomes)
    anomalous = hits + sum(each.misses for each in outcomes)
    flagged = hits + sum(each.false_alarms for each in outcomes)
    return hits / max(anomalous, 1), hits / max(flagged, 1)


def oracle_recall(outcomes: list[Outcome]) -> float:
    """Give the recall of one limit for the true distances at which the precision is what is asked for."""
    hits = np.cumsum(np.add.reduce([each.distant for each in outcomes])[::-1])
    flagged = hits + np.cumsum(np.add.reduce([each.distant_regular for each in outcomes])[::-1])
    precise = np.flatnonzero(hits >= PRECISION * np.maximum(flagged, 1))
    return float(hits[precise[-1]] / hits[-1]) if len(precise) else 0.0


def accuracy_rows(outcomes: list[Outcome]) -> Iterator[tuple[str, str, str]]:
    """Give (what, target, measured) for everything but time."""

    def of(*scenarios: str) -> list[Outcome]:
        return [each for each in outcomes if each.scenario in scenarios]

    clean, small, large = of("clean"), of("small spikes"), of("spike")
    main = of(*ANOMALIES, "all kinds")
    alarms = sum(each.false_alarms for each in clean)
    yield (
        "false alarms per 100,000 clean readings",
        "<= 0.1",
        f"{alarms / sum(each.readings for each in clean) * 1e5:.3f}",
    )
    yield "F1, spikes of 6 sd and more", ">= 0.985", f"{f1(large):.4f}"
    yield from small_spike_rows("4.5 to 6 sd", small)
    yield from small_spike_rows("three times as many", of("frequent small spikes"))
    yield "F1, all kinds of anomalies, pooled", ">= 0.975", f"{f1(main):.4f}"
    yield (
        "F1, all kinds of anomalies, mean of sensors",
        ">= 0.975",
        f"{np.mean([f1([each]) for each in main]):.4f}",
    )
    yield "AUC-PR", ">= 0.97", f"{average_precision(main):.4f}"
    for kind in ANOMALIES:
        hit = [hit for each in main for hit in each.found.get(kind, [])]
        yield (
            f"events found: {kind}",
            ">= 0.98" if kind not in ("spike", "gap") else "",
            f"{np.mean(hit):.4f}",
        )
    errors = [each.model_error for each in outcomes]
    yield "model error in sd of the noise, median", "<= 0.03", f"{np.median(errors):.4f}"
    yield "  95th percentile", "", f"{np.quantile(errors, 0.95):.4f}"


def print_weakest(outcomes: list[Outcome]) -> None:
    """Print the development sensors with the most wrong readings, to know where to look next."""
    print("\nThe sensors with the most wrong readings")
    for each in sorted(outcomes, key=lambda each: -each.false_alarms - each.misses)[:15]:
        print(
            f"  {each.sensor:32}{each.scenario:14}{each.false_alarms:6} false{each.misses:6} missed"
            f"  model error {each.model_error:.3f}"
        )


def print_table(seeds: int, points: int = 20_000, processes: int = 2) -> list[Outcome]:
    """Measure development and held-out sensors, print both next to the targets, and give the first ones."""
    rows: dict[str, list[str]] = {}
    every: list[Outcome] = []
    with ProcessPoolExecutor(processes) as pool:
        for first in (DEVELOPMENT, HELD_OUT):
            tasks = [
                (seed, points, family, noise, scenario)
                for scenario in SCENARIOS
                for seed in range(first, first + seeds * (CLEAN_SEEDS if scenario == "clean" else 1))
                for family in FAMILIES
                for noise in NOISES
            ]
            outcomes = list(pool.map(measure, tasks, chunksize=16))
            every += outcomes if first == DEVELOPMENT else []
            for what, target, measured in accuracy_rows(outcomes):
                rows.setdefault(what, [target]).append(measured)
            cpu_seconds((first, "piecewise", "gaussian", ()))  # imports pwlf
            times = [
                cpu_seconds((first, family, noise, anomalies))
                for family in FAMILIES
                for noise, anomalies in (("gaussian", ()), ("student_t", ANOMALIES))
            ]
            rows.setdefault("CPU per 105,000-reading sensor, mean, ms", ["<= 50"]).append(
                f"{np.mean(times) * 1e3:.1f}"
            )
            rows.setdefault("  95th percentile, ms", ["<= 100"]).append(
                f"{np.quantile(times, 0.95) * 1e3:.1f}"
            )
            times = [cpu_of_innovations(seed) for seed in range(first, first + 12)]
            rows.setdefault("CPU where innovations are judged, mean, ms", ["<= 50"]).append(
                f"{np.mean(times) * 1e3:.1f}"
            )
            rows.setdefault("  95th percentile of these, ms", ["<= 100"]).append(
                f"{np.quantile(times, 0.95) * 1e3:.1f}"
            )

    print(f"{2 * len(every):,} sensors of about {points:,} readings, {seeds} seeds each\n")
    print(f"{'':48}{'target':>10}{'developed':>12}{'held out':>12}")
    for what, cells in rows.items():
        print(f"{what:48}{cells[0]:>10}{cells[1]:>12}{cells[2]:>12}")
    return every


def main() -> None:
    """Run the suite on development and held-out seeds and print both next to the targets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=8, help="seeds of each kind (default: 8)")
    parser.add_argument("--points", type=int, default=20_000, help="readings of a sensor (default: 20,000)")
    parser.add_argument("--processes", type=int, default=2, help="processes to use (default: 2)")
    parser.add_argument("--weakest", action="store_true", help="also print where most readings are wrong")
    options = parser.parse_args()
    every = print_table(options.seeds, options.points, options.processes)
    if options.weakest:
        print_weakest(every)


if __name__ == "__main__":
    main()
