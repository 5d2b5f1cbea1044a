"""A bucket of IoT sensor CSVs, turned into queryable, anomaly-flagged measurements.

>>> from iot_pipeline import get_measurements, connect
>>> get_measurements("sensor_00000", "2013-01-01", "2013-02-01")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iot_pipeline.report.draw import plot
    from iot_pipeline.warehouse.query import connect, get_measurements

__all__ = ["connect", "get_measurements", "plot"]


def __getattr__(name: str) -> Any:
    # What a query needs (DuckDB, pandas, …) is imported at the first use, so that this module costs nothing.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "plot":
        from iot_pipeline.report import draw  # noqa: PLC0415

        return draw.plot
    from iot_pipeline.warehouse import query  # noqa: PLC0415

    return getattr(query, name)


def __dir__() -> list[str]:
    # What a Tab offers: the names that are not imported yet, and none that only serve this module.
    return __all__
