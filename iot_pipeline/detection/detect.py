"""The detector from end to end: prepare, fit, judge, and give the verdict in the order of the input."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from iot_pipeline.detection.events import Run
from iot_pipeline.detection.explain import counted, model_name, model_parameters, reasoning
from iot_pipeline.detection.judge import judge
from iot_pipeline.detection.model import fit_model
from iot_pipeline.detection.noise import local_scale, scale_cycle
from iot_pipeline.detection.prepare import Readings, prepare
from iot_pipeline.detection.types import (
    Curve,
    Detection,
    Event,
    FloatArray,
    IntArray,
    SensorModel,
    TimeArray,
)

_FEWEST = 24  # readings; fewer get a level and no flags
_LARGEST_SHARE = 0.05  # of the readings; where more would be flagged, the model is at fault
_LARGEST_SINGLE = 0.02  # of the readings, for single ones: there the noise is misunderstood
_TRUSTED = 2.0  # times that share, where the trend leaves nothing but noise and events
_ALWAYS_POSSIBLE = 10  # readings that may be flagged however short the series
_PRECISION = 1e-5  # of the trend's height: a polygon follows a curve no closer
_KIND = "<U11"  # as long as "level_shift"


def detect_anomalies(timestamps: npt.ArrayLike, values: npt.ArrayLike) -> Detection:
    """Fit a model to a sensor and flag the readings that neither it nor chance explains.

    Args:
        timestamps: datetime64 of any unit, shape (n,), UTC, in any order; they may repeat.
        values: float64, shape (n,). NaN and infinities are never flagged; their score is NaN.

    Returns:
        Flags, scores, expected values and events, aligned with the input, and the model.

    Raises:
        ValueError: if the two are no vectors of the same length.
    """
    times = np.asarray(timestamps, dtype="datetime64[us]")
    raw = np.asarray(values, dtype=np.float64)
    if times.ndim != 1 or times.shape != raw.shape:
        raise ValueError(f"timestamps {times.shape} and values {raw.shape} are no vectors of the same length")
    readings = prepare(times, raw)
    n = len(readings.values)
    span = float(readings.seconds[-1]) if n else 0.0
    if n < _FEWEST or span <= 0:
        return _too_few(times, raw, readings)

    x = readings.seconds * (2.0 / span) - 1.0
    fit = fit_model(readings, x)
    residual = readings.values - fit.expected
    floor = max(readings.floor, _PRECISION * float(np.max(np.abs(fit.curve.y))))
    freedom = max(n - fit.trends[0].size, 1)
    unbiased = residual * np.sqrt(n / freedom)
    noise = local_scale(x, unbiased, fit.blocks.index, floor)
    rhythm = scale_cycle(readings.seconds, residual / noise(x), fit.cycles)
    if rhythm:
        loudness = np.exp(rhythm(readings.seconds))
        noise = local_scale(x, unbiased / loudness, fit.blocks.index, floor)
        residual = residual / loudness
    verdict = judge(readings, x, residual / noise(x), fit, rhythm=rhythm is not None)
    flagged = sum(run.stop - run.start for run in verdict.runs)
    most = _LARGEST_SHARE * (_TRUSTED if fit.adequate else 1.0) * n
    misfit = flagged > max(most, _ALWAYS_POSSIBLE) or verdict.n_single > max(
        _LARGEST_SINGLE * n, _ALWAYS_POSSIBLE
    )

    seconds = span / 2
    model = SensorModel(
        name=model_name(fit),
        breakpoints=tuple(
            readings.origin + np.timedelta64(round((place + 1.0) * seconds * 1e6), "us")
            for place in fit.trends[0].breaks
        ),
        parameters=model_parameters(fit, span, readings.scale),
        noise_sd=float(np.median(noise.y)) * readings.scale,
        tail_freedom=verdict.freedom,
        autocorrelation=verdict.autocorrelation,
        n_points=n,
        misfit=misfit,
        reasoning="",
        origin=readings.origin,
        trend=Curve((fit.curve.x + 1.0) * seconds, readings.centre + readings.scale * fit.curve.y),
        cycles=tuple(replace(cycle, table=cycle.table * readings.scale) for cycle in fit.cycles),
        noise=Curve((noise.x + 1.0) * seconds, readings.scale * noise.y),
        noise_cycle=rhythm,
    )
    detection = _aligned(
        times,
        raw,
        readings.order,
        scores_in_time=verdict.scores,
        expected_in_time=readings.centre + readings.scale * fit.expected,
        runs=[] if misfit else verdict.runs,
        model=model,
    )
    words = reasoning(fit, verdict, detection.events, share=flagged / n, misfit=misfit)
    return replace(detection, model=replace(model, reasoning=words))


def _aligned(
    times: TimeArray,
    values: FloatArray,
    order: IntArray,
    *,
    scores_in_time: FloatArray,
    expected_in_time: FloatArray,
    runs: list[Run],
    model: SensorModel,
) -> Detection:
    """Put the verdict on the sorted readings back into the order of the input."""
    scores = np.full(len(times), np.nan)
    scores[order] = np.abs(scores_in_time)
    expected = np.full(len(times), np.nan)
    expected[order] = expected_in_time
    if len(order) < len(times):
        dated = np.flatnonzero(np.isnan(expected) & ~np.isnat(times))
        expected[dated] = model.expected_at(times[dated])
    ids = np.full(len(times), -1, dtype=np.intp)
    kinds = np.zeros(len(times), dtype=_KIND)
    events: list[Event] = []
    for run in runs:
        place = order[run.start : run.stop]
        place = place[ids[place] < 0]
        if not len(place):
            continue
        ids[place] = len(events)
        kinds[place] = run.kind
        scores[place] = np.maximum(scores[place], run.score)
        first = order[run.start - 1] if run.kind == "gap" else place[0]
        events.append(
            Event(
                kind=run.kind,
                start=times[first],
                end=times[place[-1]],
                n_points=len(place),
                peak_score=float(scores[place].max()),
                mean_residual=float(np.sum((values[place] - expected[place]) / len(place))),
            )
        )
    return Detection(ids >= 0, scores, expected, kinds, ids, tuple(events), model)


def _too_few(times: TimeArray, raw: FloatArray, readings: Readings) -> Detection:
    """Answer for less than 24 readings or all at one time: their median, and no flags."""
    n = len(readings.values)
    level = readings.centre if n else np.nan
    sd = 1.4826 * float(np.median(np.abs(readings.values))) * readings.scale if n else np.nan
    model = SensorModel(
        name="constant" if n else "none",
        breakpoints=(),
        parameters=(),
        noise_sd=sd,
        tail_freedom=np.inf,
        autocorrelation=0.0,
        n_points=n,
        misfit=False,
        reasoning=f"{counted(n, 'usable reading')}: too few, or too close, to tell an anomaly from chance.",
        origin=readings.origin,
        trend=Curve(np.zeros(1), np.array([level])),
        cycles=(),
        noise=Curve(np.zeros(1), np.array([sd])),
    )
    return _aligned(
        times,
        raw,
        readings.order,
        scores_in_time=np.zeros(n),
        expected_in_time=np.full(n, level),
        runs=[],
        model=model,
    )
