"""The detector from end to end: prepare, fit, judge, and give the verdict in the order of the input."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from iot_pipeline.detection import explain
from iot_pipeline.detection.events import Run
from iot_pipeline.detection.follow import Innovations, find_innovations, follow
from iot_pipeline.detection.judge import judge
from iot_pipeline.detection.model import Fit, find_rhythm, fit_model
from iot_pipeline.detection.noise import local_scale, neighbour_correlation, scale_cycle
from iot_pipeline.detection.prepare import Readings, prepare, sampled
from iot_pipeline.detection.types import (
    Curve,
    Cycle,
    Detection,
    Event,
    FloatArray,
    Intervals,
    SensorModel,
    TimeArray,
)
from iot_pipeline.kinds import counted

_FEWEST = 24  # readings; fewer get a level and no flags
_CLOSELY = 0.3  # the correlation of neighbouring readings from which they may be judged by innovations,
_ENOUGH = 1_500  # where there are so many
_FEWEST_FOLLOWED = 100  # readings, for innovations where a curve explains too little
_PRECISION = 1e-5  # of the trend's height: a polygon follows a curve no closer
_LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True, eq=False)
class _Outcome:
    """The verdict on n usable readings in the order of time.

    Attributes:
        scores: float64, shape (n,).
        expected: float64, shape (n,), in the unit of the values.
        runs: The anomalies.
        model: The regular behaviour, without its reasoning.
        words: The reasoning, given the events.
    """

    scores: FloatArray
    expected: FloatArray
    runs: list[Run]
    model: SensorModel
    words: Callable[[Sequence[Event]], str]


def detect_anomalies(
    timestamps: npt.ArrayLike, values: npt.ArrayLike, maintenance: Intervals = ()
) -> Detection:
    """Fit a model to a sensor and flag the readings that neither it nor chance explains.

    Where readings depend little on one another but for a curve and a rhythm, or by Gaussian noise with a
    memory, the residuals of a fitted curve are judged. Elsewhere, and where the curve explains too little,
    readings are judged by how far they jump from where the last ones lead.

    Args:
        timestamps: datetime64 of any unit, shape (n,), UTC, in any order; they may repeat.
        values: float64, shape (n,). NaN and infinities are never flagged; their score is NaN.
        maintenance: When somebody worked on the sensor. What was measured then tells nothing about it: it is
            treated as if it were missing, and a gap is one only if the sensor was silent for too long
            outside.

    Returns:
        Flags, scores, expected values and events, aligned with the input, and the model.

    Raises:
        ValueError: if the two are no vectors of the same length.
    """
    times = np.asarray(timestamps, dtype="datetime64[us]")
    raw = np.asarray(values, dtype=np.float64)
    if times.ndim != 1 or times.shape != raw.shape:
        raise ValueError(f"timestamps {times.shape} and values {raw.shape} are no vectors of the same length")
    readings = prepare(times, raw, maintenance)
    return _aligned(times, raw, readings, _judged(readings))


def _judged(readings: Readings) -> _Outcome:
    n = len(readings.values)
    if n < _FEWEST or readings.span <= 0:
        return _too_few(readings)
    rhythm = find_rhythm(readings)
    correlation = neighbour_correlation(rhythm.rough - rhythm.season)
    if n >= _ENOUGH and abs(correlation) >= _CLOSELY:
        innovations = find_innovations(readings)
        if not innovations.are_gaussian(readings.floor):
            return _by_innovations(readings, innovations, explain.CLOSELY, rhythm.cycles, correlation)
    fit = fit_model(readings, rhythm)
    verdict = _by_residuals(readings, fit)
    if verdict.model.misfit and n >= _FEWEST_FOLLOWED:
        innovations = find_innovations(readings)
        return _by_innovations(readings, innovations, explain.NO_CURVE, fit.cycles, correlation)
    return verdict


def _too_few(readings: Readings) -> _Outcome:
    """Answer for less than 24 readings or all at one time: their median, and no flags."""
    n = len(readings.values)
    level = readings.centre if n else np.nan
    sd = 1.4826 * float(np.median(np.abs(readings.values))) * readings.scale if n else np.nan
    model = SensorModel(
        name="constant" if n else "none",
        noise_sd=sd,
        n_points=n,
        origin=readings.origin,
        trend=Curve(np.zeros(1), np.array([level])),
        noise=Curve(np.zeros(1), np.array([sd])),
    )
    words = f"{counted(n, 'usable reading')}: too few, or too close, to tell an anomaly from chance."
    return _Outcome(np.zeros(n), np.full(n, level), [], model, lambda _: words)


def _by_residuals(readings: Readings, fit: Fit) -> _Outcome:
    noise, noise_cycle, z = _noise(readings, fit)
    verdict = judge(readings, z, fit, rhythm=noise_cycle is not None)
    half = readings.span / 2
    model = SensorModel(
        name=explain.model_name(fit),
        breakpoints=tuple(
            readings.origin + np.timedelta64(round((place + 1.0) * half * 1e6), "us")
            for place in fit.trends[0].breaks
        ),
        parameters=explain.model_parameters(fit, readings.span, readings.scale),
        noise_sd=float(np.median(noise.y)) * readings.scale,
        tail_freedom=verdict.freedom,
        autocorrelation=verdict.autocorrelation,
        n_points=len(z),
        misfit=verdict.misfit,
        origin=readings.origin,
        trend=Curve((fit.curve.x + 1.0) * half, _in_units(readings, fit.curve.y)),
        cycles=tuple(replace(cycle, table=cycle.table * readings.scale) for cycle in fit.cycles),
        noise=Curve((noise.x + 1.0) * half, readings.scale * noise.y),
        noise_cycle=noise_cycle,
    )
    return _Outcome(
        scores=_raised(np.abs(verdict.scores), verdict.runs),
        expected=_in_units(readings, fit.expected),
        runs=verdict.runs,
        model=model,
        words=lambda events: explain.reasoning(fit, verdict, events),
    )


def _noise(readings: Readings, fit: Fit) -> tuple[Curve, Cycle | None, FloatArray]:
    """Measure the noise around the curve over time, its daily rhythm, and by both the residuals."""
    n = len(readings.x)
    residual = readings.values - fit.expected
    floor = max(readings.floor, _PRECISION * float(np.max(np.abs(fit.curve.y))))
    unbiased = residual * np.sqrt(n / max(n - fit.trends[0].size, 1))
    curve = local_scale(readings.x, unbiased, floor)
    rhythm = scale_cycle(readings.seconds, residual / curve(readings.x), fit.cycles)
    if rhythm:
        loudness = np.exp(rhythm(readings.seconds))
        curve = local_scale(readings.x, unbiased / loudness, floor)
        residual = residual / loudness
    return curve, rhythm, residual / curve(readings.x)


def _by_innovations(
    readings: Readings, innovations: Innovations, why: str, cycles: Sequence[Cycle], correlation: float
) -> _Outcome:
    scores, scaled, runs, doubt = follow(readings, innovations)
    expected = _in_units(readings, scaled)
    noise = np.minimum(innovations.scale, _LARGEST / readings.scale) * readings.scale
    model = SensorModel(
        name="autoregression",
        parameters=(("residual_autocorrelation", correlation),),
        noise_sd=float(np.median(sampled(noise))),
        autocorrelation=correlation,
        n_points=len(noise),
        misfit=doubt > 1.0,
        origin=readings.origin,
        # Nothing is predicted but readings: between two of them, the line through what was expected of both.
        trend=Curve(readings.seconds, expected),
        noise=Curve(readings.seconds, noise),
    )
    return _Outcome(
        scores=_raised(scores, [run for run in runs if run.kind == "gap"]),
        expected=expected,
        runs=runs,
        model=model,
        words=lambda events: explain.reasoning_of_innovations(
            why, cycles, correlation, events, doubt=doubt, runs=runs
        ),
    )


def _raised(scores: FloatArray, runs: list[Run]) -> FloatArray:
    """Let the readings of a run count as much as the whole, float64[n]."""
    raised = scores.copy()
    for run in runs:
        part = raised[run.start : run.stop]
        np.maximum(part, run.score, out=part)
    return raised


def _in_units(readings: Readings, scaled: FloatArray) -> FloatArray:
    """Bring scaled values back to the unit of the readings, float64[n]; what would overflow stays finite."""
    with np.errstate(over="ignore"):
        return np.clip(readings.centre + readings.scale * scaled, -_LARGEST, _LARGEST)


def _aligned(times: TimeArray, values: FloatArray, readings: Readings, verdict: _Outcome) -> Detection:
    """Put the verdict on the sorted readings back into the order of the input."""
    order = readings.order
    scores, expected = np.full((2, len(times)), np.nan)
    scores[order], expected[order] = verdict.scores, verdict.expected
    if len(order) < len(times):
        dated = np.flatnonzero(np.isnan(expected) & ~np.isnat(times))
        expected[dated] = verdict.model.expected_at(times[dated])
    ids = np.full(len(times), -1, dtype=np.intp)
    kinds = np.zeros(len(times), dtype="<U11")  # as long as "level_shift"
    events: list[Event] = []
    # The first reading after a gap tells of the gap, whatever else it is.
    after_gaps = [run.start for run in verdict.runs if run.kind == "gap"]
    for run in verdict.runs:
        members = np.arange(run.start, run.stop)
        place = order[members if run.kind == "gap" else np.setdiff1d(members, after_gaps)]
        place = place[ids[place] < 0]
        if not len(place):
            continue
        ids[place] = len(events)
        kinds[place] = run.kind
        first = order[run.start - 1] if run.kind == "gap" else place[0]
        events.append(
            Event(
                kind=run.kind,
                start=times[first],
                end=times[place[-1]],
                n_points=len(place),
                peak_score=float(scores[place].max()),
                mean_residual=_mean_residual(values[place], expected[place]),
            )
        )
    reasoning = verdict.words(events)
    if readings.left_out:
        reasoning += f" Left out for maintenance: {counted(readings.left_out, 'reading')}."
    model = replace(verdict.model, reasoning=reasoning)
    return Detection(ids >= 0, scores, expected, kinds, ids, tuple(events), model)


def _mean_residual(values: FloatArray, expected: FloatArray) -> float:
    """Average deviations that may be as large as a number can be."""
    half = np.sum((values / 2 - expected / 2) / len(values))
    return float(np.clip(half, -_LARGEST / 2, _LARGEST / 2) * 2)
