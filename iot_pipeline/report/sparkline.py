"""A sensor's readings in a picture as small as a word (Tufte, "Beautiful Evidence", 2006)."""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd

WIDTH, HEIGHT = 120, 20
"""In units of the picture; a reading's time decides on one of as many columns."""
_BULK = (0.02, 0.98)
"""Quantiles of a sensor's columns between which they are drawn in full; one wild column flattens nothing."""


@dataclass(frozen=True, slots=True)
class Sparkline:
    """Paths of an SVG picture, WIDTH by HEIGHT, over the same span of time for all sensors.

    Attributes:
        line: The mean of the readings of each column; it is broken where there are none.
        marks: The columns in which an event begins.
    """

    line: str
    marks: str


def read_sparklines(
    connection: duckdb.DuckDBPyConnection, sensor_names: Sequence[str], events: pd.DataFrame
) -> dict[str, Sparkline]:
    """Draw the readings of some sensors.

    Args:
        connection: As ``connect`` returns it.
        sensor_names: The sensors.
        events: The columns sensor_name and start (with a time zone) of their events.
    """
    ((first, last),) = connection.execute(
        "SELECT epoch_us(min(timestamp)), epoch_us(max(timestamp)) FROM measurements"
    ).fetchall()
    if first is None:
        return {}
    width = max((last - first) / (WIDTH - 1), 1.0)
    found = connection.sql(
        """
        SELECT sensor_name, ((epoch_us(timestamp) - $first) // $width)::INTEGER AS place,
            avg(sensor_value) AS level
        FROM measurements
        WHERE sensor_name IN (SELECT unnest($names))
        GROUP BY ALL ORDER BY ALL
        """,
        params={"first": first, "width": width, "names": list(sensor_names)},
    )
    columns = found.to_arrow_table().to_pandas()
    begins = pd.Series(((events["start"].astype("int64") - first) // width).astype(int).clip(0, WIDTH - 1))
    marks = begins.groupby(events["sensor_name"]).unique().to_dict()
    return {
        str(name): Sparkline(
            _line(own["place"].to_numpy(), own["level"].to_numpy()),
            "".join(f"M{place} 0v{HEIGHT}" for place in sorted(marks.get(name, []))),
        )
        for name, own in columns.groupby("sensor_name")
    }


def _line(places: npt.NDArray[np.int32], levels: npt.NDArray[np.float64]) -> str:
    """Write levels as a path, the highest on top."""
    low, high = np.quantile(levels, _BULK)
    with np.errstate(over="ignore", invalid="ignore"):
        share = np.nan_to_num((np.clip(levels, low, high) / 2 - low / 2) / max(high / 2 - low / 2, 1e-300))
    heights = np.rint((1 - np.clip(share, 0, 1)) * (HEIGHT - 2) + 1).astype(int)
    is_first = np.diff(places, prepend=-WIDTH) > 1
    points = zip(is_first.tolist(), places.tolist(), heights.tolist(), strict=True)
    return "".join(f"{'M' if first else 'L'}{place} {height}" for first, place, height in points)
