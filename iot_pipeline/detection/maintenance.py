"""Judging a sensor that somebody has worked on: what was measured meanwhile tells nothing about it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from iot_pipeline.detection.detect import detect_anomalies
from iot_pipeline.detection.events import gap_runs
from iot_pipeline.detection.explain import counted
from iot_pipeline.detection.types import BoolArray, Detection, IntArray, TimeArray

Intervals = Sequence[tuple[int, int]]
"""Times from … to, both included, in microseconds since the epoch (UTC); ascending, without overlaps."""


def detect_outside(timestamps: npt.ArrayLike, values: npt.ArrayLike, maintenance: Intervals) -> Detection:
    """Fit a model to the readings outside maintenance and flag those that it doesn't explain.

    A gap is one only if the sensor was silent for too long outside maintenance.

    Args:
        timestamps: As for ``detect_anomalies``.
        values: Likewise.
        maintenance: The times of maintenance; where there are none, this is ``detect_anomalies``.

    Returns:
        As ``detect_anomalies``, aligned with all readings. Those within maintenance are not flagged, and
        their score is NaN.
    """
    if not maintenance:
        return detect_anomalies(timestamps, values)
    times: TimeArray = np.asarray(timestamps, dtype="datetime64[us]")
    readings = np.asarray(values, dtype=np.float64)
    instants = times.astype(np.int64)
    within = np.zeros(len(times), dtype=bool)
    for start, end in maintenance:
        within |= (start <= instants) & (instants <= end)
    kept = np.flatnonzero(~within)
    found = detect_anomalies(times[kept], readings[kept])
    real = _real_gaps(times[kept][np.isfinite(readings[kept])], maintenance)
    stays = np.array([event.kind != "gap" or event.end in real for event in found.events], dtype=bool)
    numbers = np.append(np.where(stays, np.cumsum(stays) - 1, -1), -1)  # the last: of what isn't flagged
    ids: IntArray = np.full(len(times), -1, dtype=np.intp)
    ids[kept] = numbers[found.event_ids]
    scores, expected = np.full((2, len(times)), np.nan)
    scores[kept], expected[kept] = found.scores, found.expected
    if within.any() and len(kept):
        expected[within] = found.model.expected_at(times[within])
    kinds = np.zeros(len(times), dtype=found.kinds.dtype)
    kinds[kept] = np.where(ids[kept] >= 0, found.kinds, "")
    return replace(
        found,
        flags=ids >= 0,
        scores=scores,
        expected=expected,
        kinds=kinds,
        event_ids=ids,
        events=tuple(event for event, stay in zip(found.events, stays, strict=True) if stay),
        model=replace(found.model, reasoning=found.model.reasoning + _left_out(within, stays)),
    )


def _real_gaps(times: TimeArray, maintenance: Intervals) -> set[np.datetime64]:
    """Return the readings that end a gap by a clock that stands still during maintenance."""
    ordered = np.sort(times)
    instants = ordered.astype(np.int64)
    clock = instants.copy()
    for start, end in maintenance:
        clock -= np.clip(instants - start, 0, end - start)
    return set(ordered[[run.start for run in gap_runs(clock / 1e6)]])


def _left_out(within: BoolArray, stays: BoolArray) -> str:
    left_out = counted(int(within.sum()), "reading")
    gaps = int(np.count_nonzero(~stays))
    explained = (
        f", and so {'is' if gaps == 1 else 'are'} {counted(gaps, 'gap')} that it explains" if gaps else ""
    )
    return f" Left out for maintenance: {left_out}{explained}."
