"""The detector over every sensor of the warehouse, whose verdicts are published as tables.

A fingerprint of the readings that a model was fitted to, and of the sensor's maintenance, is stored with it:
a sensor for which both are still the same keeps its rows, as if it had been judged again.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from iot_pipeline.anomalies.identity import Span, name_events, remember
from iot_pipeline.anomalies.tables import (
    ANOMALIES,
    EVENTS,
    SENSOR_MODELS,
    Verdicts,
    publish_verdicts,
    read_verdicts,
)
from iot_pipeline.progress import OnProgress, Stage, terminal_progress
from iot_pipeline.warehouse import Warehouse, open_warehouse
from iot_pipeline.warehouse.annotations import read_maintenance
from iot_pipeline.warehouse.cleanup import remove_old_versions
from iot_pipeline.warehouse.readings import read_readings
from iot_pipeline.warehouse.state import State, read_state, verdicts_tables
from iot_pipeline.workers import open_workers

Maintenance = tuple[tuple[int, int], ...]
"""When somebody worked on a sensor, see ``read_maintenance``."""

BATCH_SENSORS = 16
PARALLEL_READINGS = 500_000
"""Fewer are judged sooner than processes have started."""


@dataclass(frozen=True, slots=True)
class FlagReport:
    """What came of judging all sensors.

    Attributes:
        sensors: Sensors with readings that were judged.
        sensors_refitted: Those among them that were judged anew, since their readings, their maintenance or
            the detector had changed.
        sensors_without_readings: Names in the mapping that have no reading.
        readings: Readings that were judged.
        anomalies: Flagged readings by kind, the most frequent first.
        events: The events that they belong to by kind, likewise.
        incidents: How many incidents those make.
        failed: What went wrong, by the name of the sensor that could not be judged.
    """

    sensors: int
    sensors_refitted: int
    sensors_without_readings: tuple[str, ...]
    readings: int
    anomalies: dict[str, int]
    events: dict[str, int]
    incidents: int
    failed: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Task:
    """A sensor to judge."""

    name: str
    uuid: str
    fingerprint: str | None  # of what it was judged by last; None where it was not
    events: Sequence[tuple[str, Span]]  # by id, the present ones
    remembered: Sequence[tuple[str, Span]]  # likewise, those before its maintenance
    maintenance: Maintenance


@dataclass(frozen=True, slots=True)
class _Batch:
    """What came of some sensors."""

    readings: int  # how many were read
    judged: Verdicts
    unchanged: list[str]  # names of sensors with the same fingerprint as before
    failed: dict[str, str]  # what went wrong, by the name of the sensor


def flag_anomalies(
    *, warehouse: str | Path | None = None, on_progress: OnProgress | None = None
) -> FlagReport:
    """Fit a model to each sensor, flag its anomalous readings and publish all as tables.

    A sensor is judged anew only if its readings, its maintenance or the detector have changed.

    Args:
        warehouse: The warehouse's directory or S3 URL; by default the setting's.
        on_progress: Called after each batch of sensors; by default a terminal shows a bar.

    Raises:
        WarehouseNotReadyError: Nothing has been loaded yet.
        WarehouseBusyError: Somebody else is judging the sensors.
    """
    opened = open_warehouse(warehouse)
    with opened.writing("anomalies"), terminal_progress() as show:
        tables = verdicts_tables(opened, writing=True)
        state = read_state(opened)
        maintenance = read_maintenance(opened)
        known = read_verdicts(opened, tables)
        inputs = _fingerprint_of_inputs(state, maintenance)
        verdicts, refitted, failed = known, 0, {}
        if known.inputs != inputs or tables.fault:
            batches = _judge_all(state, maintenance, known, on_progress or show)
            failed = {name: error for batch in batches for name, error in batch.failed.items()}
            refitted = sum(batch.judged.models.num_rows for batch in batches)
            unchanged = known.of([name for batch in batches for name in batch.unchanged])
            verdicts = Verdicts.join([unchanged, *(batch.judged for batch in batches)])
            # Sensors that failed are to be tried again.
            verdicts = verdicts.made_from(None if failed else inputs).with_incidents(state.span)
            publish_verdicts(opened, verdicts, onto=tables)
        for table in (opened.events, opened.anomalies, opened.incidents, opened.sensor_models):
            remove_old_versions(table)
    return _report(state, verdicts, refitted=refitted, failed=failed)


def _fingerprint_of_inputs(state: State, maintenance: dict[str, Maintenance]) -> str:
    """Return what differs when the readings' files, the mapping, the maintenance or the detector do."""
    from iot_pipeline.detection import DETECTOR_VERSION  # noqa: PLC0415 - scipy is slow to import

    files = sorted(file.path for file in state.timeseries.files)
    inputs = repr((DETECTOR_VERSION, files, sorted(state.sensors.items()), sorted(maintenance.items())))
    return hashlib.blake2b(inputs.encode(), digest_size=16).hexdigest()


def _report(state: State, verdicts: Verdicts, *, refitted: int, failed: dict[str, str]) -> FlagReport:
    judged = {*verdicts.models["sensor_name"].to_pylist(), *failed}
    return FlagReport(
        sensors=verdicts.models.num_rows,
        sensors_refitted=refitted,
        sensors_without_readings=tuple(sorted(state.sensors.keys() - judged)),
        readings=sum(verdicts.models["n_points"].to_pylist()),
        anomalies=dict(Counter(verdicts.anomalies["kind"].to_pylist()).most_common()),
        events=dict(Counter(verdicts.events["kind"].to_pylist()).most_common()),
        incidents=len(verdicts.incidents["incident_id"].unique()),
        failed=failed,
    )


