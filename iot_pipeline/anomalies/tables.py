"""The tables that the detector publishes: events, their readings, their incidents, and each sensor's model.

``sensor_models`` is committed last and pins the versions of the others it was made with, so a reader never
sees the flags of one run with the models of another.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from iot_pipeline.anomalies.identity import Span
from iot_pipeline.anomalies.incidents import EventTime, link_events
from iot_pipeline.store import Store, one_line
from iot_pipeline.warehouse import Warehouse
from iot_pipeline.warehouse.delta import commit, read_rows, write_rows
from iot_pipeline.warehouse.state import Linked, clear_damage
from iot_pipeline.warehouse.tables import Version

logger = logging.getLogger(__name__)

TIME = pa.timestamp("us", tz="UTC")
EVENTS = pa.schema(
    [
        ("event_id", pa.string()),
        ("sensor_name", pa.string()),
        ("kind", pa.string()),
        ("start", TIME),
        ("end", TIME),
        ("n_readings", pa.int64()),
        ("peak_score", pa.float64()),
        ("mean_residual", pa.float64()),  # NULL for a gap
    ]
)
# Apart from the events, whose rows depend on nothing but their own sensor.
INCIDENTS = pa.schema([("event_id", pa.string()), ("incident_id", pa.string())])
ANOMALIES = pa.schema(
    [
        ("sensor_name", pa.string()),
        ("timestamp", TIME),
        ("sensor_value", pa.float64()),
        ("expected_value", pa.float64()),
        ("score", pa.float64()),
        ("kind", pa.string()),
        ("event_id", pa.string()),
    ]
)
REMEMBERED = pa.struct(  # times in microseconds
    [("event_id", pa.string()), ("kind", pa.string()), ("start", pa.int64()), ("end", pa.int64())]
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
        ("fingerprint", pa.string()),  # of the readings and the maintenance that it was judged by
        ("inputs", pa.string()),  # of the judgement of all sensors, see Verdicts.inputs
        ("remembered", pa.list_(REMEMBERED)),  # its events before the maintenance, see identity.remember
    ]
)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Rows of the tables, each sorted by sensor.

    Attributes:
        events: What is anomalous.
        anomalies: The flagged readings of each event.
        models: One row per sensor.
        incidents: The incident that each event belongs to; empty until all sensors have been judged.
    """

    events: pa.Table
    anomalies: pa.Table
    models: pa.Table
    incidents: pa.Table = field(default_factory=INCIDENTS.empty_table)

    @property
    def inputs(self) -> str | None:
        """A fingerprint of all that the sensors were judged by; None where some are to be judged again."""
        inputs: list[str | None] = self.models["inputs"].unique().to_pylist()
        return inputs[0] if len(inputs) == 1 else None

    def made_from(self, inputs: str | None) -> "Verdicts":
        """Return the same with the fingerprint of all that the sensors were judged by."""
        column = pa.array([inputs] * self.models.num_rows, pa.string())
        position = SENSOR_MODELS.get_field_index("inputs")
        return replace(self, models=self.models.set_column(position, "inputs", column))

    def spans(self) -> dict[str, list[tuple[str, Span]]]:
        """Return the ids of the events of each sensor, and when they were."""
        found: dict[str, list[tuple[str, Span]]] = {}
        for name, event_id, *span in zip(
            *(self.events[column].to_pylist() for column in ("sensor_name", "event_id", "kind")),
            *(self.events[column].cast(pa.int64()).to_pylist() for column in ("start", "end")),
            strict=True,
        ):
            found.setdefault(name, []).append((event_id, Span(*span)))
        return found

    def remembered(self) -> dict[str, list[tuple[str, Span]]]:
        """Return likewise what is remembered of the events that a sensor had before its maintenance."""
        columns = (self.models[name].to_pylist() for name in ("sensor_name", "remembered"))
        return {
            name: [(event["event_id"], Span(event["kind"], event["start"], event["end"])) for event in events]
            for name, events in zip(*columns, strict=True)
            if events
        }

    def with_incidents(self, span: int) -> "Verdicts":
        """Return the same with the incident that each event belongs to, see ``link_events``."""
        ids, sensors, scores = (
            self.events[name].to_pylist() for name in ("event_id", "sensor_name", "peak_score")
        )
        starts, ends = (self.events[name].cast(pa.int64()).to_pylist() for name in ("start", "end"))
        incidents = link_events(list(map(EventTime, ids, sensors, starts, ends, scores)), span=span)
        return replace(self, incidents=pa.table([ids, [incidents[event] for event in ids]], INCIDENTS))

    @classmethod
    def join(cls, parts: Sequence["Verdicts"]) -> "Verdicts":
        """Put the verdicts on different sensors together."""
        by = [(name, "ascending") for name in ("sensor_name", "start", "end", "kind", "event_id")]
        return cls(
            _concatenate(EVENTS, [part.events for part in parts]).sort_by(by),
            _concatenate(ANOMALIES, [part.anomalies for part in parts]).sort_by(
                [by[0], ("timestamp", "ascending")]
            ),
            _concatenate(SENSOR_MODELS, [part.models for part in parts]).sort_by(by[:1]),
        )

    def of(self, sensor_names: Collection[str]) -> "Verdicts":
        """Keep those on some sensors."""
        wanted = pa.array(sensor_names, pa.string())
        return Verdicts(
            *(
                table.filter(pc.is_in(table["sensor_name"], wanted))
                for table in (self.events, self.anomalies, self.models)
            )
        )


