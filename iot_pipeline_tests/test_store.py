"""A place for files: what it promises beyond what a load and a query need of it."""

import errno
import fcntl
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from iot_pipeline import connect, get_measurements
from iot_pipeline.errors import (
    ConfigurationError,
    IotPipelineError,
    WarehouseBusyError,
    WarehouseError,
    WarehouseUnreachableError,
)
from iot_pipeline.ingest import load_mapping
from iot_pipeline.store import (
    DirectoryStore,
    S3Store,
    _checksums,
    _connection,
    open_store,
    table_error,
)
from iot_pipeline.store._checksums import Blocks
from iot_pipeline.store._connection import ATTEMPTS
from iot_pipeline.store._duckdb import S3Files
from iot_pipeline.store._errors import readable_errors
from iot_pipeline.warehouse.cleanup import remove_old_versions
from iot_pipeline.warehouse.delta import commit
from iot_pipeline_tests.conftest import SENSOR, Bucket, S3Server, csv_of, row
from iot_pipeline_tests.s3_server import FaultyProxy, Waits, running_proxy

# ------------------------------------------------------------------------------ a directory


def test_a_second_writer_is_told_who_is_writing(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    with (
        store.lock("table"),
        pytest.raises(WarehouseBusyError, match=f"process {os.getpid()} is writing .*table: try again"),
        store.lock("table"),
    ):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_without_locks_is_not_taken_for_a_busy_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(
            ConfigurationError, match=r"file system of IOT_WAREHOUSE .* can't lock files"
        ) as caught,
        DirectoryStore(tmp_path).lock("table"),
    ):
        pass
    assert os.strerror(code) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_place_that_does_not_exist_yet_holds_no_files(tmp_path: Path) -> None:
    assert DirectoryStore(tmp_path / "nowhere").list_objects() == []


def test_a_directory_that_can_not_be_listed_is_one_line_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WarehouseUnreachableError, match=r"^can't list .*/file: Not a directory$"):
        DirectoryStore(tmp_path / "file").list_objects()


def test_what_lies_behind_a_link_in_a_warehouse_is_not_the_warehouses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IOT_GRACE_DAYS", "0")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious.part").touch()
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "link").symlink_to(tmp_path / "elsewhere")
    remove_old_versions(DirectoryStore(tmp_path / "table"))
    assert (tmp_path / "elsewhere" / "precious.part").exists()


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """Return a directory with a file and what a writer has left who was killed a day ago."""
    store = DirectoryStore(tmp_path)
    with store.publish("month=2013-01/whole.parquet") as part:
        part.touch()
        left = part.with_name(part.name.replace("whole", "killed"))
        left.touch()
        os.utime(left, (0, left.stat().st_mtime - timedelta(days=1).total_seconds()))
    return tmp_path


def test_what_a_killed_writer_left_is_removed_after_the_grace_period(
    killed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IOT_GRACE_DAYS", "0.95")
    remove_old_versions(DirectoryStore(killed))
    assert [obj.name for obj in DirectoryStore(killed).list_objects()] == ["month=2013-01/whole.parquet"]


def test_what_may_still_be_written_is_left_alone(killed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOT_GRACE_DAYS", "1.05")
    before = DirectoryStore(killed).list_objects()
    remove_old_versions(DirectoryStore(killed))
    assert DirectoryStore(killed).list_objects() == before
    assert len(before) == 2


# ---------------------------------------------------------------------------------- either


@pytest.fixture(params=["a directory", "S3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return open_store(request.getfixturevalue("s3_folder") if request.param == "S3" else tmp_path)


def test_a_files_version_is_the_one_that_a_listing_has(store: Any) -> None:
    with store.publish("a/b") as part:
        part.write_bytes(b"content")
    (obj,) = store.list_objects()
    assert store.versions(["a/b", "a/c", "b"]) == [obj.version, "", ""]


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        ("", ["a/b/c", "a/d", "ab", "b"]),
        ("a", ["a/b/c", "a/d", "ab"]),
        ("a/", ["a/b/c", "a/d"]),
        ("a/b", ["a/b/c"]),
        ("a/b/c/d", []),
        ("ab", ["ab"]),
        ("c/d", []),
    ],
)
def test_a_listing_may_be_of_the_files_whose_names_start_alike(
    store: Any, prefix: str, names: list[str]
) -> None:
    for name in ("a/b/c", "a/d", "ab", "b"):
        with store.publish(name) as part:
            part.write_bytes(b"content")
    assert [obj.name for obj in store.list_objects(prefix)] == names


def test_a_file_that_is_not_there_is_said_to_be_missing(store: Any) -> None:
    with pytest.raises(FileNotFoundError), store.fetch(["nothing"]) as (path,):
        path.read_bytes()


# ------------------------------------------------------------------------------- checksums


@given(st.binary(min_size=1, max_size=2_000), st.data())
def test_a_changed_byte_of_a_range_is_noticed(content: bytes, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_checksums, "LEAST_BYTES", 7)
        blocks = Blocks.of_file(BytesIO(content))
    start = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(start + 1, len(content)))
    first, last = blocks.widen(start, end)
    assert first <= start < end <= last
    part = bytearray(content[first:last])
    assert blocks.verify(first, bytes(part))
    part[data.draw(st.integers(0, len(part) - 1))] ^= data.draw(st.integers(1, 255))
    assert not blocks.verify(first, bytes(part))


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 9_830_401, 40_000_000])
def test_the_checksums_of_a_file_of_any_size_fit_into_the_metadata_of_an_object(size: int) -> None:
    blocks = Blocks.of_file(BytesIO(bytes(size)))
    metadata = blocks.to_metadata()
    assert sum(len(name) + len(value) for name, value in metadata.items()) < 2_000
    assert Blocks.from_metadata(metadata) == blocks


