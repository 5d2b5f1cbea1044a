"""The detector over every sensor of the warehouse, and the two tables that come of it.

``sensor_models`` is committed last and pins the version of ``anomalies`` it was made with, so a reader never
sees the flags of one run with the models of another.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from iot_pipeline.delta import DataFile, commit
from iot_pipeline.executor import open_executor, run_tasks
from iot_pipeline.files import publish_file
from iot_pipeline.progress import OnProgress, Progress, terminal_progress
from iot_pipeline.query import read_readings, take_snapshot
from iot_pipeline.settings import get_settings
from iot_pipeline.warehouse import open_warehouse

BATCH_SENSORS = 8
PARALLEL_READINGS = 500_000
"""Fewer are judged sooner than processes have started."""

_TIME = pa.timestamp("us", tz="UTC")
ANOMALIES = pa.schema(
    [
        ("sensor_name", pa.string()),
        ("timestamp", _TIME),
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
        ("breakpoints", pa.list_(_TIME)),
        ("noise_sd", pa.float64()),
        ("n_points", pa.int64()),
        ("n_anomalies", pa.int64()),
        ("n_events", pa.int64()),
        ("reasoning", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class FlagReport:
    """What came of judging all sensors.

    Attributes:
        sensors: Sensors with readings that were judged.
        sensors_without_readings: Names in the mapping that have no reading.
        readings: Readings that were judged.
        anomalies: Flagged readings by kind, the most frequent first.
        events: How many events they belong to.
        failed: What went wrong, by the name of the sensor that could not be judged.
    """

    sensors: int
    sensors_without_readings: tuple[str, ...]
    readings: int
    anomalies: dict[str, int]
    events: int
    failed: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Verdicts:
    """The judged sensors of a batch: their rows for the two tables, and the failures by name."""

    anomalies: pa.Table
    models: pa.Table
    failed: dict[str, str]


def flag_anomalies(
    *, warehouse: str | Path | None = None, on_progress: OnProgress | None = None
) -> FlagReport:
    """Fit a model to each sensor, flag its anomalous readings and publish both as tables.

    Args:
        warehouse: The warehouse directory; by default the setting's.
        on_progress: Called after each batch of sensors; by default a terminal shows a bar.

    Raises:
        WarehouseNotReadyError: Nothing has been loaded yet.
        WarehouseBusyError: A load is running.
    """
    house = open_warehouse(warehouse)
    snapshot = take_snapshot(house)
    paths = [path for files in snapshot.files.values() for path in files]
    # A batch of neighbours in the files' order is read from few row groups.
    sensors = sorted(snapshot.sensors.items(), key=lambda sensor: sensor[1])
    batches = [sensors[start : start + BATCH_SENSORS] for start in range(0, len(sensors), BATCH_SENSORS)]
    workers = get_settings().workers
    verdicts: list[_Verdicts] = []
    n_readings = sum(pq.read_metadata(path).num_rows for path in paths)
    parallel = n_readings > PARALLEL_READINGS
    started = time.monotonic()
    with (
        house.writing(house.anomalies),
        open_executor(workers, parallel=parallel) as executor,
        terminal_progress() as show,
    ):
        for verdict in run_tasks(executor, partial(_judge_batch, paths), batches, ahead=4 * workers):
            verdicts.append(verdict)
            done = min(len(verdicts) * BATCH_SENSORS, len(sensors))
            rows = sum(sum(v.models["n_points"].to_pylist()) for v in verdicts)
            seconds = time.monotonic() - started
            (on_progress or show)(Progress("judging sensors", done, len(sensors), rows, seconds))
        anomalies = _sorted_table([v.anomalies for v in verdicts], ANOMALIES, ["sensor_name", "timestamp"])
        models = _sorted_table([v.models for v in verdicts], SENSOR_MODELS, ["sensor_name"])
        version = _publish(house.anomalies, anomalies)
        _publish(house.sensor_models, models, pins={"anomalies": version})
    failed = {name: error for verdict in verdicts for name, error in verdict.failed.items()}
    judged = {*models["sensor_name"].to_pylist(), *failed}
    return FlagReport(
        sensors=models.num_rows,
        sensors_without_readings=tuple(sorted(snapshot.sensors.keys() - judged)),
        readings=sum(models["n_points"].to_pylist()),
        anomalies=dict(Counter(anomalies["kind"].to_pylist()).most_common()),
        events=sum(models["n_events"].to_pylist()),
        failed=failed,
    )


def _judge_batch(paths: list[str], sensors: Sequence[tuple[str, str]]) -> _Verdicts:
    readings = read_readings(paths, [uuid for _, uuid in sensors])
    anomalies: list[pa.Table] = []
    models: list[dict[str, object]] = []
    failed: dict[str, str] = {}
    for name, uuid in sensors:
        if uuid in readings:
            try:
                flagged, model = _judge_sensor(name, *readings[uuid])
            except Exception as error:  # noqa: BLE001 - one sensor must not stop the others; all are named in the end
                failed[name] = f"{type(error).__name__}: {error}"
            else:
                anomalies.append(flagged)
                models.append(model)
    return _Verdicts(
        pa.concat_tables([ANOMALIES.empty_table(), *anomalies]),
        pa.Table.from_pylist(models, SENSOR_MODELS),
        failed,
    )


def _judge_sensor(
    name: str, timestamps: np.ndarray, values: np.ndarray
) -> tuple[pa.Table, dict[str, object]]:
    from iot_pipeline.detection import detect_anomalies  # noqa: PLC0415 - scipy is slow to import

    result = detect_anomalies(timestamps, values)
    rows = np.flatnonzero(result.flags)
    flagged = pa.table(
        [
            pa.array([name] * len(rows), pa.string()),
            pa.array(timestamps[rows]).cast(pa.timestamp("us")).cast(_TIME),
            pa.array(values[rows]),
            pa.array(result.expected[rows]),
            pa.array(result.scores[rows]),
            pa.array(result.kinds[rows], pa.string()),
            pa.array(result.event_ids[rows].astype(np.int64)),
        ],
        schema=ANOMALIES,
    )
    model = {
        "sensor_name": name,
        "model": result.model.name,
        "breakpoints": [moment.astype("datetime64[us]").item() for moment in result.model.breakpoints],
        "noise_sd": result.model.noise_sd,
        "n_points": result.model.n_points,
        "n_anomalies": len(rows),
        "n_events": len(result.events),
        "reasoning": result.model.reasoning,
    }
    return flagged, model


def _sorted_table(parts: Sequence[pa.Table], schema: pa.Schema, columns: Sequence[str]) -> pa.Table:
    table = pa.concat_tables([schema.empty_table(), *parts])
    return table.sort_by([(column, "ascending") for column in columns])


def _publish(path: Path, table: pa.Table, pins: dict[str, int] | None = None) -> int:
    path.mkdir(parents=True, exist_ok=True)
    file = path / f"part-{uuid4().hex}.parquet"
    with publish_file(file) as part:
        pq.write_table(table, part, compression="zstd", store_schema=False)
    return commit(path, schema=table.schema, add=[DataFile.describe(file, path)], pins=pins)