def read_verdicts(warehouse: Warehouse, tables: Linked) -> Verdicts:
    """Read what was published last.

    Tables that can't be read, or that an earlier release made without ``events``, count as empty: all sensors
    are judged anew then. A table of an earlier release may lack a column, which is NULL then; one that had
    the incidents among the events is carried on.
    """
    if tables.fault:
        logger.warning("%s: all sensors are judged anew", tables.fault)
    if tables.last and {"events", "anomalies"} <= tables.pinned.keys():
        try:
            verdicts = Verdicts(
                read_rows(warehouse.events, tables.pinned["events"], EVENTS),
                read_rows(warehouse.anomalies, tables.pinned["anomalies"], ANOMALIES),
                read_rows(warehouse.sensor_models, tables.last, SENSOR_MODELS),
            )
            if "incidents" not in tables.pinned:
                return verdicts.made_from(None)
            return replace(
                verdicts, incidents=read_rows(warehouse.incidents, tables.pinned["incidents"], INCIDENTS)
            )
        except (pa.ArrowException, FileNotFoundError) as error:
            text = "can't read what was judged before (%s): all sensors are judged anew"
            logger.warning(text, one_line(error))
    return Verdicts.join([])


def _concatenate(schema: pa.Schema, parts: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables([schema.empty_table(), *parts])


def publish_verdicts(warehouse: Warehouse, verdicts: Verdicts, *, onto: Linked) -> None:
    """Make verdicts the next version of all tables.

    Args:
        warehouse: The warehouse, locked.
        verdicts: All that the tables shall hold.
        onto: The tables as they were before the readings were read.

    Raises:
        WarehouseBusyError: Somebody else has published meanwhile.
    """
    onto = clear_damage(onto)
    events = _publish(warehouse.events, verdicts.events, onto.head_number("events"))
    anomalies = _publish(warehouse.anomalies, verdicts.anomalies, onto.head_number("anomalies"))
    incidents = _publish(warehouse.incidents, verdicts.incidents, onto.head_number("incidents"))
    pins = [
        (warehouse.events, events),
        (warehouse.anomalies, anomalies),
        (warehouse.incidents, incidents),
    ]
    number = onto.last.version.number if onto.last else None
    _publish(warehouse.sensor_models, verdicts.models, number, pins=pins)


def _publish(
    folder: Store, rows: pa.Table, onto: int | None, *, pins: Sequence[tuple[Store, Version]] = ()
) -> Version:
    return commit(folder, onto=onto, schema=rows.schema, add=[write_rows(folder, rows)], pins=pins)
