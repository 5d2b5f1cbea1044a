"""A bucket of IoT sensor CSVs, turned into queryable, anomaly-flagged measurements.

>>> from iot_pipeline import get_measurements, connect
>>> get_measurements("sensor_00000", "2013-01-01", "2013-02-01")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iot_pipeline.report.draw import plot
    from iot_pipeline.warehouse.frames import get_anomalies, list_sensors
    from iot_pipeline.warehouse.query import connect, get_measurements

_MODULES = {
    "connect": "warehouse.query",
    "get_anomalies": "warehouse.frames",
    "get_measurements": "warehouse.query",
    "list_sensors": "warehouse.frames",
    "plot": "report.draw",
}

__all__ = ["connect", "get_anomalies", "get_measurements", "list_sensors", "plot"]


def __getattr__(name: str) -> Any:
    # What a query needs (DuckDB, pandas, …) is imported at the first use, so that this module costs nothing.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"iot_pipeline.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    # What a Tab offers: the names that are not imported yet, and none that only serve this module.
    return __all__
