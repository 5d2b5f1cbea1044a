"""Decide which standardised residuals are anomalous, given the tails and the memory of the noise."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from iot_pipeline.detection.blocks import block_index
from iot_pipeline.detection.events import (
    ALWAYS_POSSIBLE,
    LARGEST_SHARE,
    Run,
    collective_runs,
    gap_runs,
    less_where_usual,
    stuck_runs,
)
from iot_pipeline.detection.model import Fit
from iot_pipeline.detection.noise import gaussianise, inflation, local_scale, memory, tail_freedom, whiten
from iot_pipeline.detection.prepare import Readings
from iot_pipeline.detection.tails import deviations
from iot_pipeline.detection.types import BoolArray, FloatArray

_CALM = 5.0  # median deviations within which a block is like the others
_CORE = 3.0  # standard deviations beyond which a reading is clipped before the noise's memory is judged
_DISCOVERIES = 0.019  # the share of flagged points that may be regular
_ANY = 0.0075  # the chance that a clean sensor gets any flag
_LONG = 5_000  # readings that tell the tails of the noise well enough
_TINY = 1e-6
_NEAREST = 3.0  # standard deviations that a flagged point has at least
_BURST = 3  # flagged points in a row that make a burst
_LARGEST_SINGLE = 0.02  # of the readings, for single ones: where more would be, the noise is misunderstood
_TRUSTED = 2.0  # times the largest share, where the trend leaves nothing but noise and events
_STUCK_BY_CHANCE = 1e-3  # runs a sensor


@dataclass(frozen=True, eq=False)
class Verdict:
    """What is anomalous, and the noise that it was judged by.

    Attributes:
        scores: float64, shape (n,), signed Gaussian scores.
        runs: The anomalies in the order of time; a gap may lie within another one.
        freedom: Degrees of freedom of the noise.
        autocorrelation: The correlation of neighbouring readings, 0 where insignificant.
        misfit: Whether so much would be flagged that the model explains too little; then only stuck values
            and gaps are.
    """

    scores: FloatArray
    runs: list[Run]
    freedom: float
    autocorrelation: float
    misfit: bool


def judge(readings: Readings, z: FloatArray, fit: Fit, *, rhythm: bool) -> Verdict:
    """Test standardised residuals, first by the noise of all readings, then by that outside the events found.

    Args:
        readings: n of them.
        z: float64, shape (n,), residuals in local standard deviations.
        fit: The model.
        rhythm: Whether the noise is louder at some times of the day or the week, as where people come and
            go. No two days are alike there, so all days tell how much sums of readings vary.
    """
    starts = np.concatenate(([0], np.searchsorted(readings.x, fit.trends[0].breaks)))
    stuck = _stuck(readings)
    testable = _outside(stuck, np.ones(len(z), dtype=bool))
    regular = testable & _calm(z)
    collective: list[Run] = []
    known = None
    for _ in range(2):
        core = np.where(regular, np.clip(z, -_CORE, _CORE), 0.0)
        coefficients = memory(core)
        white = z
        if len(coefficients):
            white = whiten(z, coefficients)
            white = white / local_scale(readings.x, white, _TINY)(readings.x)
            # Nothing comes before the first reading, and a break may lie a reading or two beside the jump:
            # what comes before it may excuse what comes after, but not accuse it.
            after = starts[:, None] + np.arange(-1, len(coefficients) + 1)
            after = np.clip(after, 0, len(z) - 1)
            white[after] = np.where(np.abs(white) < np.abs(z), white, z)[after]
        freedom, scale = tail_freedom(white[regular])
        # A short series tells too little about its scale and its tails to believe in Gaussian ones.
        certainty = np.inf if len(z) > _LONG else min(len(z) / 2, 30.0)
        scores = gaussianise(white, min(freedom, certainty), scale)
        deflation = inflation(np.clip(scores, -_CORE, _CORE), testable if rhythm else regular)
        noise = (freedom, scale, deflation, coefficients.tobytes())
        if noise == known:
            break
        known = noise
        collective = collective_runs(np.where(testable, scores, 0.0), z, deflation)
        regular = _outside(collective, testable)

    points = point_runs(scores, regular)
    misfit = _too_many(collective, points, len(z), trusted=fit.trends[0].is_adequate())
    found = [] if misfit else _united(collective, points)
    runs = sorted([*stuck, *found, *gap_runs(readings.clock)], key=lambda run: run.start)
    correlation = float(np.sum(core[1:] * core[:-1]) / np.sum(core**2)) if len(coefficients) else 0.0
    return Verdict(scores, runs, freedom, correlation, misfit)


def _too_many(collective: list[Run], points: list[Run], n: int, *, trusted: bool) -> bool:
    """Say whether so much of n readings would be flagged that the model explains too little.

    A model is trusted more whose trend leaves nothing but noise and events.
    """
    single = sum(run.stop - run.start for run in points)
    flagged = single + sum(run.stop - run.start for run in collective)
    most = LARGEST_SHARE * (_TRUSTED if trusted else 1.0) * n
    return flagged > max(most, ALWAYS_POSSIBLE) or single > max(_LARGEST_SINGLE * n, ALWAYS_POSSIBLE)


def _stuck(readings: Readings) -> list[Run]:
    """Find runs of equal values that chance doesn't explain."""
    n = len(readings.values)
    limit = float(np.log(n / _STUCK_BY_CHANCE))
    runs = stuck_runs(readings, limit=limit)
    found = [run for run in runs if run.evidence > limit]
    if sum(run.stop - run.start for run in found) > LARGEST_SHARE * n:
        found = [run for run in less_where_usual(runs, n) if run.evidence > limit]
    return [replace(run, evidence=float(deviations(np.array(run.evidence))) ** 2 / 2) for run in found]


