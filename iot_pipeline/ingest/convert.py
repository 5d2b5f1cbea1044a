"""One version of one source file → one bronze fragment, a Parquet file that never changes.

A fragment is named by its object's key and version, so converting twice gives the same thing. What is known
of it (its ``FragmentInfo``) is stored in its own metadata: so a killed load finds its work again.
"""

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from iot_pipeline.clock import HOUR, Timestamp, count_by_month
from iot_pipeline.ingest.parse import (
    Readings,
    Rejected,
    UnreadableFileError,
    parse_piece,
    read_header,
    read_pieces,
)
from iot_pipeline.store import Store, StoredObject
from iot_pipeline.warehouse import readings_file, rejects_file

FORMAT = 1
"""Raise it when the same file would give another fragment; every file is then converted again."""

READINGS = pa.schema(
    [
        pa.field("sensor_uuid", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("timestamp", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("sensor_value", pa.float64(), nullable=False),
    ]
)
REJECTS = pa.schema(
    [
        ("source_key", pa.string()),
        ("line_number", pa.int64()),
        ("reason", pa.string()),
        ("raw", pa.string()),
    ]
)
_METADATA_KEY = b"iot_pipeline"


@dataclass(frozen=True, slots=True)
class FragmentInfo:
    """What a fragment holds.

    Attributes:
        key: The source object's key.
        version: The source object's version.
        size: The source object's length in bytes.
        fragment: The fragment's name.
        error: Why the file as a whole was quarantined; empty when it was not.
        rows_read: Lines of the file that are neither blank nor the header.
        rows_rejected: Rows that were quarantined.
        rows_in_missing_hour: Accepted rows whose wall time the clock skipped.
        months: Accepted rows by month.
    """

    key: str
    version: str
    size: int
    fragment: str
    error: str
    rows_read: int
    rows_rejected: int
    rows_in_missing_hour: int
    months: dict[str, int]


def fragment_name(obj: StoredObject) -> str:
    """Return the name of the fragment that an object's version is converted to."""
    identity = "\0".join([obj.name, obj.version, str(FORMAT)])
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def convert_object(
    source: Store, obj: StoredObject, bronze: Store, *, latest: int, suffix: str = ""
) -> FragmentInfo:
    """Convert an object to a fragment, unless that has been done.

    Args:
        source: Where the object is.
        obj: The object.
        bronze: Where the fragments are.
        latest: Readings after this instant (microseconds since the epoch) are refused.
        suffix: What to add to the fragment's name, so that it is converted even if it has been before.

    Raises:
        ObjectVanishedError: It is gone.
        ObjectChangedError: It was overwritten.
        SourceError: It can't be read.
    """
    name = fragment_name(obj) + suffix
    if any(bronze.versions([readings_file(name)])):
        return read_fragment_info(bronze, name)
    with (
        bronze.publish(readings_file(name)) as part,
        bronze.publish(rejects_file(name)) as rejects_part,
        source.open_object(obj) as stream,
        _FragmentWriter(obj, part, rejects_part) as writer,
    ):
        error = ""
        try:
            names, header_line = read_header(stream)
            for piece in read_pieces(stream, header_line + 1):
                writer.add(*parse_piece(piece, names, latest=latest))
        except UnreadableFileError as reason:
            error = str(reason)
        return writer.finish(fragment=name, error=error)


def read_fragment_info(bronze: Store, fragment: str) -> FragmentInfo:
    """Read what a fragment holds from its metadata."""
    with bronze.fetch([readings_file(fragment)]) as (path,):
        return FragmentInfo(**json.loads(pq.read_metadata(path).metadata[_METADATA_KEY]))


class _FragmentWriter:
    """Writes the rows of one file, piece by piece; rows of a repeated hour wait for the file's end."""

    def __init__(self, obj: StoredObject, path: Path, rejects_path: Path) -> None:
        self._obj = obj
        self._readings = pq.ParquetWriter(
            path,
            READINGS,
            version="2.6",
            compression="none",
            use_dictionary=["sensor_uuid"],
            column_encoding={"timestamp": "DELTA_BINARY_PACKED", "sensor_value": "PLAIN"},
            write_statistics=["timestamp"],
        )
        self._rejects_path = rejects_path
        self._rejects: pq.ParquetWriter | None = None
        self._rows_read = 0
        self._rows_rejected = 0
        self._rows_in_missing_hour = 0
        self._months: Counter[str] = Counter()
        self._first, self._last = 2**63 - 1, -(2**63)
        self._waiting: dict[int, list[_RowsOfHour]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._readings.close()
        if self._rejects:
            self._rejects.close()

    def add(self, readings: Readings | None, rejected: list[Rejected], rows_read: int) -> None:
        """Add what was parsed from the next piece of the file."""
        self._rows_read += rows_read
        self._rows_rejected += len(rejected)
        if rejected:
            self._rejects = self._rejects or pq.ParquetWriter(self._rejects_path, REJECTS)
            rows = [{"source_key": self._obj.name, **asdict(row)} for row in rejected]
            self._rejects.write_table(pa.Table.from_pylist(rows, REJECTS))
        if readings is None or len(readings.values) == 0:
            return
        self._first = min(self._first, int(readings.instants.min()))
        self._last = max(self._last, int(readings.instants.max()))
        if any(moment and moment.missing for moment in readings.clock):
            missing = np.array([bool(moment and moment.missing) for moment in readings.clock])
            self._rows_in_missing_hour += int(missing[readings.clock_codes].sum())
        hours = {moment.repeated for moment in readings.clock if moment and moment.repeated is not None}
        plain = np.ones(len(readings.values), dtype=bool)
        for hour in hours:
            waiting = _RowsOfHour.pick(readings, hour)
            self._waiting.setdefault(hour, []).append(waiting)
            plain[waiting.positions] = False
        self._write(readings.sensor_uuid, readings.instants, readings.values, None if plain.all() else plain)

    def finish(self, *, fragment: str, error: str) -> FragmentInfo:
        """Write what waited for the file's end, and what is known of the fragment."""
        for hour, parts in self._waiting.items():
            second_pass = _second_pass(hour, parts, first=self._first, last=self._last)
            for rows, is_second in zip(parts, second_pass, strict=True):
                self._write(rows.sensor_uuid, rows.instants + HOUR * is_second, rows.values, None)
        info = FragmentInfo(
            key=self._obj.name,
            version=self._obj.version,
            size=self._obj.size,
            fragment=fragment,
            error=error,
            rows_read=self._rows_read,
            rows_rejected=self._rows_rejected,
            rows_in_missing_hour=self._rows_in_missing_hour,
            months=dict(sorted(self._months.items())),
        )
        if sum(info.months.values()) + info.rows_rejected != info.rows_read:
            raise AssertionError(f"the rows of {self._obj.name} do not add up: {info}")
        self._readings.add_key_value_metadata({_METADATA_KEY: json.dumps(asdict(info))})
        return info

    def _write(
        self,
        sensors: pa.DictionaryArray,
        instants: npt.NDArray[np.int64],
        values: npt.NDArray[np.float64],
        mask: npt.NDArray[np.bool_] | None,
    ) -> None:
        if mask is not None:
            sensors, instants, values = sensors.filter(pa.array(mask)), instants[mask], values[mask]
        if len(values):
            self._months.update(count_by_month(instants))
            timestamps = pa.array(instants).view(READINGS.field("timestamp").type)
            self._readings.write_table(pa.table([sensors, timestamps, pa.array(values)], schema=READINGS))


@dataclass(frozen=True, slots=True)
class _RowsOfHour:
    """The rows of a piece that lie in an hour which the clock shows twice, in the file's order."""

    positions: npt.NDArray[np.intp]
    sensor_uuid: pa.DictionaryArray
    instants: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    wall: npt.NDArray[np.int64]
    naive: npt.NDArray[np.bool_]

    @classmethod
    def pick(cls, readings: Readings, hour: int) -> Self:
        moments = [moment or Timestamp(0) for moment in readings.clock]
        positions = np.flatnonzero(np.array([m.repeated == hour for m in moments])[readings.clock_codes])
        codes = readings.clock_codes[positions]
        return cls(
            positions,
            readings.sensor_uuid.take(pa.array(positions)),
            readings.instants[positions],
            readings.values[positions],
            np.array([m.wall for m in moments], dtype=np.int64)[codes],
            np.array([m.naive for m in moments])[codes],
        )


def _second_pass(
    hour: int, parts: list[_RowsOfHour], *, first: int, last: int
) -> list[npt.NDArray[np.bool_]]:
    """Tell which naive rows of a repeated hour belong to its second pass, by the file's order.

    The second pass starts where the clock steps back or where a row says so by its offset. Without either it
    is the second pass when the file only starts within the hour (no row before it, but rows after it).
    """
    wall = np.concatenate([rows.wall for rows in parts])
    naive = np.concatenate([rows.naive for rows in parts])
    instants = np.concatenate([rows.instants for rows in parts])
    signs = np.concatenate(
        [np.flatnonzero(np.diff(wall) < 0) + 1, np.flatnonzero(~naive & (instants >= hour + HOUR))]
    )
    starts_within = first >= hour and last >= hour + 2 * HOUR
    start = signs.min(initial=0 if starts_within and not len(signs) else len(wall))
    second = naive & (np.arange(len(wall)) >= start)
    return np.split(second, np.cumsum([len(rows.wall) for rows in parts])[:-1])
