"""The two tables that the detector publishes: flagged readings, and the model of each sensor.

``sensor_models`` is committed last and pins the version of ``anomalies`` it was made with, so a reader never
sees the flags of one run with the models of another.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from iot_pipeline.delta import (
    DataFile,
    commit,
    list_files,
    open_pair,
    open_table,
    pinned_version,
)
from iot_pipeline.store import Store
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


@dataclass(frozen=True, slots=True)
class Published:
    """What was published last.

    Attributes:
        verdicts: The rows of both tables.
        inputs: The number of the inputs that they were made from; None before anything was published.
        anomalies_version: The latest version of ``anomalies``; None for no table.
        models_version: That of ``sensor_models``.
    """

    verdicts: Verdicts
    inputs: int | None
    anomalies_version: int | None
    models_version: int | None


def read_published(house: Warehouse) -> Published:
    """Read what was published last.

    A table of an earlier release may lack a column, which is NULL then.
    """
    latest = open_table(house.anomalies)
    models, flagged = open_pair(house.sensor_models, house.anomalies, "anomalies")
    verdicts, inputs = Verdicts.join([]), None
    if models and flagged:
        verdicts = Verdicts(
            _read(flagged, house.anomalies, ANOMALIES), _read(models, house.sensor_models, SENSOR_MODELS)
        )
        inputs = pinned_version(models, "inputs")
    started = models or open_table(house.sensor_models)
    return Published(
        verdicts, inputs, latest.version() if latest else None, started.version() if started else None
    )


def _read(table: DeltaTable, folder: Store, schema: pa.Schema) -> pa.Table:
    with folder.fetch([file.path for file in list_files(table)]) as paths:
        files = [pq.read_table(path, schema=schema, memory_map=False) for path in paths]
    return pa.concat_tables([schema.empty_table(), *files])


def publish_verdicts(house: Warehouse, verdicts: Verdicts, inputs: int, *, onto: Published) -> None:
    """Make verdicts the next version of both tables.

    Args:
        house: The warehouse, locked.
        verdicts: All that the tables shall hold.
        inputs: A number that tells what they were made from.
        onto: What was read before.

    Raises:
        WarehouseBusyError: Somebody else has published meanwhile.
    """
    version = _publish(house.anomalies, verdicts.anomalies, onto.anomalies_version, {})
    pins = {"anomalies": version, "inputs": inputs}
    _publish(house.sensor_models, verdicts.models, onto.models_version, pins)


def _publish(folder: Store, table: pa.Table, onto: int | None, pins: dict[str, int]) -> int:
    name = f"part-{uuid4().hex}.parquet"
    with folder.publish(name) as part:
        pq.write_table(table, part, compression="zstd", store_schema=False)
        file = DataFile.describe(name, part)
    return commit(folder, onto=onto, schema=table.schema, add=[file], pins=pins)