def _calm(z: FloatArray) -> BoolArray:
    """Mark the readings of blocks whose level and spread are those of most blocks, bool[n]: a first guess."""
    index = block_index(len(z))
    rows = np.clip(z[index], -_CORE, _CORE)
    calm = np.ones(len(rows), dtype=bool)
    for figure in (rows.mean(axis=1), np.sum(rows**2, axis=1)):
        distance = np.abs(figure - np.median(figure))
        calm &= distance <= _CALM * float(np.median(distance))
    result = np.zeros(len(z), dtype=bool)
    result[index[calm]] = True
    return result


def _united(collective: list[Run], points: list[Run]) -> list[Run]:
    """Count single readings that touch a longer run among it."""
    runs: list[Run] = []
    for run in sorted(collective + points, key=lambda run: run.start):
        before = runs[-1] if runs else run
        if run.start == before.stop and "spike" in {run.kind, before.kind}:
            kind = before.kind if run.kind == "spike" else run.kind
            runs[-1] = Run(before.start, run.stop, kind, max(before.evidence, run.evidence))
        else:
            runs.append(run)
    return runs


def _outside(runs: list[Run], free: BoolArray) -> BoolArray:
    rest = free.copy()
    for run in runs:
        rest[run.start : run.stop] = False
    return rest


def point_runs(scores: FloatArray, free: BoolArray) -> list[Run]:
    """Find single Gaussian scores that stand out among the free ones, float64[n] and bool[n].

    Neighbours make one run. Sources: Benjamini & Hochberg, "Controlling the false discovery rate", J. R.
    Statist. Soc. B 57 (1995), after a test of the whole by Simes, Biometrika 73 (1986).
    """
    size = np.abs(scores)
    far = np.flatnonzero(free & (size > _NEAREST))
    far = far[np.argsort(-size[far], kind="stable")]
    p = 2.0 * special.ndtr(-size[far])
    tested = max(int(np.count_nonzero(free)), 1)
    rank = np.arange(1, len(p) + 1)
    passed = np.flatnonzero(p <= _DISCOVERIES * rank / tested)
    # Whether there is any outlier at all is asked more strictly, so that clean sensors stay without flags.
    if not np.any(p <= _ANY * rank / tested):
        return []
    flagged = np.sort(far[: passed[-1] + 1])
    return [
        Run(
            start=int(part[0]),
            stop=int(part[-1]) + 1,
            kind="spike" if len(part) < _BURST else "burst",
            evidence=float(size[part].max()) ** 2 / 2,
        )
        for part in np.split(flagged, np.flatnonzero(np.diff(flagged) > 1) + 1)
    ]
