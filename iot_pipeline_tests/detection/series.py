"""Seeded sensors for the tests."""

import numpy as np

from iot_pipeline.samples.series import LabelledSeries, irregular_timestamps, make_series

POINTS = 20_000


def sensor(
    family: str = "linear",
    noise: str = "gaussian",
    *anomalies: str,
    seed: int = 7,
    points: int = POINTS,
    spike_sd: tuple[float, float] = (6.0, 15.0),
) -> LabelledSeries:
    """Draw a labelled sensor of about so many readings."""
    rng = np.random.default_rng(seed)
    times = irregular_timestamps(rng, start="2013-01-01", days=points / 96)
    return make_series(rng, times, family=family, noise=noise, anomalies=anomalies, spike_sd=spike_sd)
