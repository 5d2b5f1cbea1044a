"""How much of the axis of readings is shown: one huge reading would make a flat line of all others."""

import numpy as np

from iot_pipeline.explore._data import Judged

HUGE = 1e300
"""The greatest value that is drawn: the span of an axis must be a finite number."""
_QUANTILES = (0.001, 0.999)
_FAR = 20  # times as far from the model's band as this is high, nothing belongs to the bulk
_MARGIN = 0.06


def bulk_edges(judged: Judged, inside: slice) -> tuple[float, float] | None:
    """Return the ends of an axis that shows the bulk of a sensor's readings.

    That is the model's band of three standard deviations, and the middle 99.8 % of the readings that are no
    further from it than twenty times its height.

    Args:
        judged: The sensor's readings and its model.
        inside: The readings that are shown.

    Returns:
        The least and the greatest value in the unit of the readings, finite; None without readings, or where
        numbers are too coarse to tell the two apart.
    """
    values, expected, noise = judged.values[inside], judged.expected[inside], judged.noise[inside]
    if not len(values):
        return None
    with np.errstate(over="ignore"):
        low, high = float(np.min(expected - 3 * noise)), float(np.max(expected + 3 * noise))
        far = _FAR * (high - low)
        near = values[(values >= low - far) & (values <= high + far)]
        if len(near):
            least, greatest = np.quantile(near, _QUANTILES, method="nearest").tolist()
            low, high = min(low, least), max(high, greatest)
        margin = _MARGIN * (high - low)
        low, high = max(low - margin, -HUGE), min(high + margin, HUGE)
        return (low, high) if low < high else None
