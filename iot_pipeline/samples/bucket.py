"""Writes a bucket like the challenge's: the mapping, and measurement files with every quirk of the real ones.

The rows are clean and only their formats vary, so the result of a load is known exactly. The readings and
anomalies of each sensor come from ``samples.series``.
"""

import itertools
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv
from tqdm import tqdm

from iot_pipeline.berlin import BERLIN, to_instant
from iot_pipeline.samples.series import (
    ANOMALIES,
    FAMILIES,
    NOISES,
    LabelledSeries,
    irregular_timestamps,
    make_series,
)

FIRST_READING = datetime(2012, 12, 31, 23, 53, tzinfo=BERLIN)

_LAYOUTS = (
    ("timestamp", "sensor_uuid", "sensor_value"),
    ("", "timestamp", "sensor_uuid", "sensor_value"),
    ("timestamp", "sensor_uuid", "sensor_value", "unit", "status"),
    ("sensor_value", "timestamp", "sensor_uuid"),
)


def _naive(time: datetime) -> str:
    return str(time.replace(tzinfo=None))


def _zulu(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _short_offset(time: datetime) -> str:
    return str(time.astimezone(UTC)).removesuffix(":00")


# The rows of a file rotate through its spellings (`str` and `isoformat` keep the offset). The files rotate
# through layouts and sets of spellings: with four layouts and seven sets, 28 files cover every pair.
_SPELLINGS: tuple[tuple[Callable[[datetime], str], ...], ...] = (
    (str,),
    (_naive,),
    (str, _naive),
    (datetime.isoformat,),
    (_zulu,),
    (_short_offset,),
    (_naive, datetime.isoformat),
)


@dataclass(frozen=True)
class SampleReport:
    """The size of a sample bucket.

    Attributes:
        files: The number of measurement files.
        rows: The number of readings in them.
        bytes: The total size of the measurement files.
    """

    files: int
    rows: int
    bytes: int


def write_sample_bucket(
    directory: Path,
    *,
    sensors: int,
    days: float,
    seed: int,
    start: datetime = FIRST_READING,
    rows_per_file: int | None = None,
) -> SampleReport:
    """Write a challenge-like bucket; the same arguments give the same bytes.

    The pipeline reads ``mapping/mapping.csv`` and ``timeseries/data{1,2}/data_N.csv``. The labels of the
    anomalies in ``labels.csv`` (``sensor_name;timestamp;kind``) are for tests and people only.

    Args:
        directory: Where to write; must be missing or empty.
        sensors: The number of sensors; one in three has no anomalies.
        days: The time span.
        seed: The seed of the random generator.
        start: The time of the first readings; naive means Europe/Berlin.
        rows_per_file: Readings per file; by default 100 per sensor, about 25 hours.

    Raises:
        FileExistsError: The directory is not empty.
        ValueError: A number is not positive.
    """
    rows_per_file = 100 * sensors if rows_per_file is None else rows_per_file
    if min(sensors, days, rows_per_file) <= 0:
        raise ValueError("sensors, days and rows per file must be positive")
    if directory.exists() and any(directory.iterdir()):
        raise FileExistsError(f"{directory} is not empty: a sample bucket needs a directory of its own")

    rng = np.random.default_rng(seed)
    names = [f"sensor_{number:05d}" for number in range(sensors)]
    uuids = [str(uuid.UUID(bytes=rng.bytes(16), version=4)) for _ in names]
    (directory / "mapping").mkdir(parents=True)
    with (directory / "mapping" / "mapping.csv").open("w", newline="\n") as file:
        file.write("sensor_name;sensor_uuid\n")
        file.writelines(f"{name};{identity}\n" for name, identity in zip(names, uuids, strict=True))

    with (directory / "labels.csv").open("w", newline="\n") as file:
        file.write("sensor_name;timestamp;kind\n")
        rows = _draw_rows(rng, file, names, uuids, start=start, days=days)
    order = np.argsort(rows.minutes, kind="stable")
    firsts = range(0, len(order), rows_per_file)
    size = 0
    for number, first in enumerate(tqdm(firsts, desc="Writing files", unit="file", disable=None)):
        folder = directory / "timeseries" / ("data1" if 2 * number < len(firsts) else "data2")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"data_{number}.csv"
        _write_file(path, number, rows, order[first : first + rows_per_file])
        size += path.stat().st_size
    return SampleReport(files=len(firsts), rows=len(order), bytes=size)


@dataclass(frozen=True, eq=False)
class _Rows:
    """The readings of all sensors, sensor by sensor."""

    minutes: npt.NDArray[np.int32]  # since 1970, UTC
    values: npt.NDArray[np.float64]
    ends: npt.NDArray[np.int64]  # by sensor, the row after its last
    uuids: pa.Array  # by sensor


def _draw_rows(
    rng: np.random.Generator,
    labels: TextIO,
    names: list[str],
    uuids: list[str],
    *,
    start: datetime,
    days: float,
) -> _Rows:
    """Draw every sensor and write its labels."""
    minutes, values = [], []
    sensors = zip(names, _draw_sensors(rng, len(names), start=start, days=days), strict=True)
    for name, series in tqdm(sensors, desc="Drawing sensors", unit="sensor", total=len(names), disable=None):
        minutes.append(series.timestamps.astype("datetime64[m]").astype(np.int32))
        values.append(series.values)
        odd = series.labels != ""
        labels.writelines(
            f"{name};{_berlin_time(minute)};{kind}\n"
            for minute, kind in zip(minutes[-1][odd], series.labels[odd], strict=True)
        )
    return _Rows(
        minutes=np.concatenate(minutes),
        values=np.concatenate(values),
        ends=np.cumsum([len(one) for one in values]),
        uuids=pa.array(uuids),
    )


def _draw_sensors(
    rng: np.random.Generator, count: int, *, start: datetime, days: float
) -> Iterator[LabelledSeries]:
    """Draw the sensors, rotating through families and kinds so that a dozen sensors cover them all."""
    utc = np.datetime64(to_instant(start), "us").astype("datetime64[m]")
    kinds = itertools.cycle(rng.permutation(ANOMALIES).tolist())
    clean = 0
    for number in range(count):
        if number % 3 == 0:
            clean = number + int(rng.integers(3))
        anomalies = [] if number == clean else list(itertools.islice(kinds, int(rng.integers(1, 3))))
        yield make_series(
            rng,
            irregular_timestamps(rng, start=utc, days=days),
            family=FAMILIES[number % len(FAMILIES)],
            noise=str(rng.choice(NOISES)),
            anomalies=anomalies,
        )


def _write_file(path: Path, number: int, rows: _Rows, chosen: npt.NDArray[np.intp]) -> None:
    """Write the chosen rows in the layout and spellings for the file's number."""
    layout = _LAYOUTS[number % len(_LAYOUTS)]
    spellings = _SPELLINGS[number % len(_SPELLINGS)]
    distinct, position = np.unique(rows.minutes[chosen], return_inverse=True)
    times = [_berlin_time(minute) for minute in distinct]
    stamps = pa.array([spell(time) for spell in spellings for time in times])
    index = np.arange(len(chosen))
    columns = {
        "": pa.array(index),
        "timestamp": stamps.take(pa.array(index % len(spellings) * len(times) + position)),
        "sensor_uuid": rows.uuids.take(pa.array(np.searchsorted(rows.ends, chosen, side="right"))),
        # pyarrow would write 35.0 as 35, unlike the real files.
        "sensor_value": pa.array([repr(value) for value in rows.values[chosen].tolist()]),
        "unit": pa.repeat("K", len(chosen)),
        "status": pa.repeat("ok", len(chosen)),
    }
    with path.open("wb") as file:
        # pyarrow would quote the column names.
        file.write(f"{';'.join(layout)}\n".encode())
        options = csv.WriteOptions(include_header=False, delimiter=";", quoting_style="none")
        csv.write_csv(pa.table([columns[name] for name in layout], names=layout), file, options)


def _berlin_time(minute: np.int32) -> datetime:
    return datetime.fromtimestamp(60 * int(minute), BERLIN)
