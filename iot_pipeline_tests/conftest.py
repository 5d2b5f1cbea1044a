import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import boto3
import duckdb
import pytest
from hypothesis import settings

from iot_pipeline import connect
from iot_pipeline.anomalies import flag_anomalies
from iot_pipeline.ingest import LoadReport, load_mapping, load_timeseries
from iot_pipeline_tests.dask_cluster import Cluster, running_cluster
from iot_pipeline_tests.s3_server import Waits, running_s3_server

BERLIN = ZoneInfo("Europe/Berlin")
HEADER = "timestamp;sensor_uuid;sensor_value"
SENSOR = "11111111-1111-4111-8111-111111111111"
OTHER_SENSOR = "22222222-2222-4222-8222-222222222222"

Reading = tuple[str, int, float]
"""Uuid, microseconds since the epoch and value."""


settings.register_profile("quick", max_examples=20)
"""Of `make check`."""

NEED_A_SERVER = {"browser", "dask", "s3_server", "server", "_server"}
"""Fixtures that run one, or start a process."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Don't even import the modules that `make check` leaves out as a whole."""
    leaves_out = "not system" in config.option.markexpr and collection_path.suffix == ".py"
    return (leaves_out and "\npytestmark = pytest.mark.system" in collection_path.read_text()) or None


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run one worker more than there are cores: a third of the time, tests wait for servers and browsers."""
    return None if "not system" in config.option.markexpr else (os.cpu_count() or 1) + 1


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a server, as `make check` leaves them out, and put their modules first."""
    for item in items:
        if NEED_A_SERVER.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.system)
    slow = {item.path for item in items if item.get_closest_marker("system")}
    items.sort(key=lambda item: item.path not in slow)


def row(time: str = "2013-01-01 12:00:00+01:00", uuid: str = SENSOR, value: object = 1.0) -> str:
    return f"{time};{uuid};{value}"


def csv_of(*lines: str, header: str = HEADER) -> bytes:
    return "".join(f"{line}\n" for line in (header, *lines)).encode()


def use_with_one_sensor(bucket: "Bucket", monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment to a bucket whose mapping knows one sensor, ``a``."""
    monkeypatch.setenv("IOT_SOURCE", str(bucket.source))
    monkeypatch.setenv("IOT_WAREHOUSE", str(bucket.warehouse))
    (bucket.source / "mapping.csv").write_text(f"sensor_name;sensor_uuid\na;{SENSOR}\n")


@dataclass(frozen=True)
class Bucket:
    """A directory of CSV files and the warehouse that it is loaded into: a path or an S3 URL."""

    source: Path
    warehouse: Any

    def write(self, key: str, *content: str | bytes) -> None:
        """Write lines below the usual header, or bytes as they are, into ``Timeseries/``."""
        path = self.source / "Timeseries" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = content[0] if content and isinstance(content[0], bytes) else csv_of(*map(str, content))
        path.write_bytes(raw)

    def delete(self, key: str) -> None:
        (self.source / "Timeseries" / key).unlink()

    def load(self, **options: Any) -> LoadReport:
        return load_timeseries(source=str(self.source), warehouse=self.warehouse, **options)

    def sql(self, statement: str, **parameters: object) -> list[tuple[Any, ...]]:
        with connect(self.warehouse) as connection:
            return run_sql(connection, statement, **parameters)

    def content(self) -> list[Reading]:
        """Return the readings, duplicates and all, by sensor and time."""
        columns = "sensor_uuid, epoch_us(timestamp), sensor_value"
        return self.sql(f"SELECT {columns} FROM measurements ORDER BY ALL")

    def values(self) -> list[float]:
        """Return the values in the order of their time."""
        rows = self.sql("SELECT sensor_value FROM measurements ORDER BY timestamp, sensor_value")
        return [value for (value,) in rows]

    def times(self) -> list[str]:
        """Return the readings' times as Berlin's clock shows them, with the offset."""
        return [berlin(instant) for _, instant, _ in self.content()]

    def rejects(self) -> list[tuple[int, str, str]]:
        """Return line, reason and raw text of the refused rows."""
        return self.sql("SELECT line_number, reason, raw FROM rejected_rows ORDER BY source_key, line_number")

    def errors(self) -> dict[str, str]:
        """Return the reasons of the files that were quarantined as a whole."""
        return dict(self.sql("SELECT key, error FROM source_files WHERE error IS NOT NULL"))


def run_sql(
    connection: duckdb.DuckDBPyConnection, statement: str, **parameters: object
) -> list[tuple[Any, ...]]:
    return connection.execute(statement, parameters or None).fetchall()


def berlin(instant: int) -> str:
    moment = datetime.fromtimestamp(instant / 1e6, UTC).astimezone(BERLIN)
    return f"{moment:%Y-%m-%d %H:%M}{moment:%z}"[:-2]


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    source = tmp_path / "source"
    (source / "Timeseries").mkdir(parents=True)
    return Bucket(source, tmp_path / "warehouse")


SAMPLE = Path(__file__).parent.parent / "data" / "sample"


@pytest.fixture(scope="session")
def sample_warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a warehouse with the sample bucket loaded and judged. Not to be written to."""
    warehouse = tmp_path_factory.mktemp("sample") / "warehouse"
    load_mapping(source=str(SAMPLE), warehouse=warehouse)
    load_timeseries(source=str(SAMPLE), warehouse=warehouse)
    flag_anomalies(warehouse=warehouse)
    return warehouse


@dataclass(frozen=True)
class S3Server:
    """An S3 server without authentication, and the variables that its clients need."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "eu-central-1",
        }


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with running_s3_server() as url:
        yield S3Server(url)


@pytest.fixture
def s3_folder(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of an empty place, which this process' settings lead to."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid4().hex}"
    location = {"LocationConstraint": "eu-central-1"}
    boto3.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration=location)  # type: ignore[arg-type]
    return f"s3://{name}/some/where"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    waits = Waits()
    monkeypatch.setattr("botocore.endpoint.time", waits)
    return waits


@pytest.fixture(scope="session")
def dask(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Cluster]:
    """Run a cluster of two workers, which can reach the S3 server."""
    with running_cluster(tmp_path_factory.mktemp("dask"), environment=s3_server.environment) as running:
        yield running
