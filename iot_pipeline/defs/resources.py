"""The assets' resources: the source that they read from and the warehouse that they write to and query."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import dagster as dg
import pandas as pd
from dagster_aws.s3 import S3Resource
from dagster_duckdb import DuckDBResource
from duckdb import DuckDBPyConnection
from pydantic import Field

from iot_pipeline.settings import get_settings
from iot_pipeline.store import S3Connection, Store, open_source
from iot_pipeline.warehouse import open_warehouse
from iot_pipeline.warehouse.query import connect, get_measurements
from iot_pipeline.warehouse.views import readable_errors


class SourceResource(dg.ConfigurableResource[Store]):
    """The source of the CSV files."""

    location: str | None = Field(
        default=None, description="A directory or s3://bucket[/prefix]; by default IOT_SOURCE."
    )
    s3: dg.ResourceDependency[S3Resource]

    @property
    def where(self) -> str:
        """The directory or the S3 URL."""
        return self.location or get_settings().source

    def open(self) -> Store:
        """Open the source with the S3 resource's endpoint and credentials."""
        s3 = self.s3
        connection = S3Connection(
            endpoint_url=s3.endpoint_url,
            region_name=s3.region_name,
            profile_name=s3.profile_name,
            aws_access_key_id=s3.aws_access_key_id,
            aws_secret_access_key=s3.aws_secret_access_key,
            aws_session_token=s3.aws_session_token,
        )
        return open_source(self.where, connection)


class MeasurementsResource(dg.ConfigurableResource[None]):
    """The warehouse: the location of the tables, and queries on them."""

    warehouse: str | None = Field(
        default=None, description="A directory or s3://bucket[/prefix]; by default IOT_WAREHOUSE."
    )
    duckdb: dg.ResourceDependency[DuckDBResource]

    @property
    def where(self) -> str:
        """The directory or the S3 URL."""
        return open_warehouse(self.warehouse).url

    def get_measurements(self, sensor_name: str, start: str | datetime, end: str | datetime) -> pd.DataFrame:
        """Return the readings of a sensor, like ``iot_pipeline.get_measurements``."""
        return get_measurements(sensor_name, start, end, warehouse=self.warehouse)

    @contextmanager
    def connect(self) -> Iterator[DuckDBPyConnection]:
        """Open a connection with the views of ``iot_pipeline.connect``, closed at the end of the block."""
        with self.duckdb.get_connection() as connection:
            try:
                with readable_errors():
                    yield connect(self.warehouse, connection=connection)
            finally:
                connection.close()
