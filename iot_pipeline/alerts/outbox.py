"""The table ``alerts``: a row for each run that people were to be told of, and what they know after it.

A digest is put into the outbox before it is sent, so that another try sends the same, and marked as delivered
after. So each one arrives, and twice only where the process dies in between. It is one small file that each
commit writes anew; of two writers who have read the same version only one commits, and the other one reads
again.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from iot_pipeline.alerts.digest import Memory, Told
from iot_pipeline.berlin import BERLIN
from iot_pipeline.errors import DamagedTableError, WarehouseBusyError
from iot_pipeline.store import one_line
from iot_pipeline.warehouse import Warehouse, open_warehouse
from iot_pipeline.warehouse.delta import commit, read_rows, write_rows
from iot_pipeline.warehouse.tables import Table, read_table

KEPT = 200
"""Rows of digests that have arrived."""
_ATTEMPTS = 10
_TIME = pa.timestamp("us", tz="UTC")
_TOLD = pa.struct(
    [
        ("event_id", pa.string()),
        ("sensor_name", pa.string()),
        ("start", _TIME),
        ("end", _TIME),
        ("ongoing", pa.bool_()),
    ]
)
ALERTS = pa.schema(
    [
        ("run_id", pa.string()),
        ("title", pa.string()),  # empty where there was nothing to tell
        ("html", pa.string()),
        ("picture", pa.struct([("sensor_name", pa.string()), ("start", _TIME), ("end", _TIME)])),
        ("composed_at", _TIME),
        ("sent_at", _TIME),  # when the last service took it; NULL while any waits
        ("delivered", pa.list_(pa.string())),
        ("events", pa.list_(_TOLD)),  # what people know after it, in the last row
        ("checks", pa.list_(pa.struct([("name", pa.string()), ("count", pa.int64())]))),
    ]
)


@dataclass(frozen=True, slots=True)
class Picture:
    """What the picture that goes with a message shows."""

    sensor_name: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be told about a run.

    Attributes:
        run_id: The run.
        title: The message's title; empty where there is nothing to tell.
        html: Its text.
        picture: What its picture shows; None for none.
        composed_at: When it was put into the outbox.
        sent_at: When it had been sent to all; None while any waits.
        delivered: The services that have it.
        memory: What people know after it; None where that is not known or no longer needed.
    """

    run_id: str
    title: str
    html: str
    picture: Picture | None
    composed_at: datetime
    sent_at: datetime | None = None
    delivered: tuple[str, ...] = ()
    memory: Memory | None = None


Messages = tuple[Message, ...]


def read_outbox(warehouse: Warehouse) -> Messages:
    """Return all messages, in the order in which they were composed.

    Raises:
        DamagedTableError: The table can't be read.
    """
    return _read(warehouse)[0]


def change_outbox(warehouse: Warehouse, change: Callable[[Messages], Messages]) -> Messages:
    """Change the messages in one commit, and return what they are then.

    Args:
        warehouse: Where the outbox lies.
        change: Returns the new messages; called again where somebody else has committed meanwhile.

    Raises:
        WarehouseBusyError: Somebody else does so all the time.
        WarehouseError: The table can't be read or written.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return _change(warehouse, change)
        except WarehouseBusyError:
            continue
    return _change(warehouse, change)


def _change(warehouse: Warehouse, change: Callable[[Messages], Messages]) -> Messages:
    before, table = _read(warehouse)
    messages = change(before)
    if messages == before:
        return before
    arrived = [message.run_id for message in messages if message.sent_at]
    dropped = set(arrived[:-KEPT])
    rows = [_to_row(message) for message in messages if message.run_id not in dropped]
    for row in rows[:-1]:
        row |= {"events": None, "checks": None}
    file = write_rows(warehouse.alerts, pa.Table.from_pylist(rows, ALERTS))
    commit(warehouse.alerts, onto=table.version.number if table else None, schema=ALERTS, add=[file])
    return messages


def _read(warehouse: Warehouse) -> tuple[Messages, Table | None]:
    folder = warehouse.alerts
    try:
        table = read_table(folder)
        if table is None:
            return (), None
        rows = read_rows(folder, table, ALERTS)
    except (DamagedTableError, pa.ArrowException, FileNotFoundError) as error:
        raise DamagedTableError(
            f"can't read {folder.url} ({one_line(error)}): delete it, then what comes next is told anew"
        ) from error
    return tuple(map(_from_row, rows.to_pylist())), table


def _to_row(message: Message) -> dict[str, Any]:
    row = asdict(message)
    memory = row.pop("memory")
    if memory:
        row["events"] = memory["events"]
        row["checks"] = [{"name": name, "count": count} for name, count in memory["checks"].items()]
    return row


def _from_row(row: dict[str, Any]) -> Message:
    events, checks, picture = (row.pop(name) for name in ("events", "checks", "picture"))
    memory = None
    if events is not None:
        told = tuple(
            Told(**event | {name: event[name].astimezone(BERLIN) for name in ("start", "end")})
            for event in events
        )
        memory = Memory(told, {check["name"]: check["count"] for check in checks or ()})
    shown = Picture(**picture) if picture else None
    return Message(**row | {"delivered": tuple(row["delivered"] or ())}, picture=shown, memory=memory)


def mark_delivered(message: Message, services: tuple[str, ...], sent_at: datetime | None) -> Message:
    """Return a message with the services that have it now too."""
    delivered = tuple(dict.fromkeys((*message.delivered, *services)))
    return replace(message, delivered=delivered, sent_at=message.sent_at or sent_at)


def describe_outbox(warehouse: str | Path | None = None) -> str:
    """Say in a line when people were told last, and what waits."""
    messages = [message for message in read_outbox(open_warehouse(warehouse)) if message.title]
    sent = [message.sent_at for message in messages if message.sent_at]
    waiting = [message for message in messages if not message.sent_at]
    text = f"the last one was sent at {max(sent).astimezone(BERLIN):%Y-%m-%d %H:%M}" if sent else "none sent"
    if waiting:
        since = waiting[0].composed_at.astimezone(BERLIN)
        text += f", {len(waiting):,} waiting since {since:%Y-%m-%d %H:%M}"
    return text
