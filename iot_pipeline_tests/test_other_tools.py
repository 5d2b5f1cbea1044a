"""What docs/other_tools.md says: other clients read the same readings out of the table's folder."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from iot_pipeline import get_measurements, list_sensors

DOCUMENT = Path(__file__).parent.parent / "docs" / "other_tools.md"
BERLIN = ZoneInfo("Europe/Berlin")
SENSOR = "sensor_00003"
SECOND = timedelta(seconds=1)
BORDERS = [
    datetime(2013, 10, 1, tzinfo=BERLIN),
    datetime(2013, 10, 27, 2, 30, tzinfo=BERLIN),
    datetime(2013, 10, 27, 2, 30, tzinfo=BERLIN, fold=1),
    datetime(2013, 11, 1, tzinfo=BERLIN),
]
"""The ends of a month, and the hour that the clock showed twice."""

Read = Callable[[datetime, datetime], Any]


def cell_of(tool: str) -> str:
    """Return the example of a tool, which defines ``read(start, end)``."""
    found = re.search(rf"^## {tool}\n.*?```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    assert found, f"docs/other_tools.md has no example of {tool}"
    return found[1]


def ranges(warehouse: Path) -> list[tuple[datetime, datetime]]:
    """Return ranges whose ends lie on readings, on borders, and a second beside them."""
    readings = get_measurements(SENSOR, "2013-10-20", "2013-10-21", warehouse=warehouse)["timestamp"]
    ends = [*BORDERS, readings.iloc[0].to_pydatetime(), readings.iloc[-1].to_pydatetime()]
    near = sorted({end + shift for end in ends for shift in (-SECOND, 0 * SECOND, SECOND)})
    return [(start, end) for number, start in enumerate(near) for end in near[number::3]]


@pytest.mark.parametrize(
    ("tool", "packages"),
    [
        ("Polars", ["polars", "deltalake"]),
        ("Daft", ["daft", "deltalake"]),
        ("ClickHouse", ["chdb", "deltalake"]),
        ("DataFusion", ["datafusion", "deltalake"]),
        pytest.param("Sail", ["pysail", "pyspark"], marks=pytest.mark.system),
    ],
)
@pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning")
def test_another_tool_reads_what_get_measurements_does(
    sample_warehouse: Path, tool: str, packages: list[str]
) -> None:
    for package in packages:
        pytest.importorskip(package)
    sensors = list_sensors(warehouse=sample_warehouse).set_index("sensor_name")["sensor_uuid"]
    names: dict[str, Any] = {"warehouse": str(sample_warehouse), "sensor_uuid": sensors[SENSOR]}
    exec(cell_of(tool), names)  # noqa: S102 - our own document
    for start, end in ranges(sample_warehouse):
        expected = get_measurements(SENSOR, start, end, warehouse=sample_warehouse)
        found = names["read"](start, end)
        assert sorted(found) == expected["sensor_value"].sort_values().tolist(), (start, end)
