"""The load, free of Dagster: the mapping into SQLite, the measurements into a Delta table."""

from iot_pipeline.ingest.load import LoadReport, load_timeseries
from iot_pipeline.ingest.mapping import MappingReport, load_mapping

__all__ = ["LoadReport", "MappingReport", "load_mapping", "load_timeseries"]
