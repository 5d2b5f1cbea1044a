"""The two tables that the detector publishes: flagged readings, and the model of each sensor.

``sensor_models`` is committed last and pins the version of ``anomalies`` it was made with, so a reader never
sees the flags of one run with the models of another.
"""

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from iot_pipeline.store import Store, one_line
from iot_pipeline.warehouse import Warehouse
from iot_pipeline.warehouse.delta import DataFile, commit
from iot_pipeline.warehouse.state import Pair, clear_damage
from iot_pipeline.warehouse.tables import Table, Version

logger = logging.getLogger(__name__)

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
        ("inputs", pa.string()),  # of the judgement of all sensors, see Verdicts.inputs
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

    @property
    def inputs(self) -> str | None:
        """A fingerprint of all that the sensors were judged by; None where some are to be judged again."""
        inputs: list[str | None] = self.models["inputs"].unique().to_pylist()
        return inputs[0] if len(inputs) == 1 else None

    def made_from(self, inputs: str | None) -> "Verdicts":
        """Return the same with the fingerprint of all that the sensors were judged by."""
        position = SENSOR_MODELS.get_field_index("inputs")
        column = pa.array([inputs] * self.models.num_rows, pa.string())
        return Verdicts(self.anomalies, self.models.set_column(position, "inputs", column))

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


def read_verdicts(warehouse: Warehouse, tables: Pair) -> Verdicts:
    """Read what was published last.

    Tables that can't be read count as empty: all sensors are judged anew then. A table of an earlier release
    may lack a column, which is NULL then.
    """
    if tables.fault:
        logger.warning("%s: all sensors are judged anew", tables.fault)
    if tables.first and tables.second:
        try:
            return Verdicts(
                _read(warehouse.anomalies, tables.first, ANOMALIES),
                _read(warehouse.sensor_models, tables.second, SENSOR_MODELS),
            )
        except (pa.ArrowException, FileNotFoundError) as error:
            text = "can't read what was judged before (%s): all sensors are judged anew"
            logger.warning(text, one_line(error))
    return Verdicts.join([])


def _read(folder: Store, table: Table, schema: pa.Schema) -> pa.Table:
    with folder.fetch([file.path for file in table.files]) as paths:
        files = [pq.read_table(path, schema=schema, memory_map=False) for path in paths]
    return pa.concat_tables([schema.empty_table(), *files])


def publish_verdicts(warehouse: Warehouse, verdicts: Verdicts, *, onto: Pair) -> None:
    """Make verdicts the next version of both tables.

    Args:
        warehouse: The warehouse, locked.
        verdicts: All that the tables shall hold.
        onto: The tables as they were before the readings were read.

    Raises:
        WarehouseBusyError: Somebody else has published meanwhile.
    """
    onto = clear_damage(onto)
    anomalies, models = warehouse.anomalies, warehouse.sensor_models
    version = _publish(anomalies, verdicts.anomalies, onto.head, pin=None)
    _publish(models, verdicts.models, onto.second, pin=(anomalies, version))


def _publish(
    folder: Store, rows: pa.Table, onto: Table | None, *, pin: tuple[Store, Version] | None
) -> Version:
    name = f"part-{uuid4().hex}.parquet"
    with folder.publish(name) as part:
        pq.write_table(rows, part, compression="zstd", store_schema=False)
        file = DataFile.describe(name, part)
    number = onto.version.number if onto else None
    return commit(folder, onto=number, schema=rows.schema, add=[file], pin=pin)
