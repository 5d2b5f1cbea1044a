"""The two tables that the detector publishes: flagged readings, and the model of each sensor.

``sensor_models`` is committed last and pins the version of ``anomalies`` it was made with, so a reader never
sees the flags of one run with the models of another.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema

from iot_pipeline.delta import DataFile, commit, list_files, open_pair, open_table, pinned_version
from iot_pipeline.files import publish_file, sync
from iot_pipeline.warehouse import Warehouse

TIME = pa.timestamp("us", tz="UTC")
ANOMALIES = pa.schema(
    [
        ("sensor_name", pa.string()),
        ("timestamp", TIME),
        ("sensor_value", pa.float64()),
        ("expected_value", pa.float64()),
        ("score", pa.float64()),
        ("kind", pa.string()),
        ("event_id", pa.int64()),
    ]
)
SENSOR_MODELS = pa.schema(
    [
        ("sensor_name", pa.string()),
        ("model", pa.string()),
        ("breakpoints", pa.list_(TIME)),
        ("noise_sd", pa.float64()),
        ("n_points", pa.int64()),
        ("n_anomalies", pa.int64()),
        ("n_events", pa.int64()),
        ("reasoning", pa.string()),
        ("fingerprint", pa.string()),  # of the readings that the model was fitted to
    ]
)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Rows of the two tables, each sorted by sensor.

    Attributes:
        anomalies: Flagged readings.
        models: One row per sensor.
    """

    anomalies: pa.Table
    models: pa.Table

    @classmethod
    def join(cls, parts: Iterable["Verdicts"]) -> "Verdicts":
        """Put the verdicts on different sensors together."""
        anomalies, models = [ANOMALIES.empty_table()], [SENSOR_MODELS.empty_table()]
        for part in parts:
            anomalies.append(part.anomalies)
            models.append(part.models)
        by_sensor = ("sensor_name", "ascending")
        return cls(
            pa.concat_tables(anomalies).sort_by([by_sensor, ("timestamp", "ascending")]),
            pa.concat_tables(models).sort_by([by_sensor]),
        )

    def of(self, sensor_names: Collection[str]) -> "Verdicts":
        """Keep those on some sensors."""
        wanted = pa.array(sensor_names, pa.string())
        return Verdicts(
            self.anomalies.filter(pc.is_in(self.anomalies["sensor_name"], wanted)),
            self.models.filter(pc.is_in(self.models["sensor_name"], wanted)),
        )


def read_verdicts(house: Warehouse) -> tuple[Verdicts, int | None]:
    """Read what was published last, and the number of the inputs that it was made from.

    A table of an earlier release may lack a column, which is NULL then.
    """
    models, flagged = open_pair(house.sensor_models, house.anomalies)
    if models is None or flagged is None:
        return Verdicts.join([]), None
    return Verdicts(
        _read(flagged, house.anomalies, ANOMALIES), _read(models, house.sensor_models, SENSOR_MODELS)
    ), pinned_version(models, "inputs")


def _read(table: DeltaTable, path: Path, schema: pa.Schema) -> pa.Table:
    files = [pq.read_table(path / file.path, schema=schema) for file in list_files(table)]
    return pa.concat_tables([schema.empty_table(), *files])


def publish_verdicts(house: Warehouse, verdicts: Verdicts, inputs: int) -> None:
    """Make verdicts the next version of both tables.

    Args:
        house: The warehouse, locked.
        verdicts: All that the tables shall hold.
        inputs: A number that tells what they were made from.
    """
    version = _publish(house.anomalies, verdicts.anomalies, {})
    _publish(house.sensor_models, verdicts.models, {"anomalies": version, "inputs": inputs})


def _publish(path: Path, table: pa.Table, pins: dict[str, int]) -> int:
    path.mkdir(parents=True, exist_ok=True)
    file = path / f"part-{uuid4().hex}.parquet"
    with publish_file(file) as part:
        pq.write_table(table, part, compression="zstd", store_schema=False)
    _add_columns(path, table.schema)
    return commit(path, schema=table.schema, add=[DataFile.describe(file, path)], pins=pins)


def _add_columns(path: Path, schema: pa.Schema) -> None:
    """Add columns to a table that an earlier release has made without them."""
    table = open_table(path)
    if not table:
        return
    present = {field.name for field in table.schema().fields}
    missing = [field for field in Schema.from_arrow(schema).fields if field.name not in present]
    if missing:
        table.alter.add_columns(missing)
        sync(path / "_delta_log" / f"{DeltaTable(path).version():020}.json")
