"""How rare a deviation is, told by the quantiles of a series' own."""

from collections.abc import Callable

import numpy as np
from scipy import special

from iot_pipeline.detection.prepare import sampled
from iot_pipeline.detection.types import FloatArray

# A quantile, where it mostly lies, in standard deviations, and minus the logarithm of what lies beyond.
_NEAR = (0.95, 2.2, 3.0)
_FAR = (0.998, 6.0, 6.22)
_LEAST_FAR = 0.97  # of the greater quantile, in a short series
_GRID = np.concatenate(([0.0], np.geomspace(1e-2, 1e12, 600)))
_DEVIATIONS = -special.ndtri_exp(-_GRID - np.log(2.0))

Tail = Callable[[FloatArray], FloatArray]
"""Evidence against chance, -ln p, of deviations of either sign."""


def calibrated(z: FloatArray, evidence: float = _FAR[2], few: int = 0) -> Tail:
    """Let evidence grow along straight lines to a near and a far quantile, and on beyond.

    Each is the geometric mean of a series' own quantile and the one that sensors mostly have. A distribution
    fitted to the core would have to be extrapolated: after a power law nothing is ever rare.

    Args:
        z: float64, shape (n,), deviations of either sign.
        evidence: What the far quantile counts; more for what comes in few independent pieces.
        few: So many deviations alone must not tell what is rare: in a short series they'd hide themselves.
    """
    size = sampled(np.abs(z))
    far_out = float(np.clip(1.0 - few / len(size), _LEAST_FAR, _FAR[0]))
    # The quantile that is asked lies on the straight part, so far from the near one to the far one.
    share = float((-np.log(1.0 - far_out) - _NEAR[2]) / (_FAR[2] - _NEAR[2]))
    own = np.quantile(size, (_NEAR[0], far_out))
    usual = _NEAR[1], _NEAR[1] + share * (_FAR[1] - _NEAR[1])
    near, far = np.sqrt(np.maximum(own, 1e-9) * usual).tolist()
    at_far = _NEAR[2] + share * (evidence - _NEAR[2])
    slope = (at_far - _NEAR[2]) / (far - near)

    def tail(z: FloatArray) -> FloatArray:
        size = np.abs(z)
        result: FloatArray = np.where(size < near, size * (_NEAR[2] / near), _NEAR[2] + (size - near) * slope)
        return result

    return tail


def deviations(evidence: FloatArray) -> FloatArray:
    """Give how many standard deviations off, on either side, a Gaussian reading has this evidence, -ln p."""
    return np.asarray(np.interp(evidence, _GRID, _DEVIATIONS), dtype=np.float64)
