"""Judge readings that follow one another closely by how far each jumps from where the last ones lead."""

from dataclasses import dataclass

import numpy as np

from iot_pipeline.detection.autoregression import predict
from iot_pipeline.detection.cycles import DAY
from iot_pipeline.detection.day_cells import DayCells
from iot_pipeline.detection.events import (
    ALWAYS_POSSIBLE,
    LONGEST_BURST,
    NATURAL,
    Run,
    gap_runs,
    less_where_usual,
    stuck_runs,
)
from iot_pipeline.detection.patches import find_patches, heights_of
from iot_pipeline.detection.prepare import Readings, sampled
from iot_pipeline.detection.slow import slow_evidence
from iot_pipeline.detection.tails import calibrated, deviations
from iot_pipeline.detection.types import BoolArray, FloatArray, IntArray

LIMIT = 12.5  # of the evidence; about one alarm in a thousand hours
_FAR_OUT = 0.98  # a quantile,
_GAUSSIAN = (3.25, 3.9)  # and how many medians it is away; 3.45 in Gaussian noise
_FINE = 3.0  # times the least scale, half the resolution
_FLOOR = 0.1  # of the usual innovation
_CLIP = 6.0  # likewise, beyond which an innovation has no more say in the local scale
_USUAL_STEP = 900.0  # seconds
_PER_STEP = 0.75  # evidence per e-fold of readings an hour, so that alarms are as rare per hour everywhere
_LARGEST_SHARE = 0.1  # of the readings; where more would be flagged, the prediction explains too little
_DOUBTS = (1.0, 1.25, 1.6, 2.0, 2.5, 3.2, 4.0, 5.0, 6.4, 8.0)  # what scores are divided by then
_BETWEEN = 300  # readings on average between two events: where they are more frequent, they are natural
_FEW = 3  # readings that make a burst
_KINDS = ("spike", "burst", "level_shift", "stuck", "drift")


@dataclass(frozen=True, eq=False)
class Innovations:
    """What n readings bring that those before don't foretell; in scaled units.

    Attributes:
        values: float64, shape (n,), reading minus prediction.
        usable: bool, shape (n,), whether as many readings as are needed precede without a pause.
        filter: float64, shape (p + 1,), turns readings into innovations.
        scale: float64, shape (n,), the local standard deviation of the innovations.
        cells: The readings' days and times of the day.
    """

    values: FloatArray
    usable: BoolArray
    filter: FloatArray
    scale: FloatArray
    cells: DayCells

    def are_gaussian(self, floor: float) -> bool:
        """Say whether they scatter as Gaussian noise does, which no coarse resolution hides.

        Then a curve with noise around it, which may remember its past, describes the sensor. Few events are
        rarer than the quantile that tells. The floor is that of the readings.
        """
        scale = sampled(self.scale)
        size = np.abs(sampled(self.values) / scale)[sampled(self.usable)]
        fine = float(np.median(scale)) > _FINE * floor
        away = float(np.quantile(size, _FAR_OUT)) / max(float(np.median(size)), 1e-12)
        return fine and _GAUSSIAN[0] < away < _GAUSSIAN[1]


def find_innovations(readings: Readings) -> Innovations:
    """Predict many readings, and tell how large innovations usually are at their time of the day and week."""
    cells = DayCells(readings)
    values, usable, filter_ = predict(readings)
    size = np.abs(values)
    usual = float(np.median(sampled(size))) or float(size.mean())
    bounded = np.minimum(size, _CLIP * usual)
    local = cells.local_mean(bounded, hours=2, pseudo=(50.0, 10.0))
    scale = np.sqrt(np.pi / 2) * np.maximum(local, _FLOOR * float(bounded.mean()))
    return Innovations(values, usable, filter_, np.maximum(scale, readings.floor), cells)


