"""What people have said about sensors, as it stands now. Who says something does so in ``anomalies``."""

from iot_pipeline.warehouse._layout import Warehouse
from iot_pipeline.warehouse.state import read_state
from iot_pipeline.warehouse.views import connect_to, readable_errors


def read_maintenance(warehouse: Warehouse) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return when somebody worked on each sensor, by its name.

    Returns:
        Times from … to, both included, in microseconds since the epoch; ascending, without overlaps. No entry
        for a sensor without any.

    Raises:
        WarehouseNotReadyError: Nothing has been loaded yet.
        DamagedTableError: The annotations can't be read.
    """
    annotations = read_state(warehouse, with_verdicts=True).annotations
    if annotations and not annotations.last and not annotations.fault:
        return {}
    connection, _ = connect_to(warehouse)
    with connection, readable_errors():
        rows = connection.execute("""
            SELECT sensor_name, epoch_us(start), epoch_us("end")
            FROM (SELECT sensor_name FROM sensors)
            JOIN annotations ON sensor_name = sensor OR sensor_name GLOB sensor
            WHERE kind = 'maintenance'
            ORDER BY ALL
        """).fetchall()
    found: dict[str, list[tuple[int, int]]] = {}
    for sensor_name, start, end in rows:
        intervals = found.setdefault(sensor_name, [])
        if intervals and start <= intervals[-1][1] + 1:
            intervals[-1] = (intervals[-1][0], max(intervals[-1][1], end))
        else:
            intervals.append((start, end))
    return {sensor_name: tuple(intervals) for sensor_name, intervals in found.items()}
