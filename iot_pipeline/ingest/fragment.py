"""Converts one version of one source file to one bronze fragment, a Parquet file that never changes.

A fragment is named after its object's key and version, so converting twice gives the same file. Its
``FragmentInfo`` is stored in its own metadata, so the load after a killed one can reuse it.
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

from iot_pipeline.berlin import DAY, HOUR, count_by_month
from iot_pipeline.ingest.parse import KEPT_ROWS, Readings, Rejected, parse_piece
from iot_pipeline.ingest.pieces import UnreadableFileError, read_header, read_pieces, unpack
from iot_pipeline.ingest.repeated_hour import MARGIN, tell_passes
from iot_pipeline.store import Store, StoredObject
from iot_pipeline.warehouse import readings_file, rejects_file

FORMAT = 2
"""Raise this when the same file would give a different fragment; every file is then converted again."""

READINGS = pa.schema(
    [
        pa.field("sensor_uuid", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("timestamp", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("sensor_value", pa.float64(), nullable=False),
    ]
)
# A row without a line number is a summary: its text says how many rows it stands for.
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
    """Describes a fragment's content.

    Attributes:
        key: The source object's key.
        version: The source object's version.
        size: The source object's length in bytes.
        fragment: The fragment's name.
        error: Why the whole file was quarantined; empty if it was not.
        rows_read: Lines of the file that are neither blank nor the header.
        rows_rejected: Rows that were quarantined.
        rows_in_missing_hour: Accepted rows whose wall time the clock skipped.
        months: The number of accepted rows by month.
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
    """Return the name of the fragment for an object's version."""
    identity = "\0".join([obj.name, obj.version, str(FORMAT)])
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def convert_object(source: Store, obj: StoredObject, bronze: Store, *, suffix: str = "") -> FragmentInfo:
    """Convert an object to a fragment, unless the fragment already exists.

    Readings from 1970 to a day after the object was last written are accepted. A file that can't be read to
    its end gives a fragment without rows.

    Args:
        source: The store that holds the object.
        obj: The object.
        bronze: The store of fragments.
        suffix: Added to the fragment's name, to convert the object even if a fragment exists.

    Raises:
        ObjectVanishedError: The object was deleted.
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
    ):
        try:
            text = unpack(stream, obj.name)
            with _FragmentWriter(obj, part, rejects_part) as writer:
                names, header_line = read_header(text)
                for piece in read_pieces(text, header_line + 1):
                    writer.add(*parse_piece(piece, names, latest=obj.modified + DAY))
                return writer.finish(fragment=name, error="")
        except UnreadableFileError as reason:
            rejects_part.unlink(missing_ok=True)
            with _FragmentWriter(obj, part, rejects_part) as writer:
                return writer.finish(fragment=name, error=str(reason))


def read_fragment_info(bronze: Store, fragment: str) -> FragmentInfo:
    """Read a fragment's description from its metadata."""
    with bronze.fetch([readings_file(fragment)]) as (path,):
        return FragmentInfo(**json.loads(pq.read_metadata(path).metadata[_METADATA_KEY]))


class _FragmentWriter:
    """Writes the rows of one file, piece by piece; naive rows of a repeated hour wait until its end."""

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
        self._kept: Counter[str] = Counter()
        self._not_kept: Counter[str] = Counter()
        self._waiting: dict[int, list[pa.RecordBatch]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._readings.close()
        if self._rejects:
            self._rejects.close()

    def add(self, readings: Readings | None, rejected: list[Rejected], rows_read: int) -> None:
        """Add the rows of the file's next piece."""
        self._rows_read += rows_read
        self._rows_rejected += sum(row.n_rows for row in rejected)
        to_keep = []
        for row in rejected:
            if row.n_rows == 1 and self._kept[row.reason] < KEPT_ROWS:
                self._kept[row.reason] += 1
                to_keep.append(row)
            else:
                self._not_kept[row.reason] += row.n_rows
        self._write_rejects(to_keep)
        if readings is None or len(readings.values) == 0:
            return
        if any(moment and moment.missing for moment in readings.clock):
            missing = np.array([bool(moment and moment.missing) for moment in readings.clock])
            self._rows_in_missing_hour += int(missing[readings.clock_codes].sum())
        hours = [moment.repeated_hour if moment else None for moment in readings.clock]
        is_open = np.array([hour is not None for hour in hours])[readings.clock_codes]
        for hour in {hour for hour in hours if hour is not None}:
            self._waiting.setdefault(hour, []).append(_rows_near(hour, readings, is_open))
        self._write(readings.sensor_uuid, readings.instants, readings.values, ~is_open)

    def finish(self, *, fragment: str, error: str) -> FragmentInfo:
        """Write the rows that waited for the end of the file, and the fragment's description."""
        first, last = self._first, self._last  # of the rows written so far
        for hour, parts in sorted(self._waiting.items()):
            rows = pa.Table.from_batches(parts).unify_dictionaries().combine_chunks()
            sensors = rows["sensor_uuid"].chunk(0)
            instants, values, is_open = (rows[name].to_numpy() for name in ("instant", "value", "is_open"))
            codes = sensors.indices.to_numpy()
            second = tell_passes(codes, instants, is_open, hour=hour, first=first, last=last)
            self._write(sensors, instants + HOUR * second, values, is_open)
        self._write_rejects([Rejected.sum_up(*item) for item in sorted(self._not_kept.items())])
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
        mask: npt.NDArray[np.bool_],
    ) -> None:
        if not mask.all():
            sensors, instants, values = sensors.filter(pa.array(mask)), instants[mask], values[mask]
        if len(values):
            self._first = min(self._first, int(instants.min()))
            self._last = max(self._last, int(instants.max()))
            self._months.update(count_by_month(instants))
            timestamps = pa.array(instants).view(READINGS.field("timestamp").type)
            self._readings.write_table(pa.table([sensors, timestamps, pa.array(values)], schema=READINGS))

    def _write_rejects(self, rejected: list[Rejected]) -> None:
        if rejected:
            self._rejects = self._rejects or pq.ParquetWriter(self._rejects_path, REJECTS)
            rows = [{"source_key": self._obj.name, **asdict(row)} for row in rejected]
            self._rejects.write_table(pa.Table.from_pylist(rows, REJECTS))


def _rows_near(hour: int, readings: Readings, is_open: npt.NDArray[np.bool_]) -> pa.RecordBatch:
    """Return the rows of a piece in and near a repeated hour, in file order."""
    instants = readings.instants
    near = (instants >= hour - MARGIN) & (instants < hour + 2 * HOUR + MARGIN)
    columns = {
        "sensor_uuid": readings.sensor_uuid,
        "instant": instants,
        "value": readings.values,
        "is_open": is_open,
    }
    return pa.record_batch(columns).filter(pa.array(near))