def test_an_object_of_another_tool_has_no_such_checksums() -> None:
    assert Blocks.from_metadata({}) is None
    assert Blocks.from_metadata({"block-bytes": "0", "block-crc32": "x"}) is None


# ------------------------------------------------------------- faults of an S3 warehouse

QUESTION = ("first", "2013-01-01", "2013-12-31")


@pytest.fixture
def s3_bucket(bucket: Bucket, s3_folder: str) -> Bucket:
    """Return a bucket that is loaded into a warehouse on S3: 20,000 readings that don't compress."""
    values = np.random.default_rng(1).normal(size=20_000)
    times = pd.date_range("2013-01-01", periods=len(values), freq="min", tz="UTC")
    bucket.write("a.csv", *(row(str(time), value=value) for time, value in zip(times, values, strict=True)))
    mapping = csv_of(f"first;{SENSOR}", header="sensor_name;sensor_uuid")
    bucket.source.joinpath("mapping.csv").write_bytes(mapping)
    loaded = replace(bucket, warehouse=s3_folder)
    load_mapping(source=str(bucket.source), warehouse=s3_folder)
    loaded.load()
    return loaded


@pytest.fixture
def proxy(s3_server: S3Server, s3_folder: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Return a proxy that the settings lead to from now on."""
    with running_proxy(s3_server.url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        yield proxy


def remove_checksums(location: str) -> None:
    """Make the files of a warehouse what an earlier release has written."""
    store = open_store(location)
    assert isinstance(store, S3Store)
    for obj in store.list_objects():
        with store.fetch([obj.name]) as (path,):
            boto3.client("s3").put_object(
                Bucket=store.bucket, Key=f"{store.prefix}/{obj.name}", Body=path.read_bytes()
            )


RELEASES = pytest.mark.parametrize("release", ["this release", "an earlier release"])


@RELEASES
def test_a_byte_that_flips_while_a_query_reads_is_read_again(
    s3_bucket: Bucket, proxy: FaultyProxy, release: str
) -> None:
    if release == "an earlier release":
        remove_checksums(s3_bucket.warehouse)
    expected = np.random.default_rng(1).normal(size=20_000)
    proxy.only, proxy.faults = "GET .*/timeseries/.*parquet", ["flip"] * (ATTEMPTS - 1)
    answer = get_measurements(*QUESTION, warehouse=s3_bucket.warehouse)
    assert proxy.faults == []
    assert answer["sensor_value"].tolist() == expected.tolist()


@RELEASES
@pytest.mark.parametrize("fault", ["flip", "short", "503"])
def test_a_fault_that_stays_while_a_query_reads_is_one_line_that_names_the_file(
    s3_bucket: Bucket, proxy: FaultyProxy, waits: Waits, fault: str, release: str
) -> None:
    if release == "an earlier release":
        remove_checksums(s3_bucket.warehouse)
    proxy.only, proxy.faults = "GET .*/timeseries/.*parquet", [fault] * 1_000
    with pytest.raises(
        WarehouseUnreachableError, match=r"can't read s3://.*/timeseries/month=2013-01/.*parquet"
    ) as caught:
        get_measurements(*QUESTION, warehouse=s3_bucket.warehouse)
    assert "\n" not in str(caught.value)
    assert caught.value.may_pass


def test_ranges_of_a_file_are_read_as_they_were_written_whatever_flips(
    proxy: FaultyProxy, s3_folder: str
) -> None:
    store = open_store(s3_folder)
    assert isinstance(store, S3Store)
    content = np.random.default_rng(2).bytes(300_000)
    with store.publish("a") as part:
        part.write_bytes(content)
    proxy.only = "GET"
    file = S3Files(store).open(f"{s3_folder}/a")
    for start, length in ((299_992, 8), (299_000, 992), (65_530, 10), (0, 1), (131_072, 65_536), (4, -1)):
        proxy.faults = ["flip"]
        file.seek(start)
        assert file.read(length) == content[start:][: length if length >= 0 else None]
    assert file.read(1) == b""


def test_a_view_of_small_tables_is_verified_too(s3_bucket: Bucket, proxy: FaultyProxy) -> None:
    proxy.only, proxy.faults = "GET .*/source_files/.*parquet", ["flip"] * (ATTEMPTS - 1)
    with connect(s3_bucket.warehouse) as connection:
        assert connection.sql("SELECT rows_loaded FROM source_files").fetchall() == [(20_000,)]
    assert proxy.faults == []


SCHEMA = pa.schema([("a", pa.int64())])
FIRST_TOUCH = "PUT .*writable"
COMMIT = "PUT .*_delta_log"


@pytest.mark.parametrize("fault", ["500", "503", "429", "reset", "hang"])
def test_a_store_that_does_not_answer_at_first_touch_may_answer_later(
    proxy: FaultyProxy, s3_folder: str, waits: Waits, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(_connection, "READ_SECONDS", 1)
    proxy.only, proxy.faults = FIRST_TOUCH, [fault] * 1_000
    with pytest.raises(WarehouseUnreachableError) as caught:
        open_store(s3_folder).create()
    assert_says_what_to_check(caught.value, f"can't write to IOT_WAREHOUSE {s3_folder}: ")


@pytest.mark.parametrize("fault", ["500", "503", "429", "reset"])
def test_a_store_that_does_not_answer_a_commit_may_answer_later(
    proxy: FaultyProxy, s3_folder: str, fault: str
) -> None:
    table = open_store(s3_folder) / "table"
    commit(table, onto=None, schema=SCHEMA, add=[])
    proxy.only, proxy.faults = COMMIT, [fault] * 1_000
    with pytest.raises(WarehouseUnreachableError) as caught:
        commit(table, onto=1, schema=SCHEMA, add=[])
    assert_says_what_to_check(caught.value, f"can't write {s3_folder}/table: ")
    proxy.faults = []
    assert commit(table, onto=1, schema=SCHEMA, add=[]).number == 2


@pytest.mark.parametrize("fault", ["500", "503", "429", "reset"])
def test_a_store_that_does_not_answer_a_vacuum_is_a_warning(
    proxy: FaultyProxy, s3_folder: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    table = open_store(s3_folder) / "table"
    commit(table, onto=None, schema=SCHEMA, add=[])
    proxy.only, proxy.listing_faults = "GET .*prefix=some%2Fwhere%2Ftable%2F$", [fault] * 1_000
    remove_old_versions(table)
    (said,) = [record.getMessage() for record in caplog.records if "clear away" in record.getMessage()]
    assert said.startswith(f"can't clear away old files of {s3_folder}/table (")
    assert "\n" not in said


def test_a_warehouse_without_credentials_says_which_variables_to_set(
    s3_folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for touch in (connect, lambda url: open_store(url).create(), lambda url: open_store(url).list_objects()):
        with pytest.raises(ConfigurationError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
            touch(s3_folder)


def assert_says_what_to_check(error: IotPipelineError, start: str) -> None:
    text = str(error)
    assert error.may_pass
    assert text.startswith(start)
    assert "check AWS_ENDPOINT_URL_S3" in text
    assert text.isprintable()
    assert len(text) < 500


@pytest.mark.parametrize(
    ("code", "variable"),
    [
        ("ExpiredToken", "AWS_SESSION_TOKEN"),
        ("PermanentRedirect", "AWS_REGION"),
        ("AuthorizationHeaderMalformed", "AWS_REGION"),
        ("InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_both_libraries_refusals_name_the_same_variable(code: str, variable: str) -> None:
    of_deltalake = table_error(
        "list it", OSError(f"Generic S3 error: 400: <Error><Code>{code}</Code></Error>")
    )
    with (
        pytest.raises(ConfigurationError, match=variable) as of_boto3,
        readable_errors("list it", "IOT_SOURCE"),
    ):
        raise ClientError({"Error": {"Code": code}}, "ListObjectsV2")
    assert isinstance(of_deltalake, ConfigurationError)
    assert str(of_deltalake) == str(of_boto3.value)


def test_what_a_table_says_of_a_bucket_that_is_not_there_is_no_fault_that_passes() -> None:
    answer = (
        "Generic S3 error\n  \x1b[31m↳\x1b[0m Error performing list request\n  \x1b[31m↳\x1b[0m 404 Not Found"
        "\n  \x1b[31m↳\x1b[0m <?xml?>\n<Error><Code>NoSuchBucket</Code><RequestId>7</RequestId></Error>\n"
    )
    error = table_error("read s3://b/table", OSError(answer), "IOT_WAREHOUSE")
    assert isinstance(error, ConfigurationError)
    assert str(error) == "can't read s3://b/table: there is no such bucket: check IOT_WAREHOUSE"


def test_what_a_table_says_of_its_own_damage_is_one_plain_line() -> None:
    answer = "Kernel error\n  \x1b[31m↳\x1b[0m Invalid JSON\n 0: core::panic\n 1: main"
    error = table_error("read /data/table", OSError(answer), "IOT_WAREHOUSE")
    assert (type(error), str(error)) == (WarehouseError, "can't read /data/table: Kernel error: Invalid JSON")