def follow(readings: Readings, found: Innovations) -> tuple[FloatArray, FloatArray, list[Run], float]:
    """Find patches between two edges, edges alone, runs of repeats and slow shapes in n readings.

    Returns:
        The scores, float64[n]: the deviation of a Gaussian reading as rare as this one, or as what it belongs
        to; what is expected, float64[n], in scaled units: where the readings before lead, without what is
        anomalous about them; the anomalies in the order of time; and what the scores were divided by, since
        too much or too often would be flagged, else 1.
    """
    scale = found.scale
    z = found.values / scale
    tail = calibrated(z[found.usable], few=2 * NATURAL)
    longest = int(DAY / max(readings.step, 1.0))
    patches, rest = find_patches(found.values, scale, found.filter, tail, longest)
    calm = readings.values - heights_of(patches, len(rest))
    edges = np.minimum(tail(rest / scale), tail(z))

    # An event has two edges: a reading counts as much as its own or as the next one, whichever is more.
    evidence = np.maximum(edges, np.append(edges[1:], 0.0))
    kinds = np.full(len(rest), _KINDS.index("level_shift"))

    def claim(part: slice, kind: str, count: FloatArray | float) -> None:
        more = count > evidence[part]
        evidence[part][more] = np.broadcast_to(count, more.shape)[more]
        kinds[part][more] = _KINDS.index(kind)

    for patch in patches:
        length = patch.stop - patch.start
        kind = "spike" if length < _FEW else "burst" if length <= LONGEST_BURST else "level_shift"
        claim(slice(patch.start, patch.stop), kind, patch.evidence)
    for run in less_where_usual(stuck_runs(readings, found.cells), len(rest)):
        claim(slice(run.start, run.stop), "stuck", run.evidence)
    claim(slice(None), "drift", slow_evidence(found.cells.seconds, calm, readings.step))
    rate = _PER_STEP * float(np.log(_USUAL_STEP / max(readings.step, 1e-3)))
    evidence = np.maximum(evidence - rate, 0.0)
    evidence, runs, doubt = _tempered(evidence, kinds)
    runs = sorted([*runs, *gap_runs(readings.clock)], key=lambda run: run.start)
    # What is expected follows everything but what is flagged.
    flagged = [patch for patch in patches if (patch.evidence - rate) / doubt**2 > LIMIT]
    heights = heights_of(flagged, len(rest))
    missed = found.values - np.convolve(heights, found.filter)[: len(rest)]
    expected = readings.values - heights - missed
    return deviations(evidence), expected, runs, doubt


def _tempered(evidence: FloatArray, kinds: IntArray) -> tuple[FloatArray, list[Run], float]:
    """Divide scores until so few readings are flagged that the prediction can be right; stuck values stay.

    Then until events are rare, since a sensor that has many has them by its nature.

    Returns:
        The evidence that is left, the runs, and what the scores were divided by.
    """
    stuck = kinds == _KINDS.index("stuck")
    most = max(_LARGEST_SHARE * len(evidence), ALWAYS_POSSIBLE)
    for doubt in _DOUBTS:
        tempered = np.where(stuck, evidence, evidence / doubt**2)
        runs = _runs(tempered, kinds)
        if sum(run.stop - run.start for run in runs if run.kind != "stuck") <= most:
            break
    peaks = sorted(float(tempered[run.start : run.stop].max()) for run in runs if run.kind != "stuck")
    often = max(len(evidence) // _BETWEEN, NATURAL)
    if len(peaks) > often:
        doubt *= float(np.sqrt(peaks[-often - 1] / LIMIT))
        tempered = np.where(stuck, evidence, evidence / doubt**2)
        runs = _runs(tempered, kinds)
    return tempered, runs, doubt


def _runs(evidence: FloatArray, kinds: IntArray) -> list[Run]:
    """Make one run of neighbours beyond the limit, stuck or not, called by what is strongest in it."""
    flagged = np.flatnonzero(evidence > LIMIT)
    if not len(flagged):
        return []
    stuck = kinds[flagged] == _KINDS.index("stuck")
    parts = np.split(flagged, np.flatnonzero((np.diff(flagged) > 1) | np.diff(stuck)) + 1)
    peaks = np.array([part[int(np.argmax(evidence[part]))] for part in parts])
    likelihoods = deviations(evidence[peaks]) ** 2 / 2
    return [
        Run(int(part[0]), int(part[-1]) + 1, _KINDS[kind], float(likelihood))
        for part, kind, likelihood in zip(parts, kinds[peaks], likelihoods, strict=True)
    ]