def _judge_all(
    state: State, maintenance: dict[str, Maintenance], known: Verdicts, on_progress: OnProgress
) -> list[_Batch]:
    fingerprints = dict(
        zip(known.models["sensor_name"].to_pylist(), known.models["fingerprint"].to_pylist(), strict=True)
    )
    events, remembered = known.spans(), known.remembered()
    # A batch of neighbours in the files' order is read from few row groups.
    sensors = sorted(state.sensors.items(), key=lambda sensor: sensor[1])
    tasks = [
        _Task(
            name,
            uuid,
            fingerprints.get(name),
            events.get(name, ()),
            remembered.get(name, ()),
            maintenance.get(name, ()),
        )
        for name, uuid in sensors
    ]
    parts = [tasks[start : start + BATCH_SENSORS] for start in range(0, len(tasks), BATCH_SENSORS)]
    jobs = [(state.paths([task.uuid for task in part]), part) for part in parts]
    judge = partial(_judge_batch, state.warehouse)
    batches: list[_Batch] = []
    stage = Stage("judging sensors", total=len(tasks), on_progress=on_progress)
    with open_workers(parallel=state.n_readings > PARALLEL_READINGS) as workers:
        for batch in workers.run(judge, jobs):
            batches.append(batch)
            stage.advance(min(BATCH_SENSORS, len(tasks) - stage.done), rows=batch.readings)
    return batches


def _judge_batch(warehouse: Warehouse, job: tuple[list[str], Sequence[_Task]]) -> _Batch:
    paths, tasks = job
    readings = read_readings(warehouse, paths, [task.uuid for task in tasks])
    verdicts: list[Verdicts] = []
    unchanged: list[str] = []
    failed: dict[str, str] = {}
    for task in tasks:
        if task.uuid not in readings:
            continue
        timestamps, values = readings[task.uuid]
        first, last = timestamps[[0, -1]].astype(np.int64).tolist()
        maintenance = tuple((start, end) for start, end in task.maintenance if start <= last and first <= end)
        fingerprint = _fingerprint(timestamps, values, maintenance)
        if fingerprint == task.fingerprint:
            unchanged.append(task.name)
            continue
        try:
            verdicts.append(_judge_sensor(task, timestamps, values, maintenance, fingerprint))
        except Exception as error:  # noqa: BLE001 - one sensor must not stop the others; all are named in the end
            failed[task.name] = f"{type(error).__name__}: {error}"
    n_readings = sum(len(values) for _, values in readings.values())
    return _Batch(n_readings, Verdicts.join(verdicts), unchanged, failed)


def _fingerprint(timestamps: np.ndarray, values: np.ndarray, maintenance: Maintenance) -> str:
    """Return what is equal only for the same readings and maintenance judged by the same detector."""
    from iot_pipeline.detection import DETECTOR_VERSION  # noqa: PLC0415 - scipy is slow to import

    digest = hashlib.blake2b(str(DETECTOR_VERSION).encode(), digest_size=16)
    for array in (timestamps, values, np.array(maintenance, dtype=np.int64)):
        digest.update(array.tobytes())
    return digest.hexdigest()


def _judge_sensor(
    task: _Task, timestamps: np.ndarray, values: np.ndarray, maintenance: Maintenance, fingerprint: str
) -> Verdicts:
    from iot_pipeline.detection import detect_anomalies  # noqa: PLC0415 - scipy is slow

    result = detect_anomalies(timestamps, values, maintenance)
    spans = [
        Span(event.kind, *(int(moment.astype(np.int64)) for moment in (event.start, event.end)))
        for event in result.events
    ]
    ids = name_events(task.name, spans, [*task.events, *task.remembered], timestamps.astype(np.int64))
    found = list(zip(ids, spans, strict=True))
    remembered = remember(task.events, task.remembered, found) if maintenance else []
    events = [
        {
            "event_id": event_id,
            "sensor_name": task.name,
            **span._asdict(),
            "n_readings": event.n_points,
            "peak_score": event.peak_score,
            "mean_residual": None if event.kind == "gap" else event.mean_residual,
        }
        for event_id, span, event in zip(ids, spans, result.events, strict=True)
    ]
    rows = np.flatnonzero(result.flags)
    flagged = {
        "sensor_name": [task.name] * len(rows),
        "timestamp": timestamps[rows],
        "sensor_value": values[rows],
        "expected_value": result.expected[rows],
        "score": result.scores[rows],
        "kind": result.kinds[rows],
        "event_id": [ids[position] for position in result.event_ids[rows]],
    }
    model = {
        "sensor_name": task.name,
        "model": result.model.name,
        "breakpoints": [moment.item() for moment in result.model.breakpoints],
        "noise_sd": result.model.noise_sd,
        "n_points": result.model.n_points,
        "n_anomalies": len(rows),
        "n_events": len(result.events),
        "reasoning": result.model.reasoning,
        "fingerprint": fingerprint,
        "inputs": None,
        "remembered": [{"event_id": event_id, **span._asdict()} for event_id, span in remembered],
    }
    return Verdicts(
        pa.Table.from_pylist(events, EVENTS),
        pa.table(flagged, ANOMALIES),
        pa.Table.from_pylist([model], SENSOR_MODELS),
    )
