"""Where objects come from, and what happens when they don't."""

import gzip
import os
import pickle
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import boto3
import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from iot_pipeline.errors import ConfigurationError, IotPipelineError, SourceError
from iot_pipeline.ingest import LoadReport, load_timeseries
from iot_pipeline.store import (
    DirectoryStore,
    ObjectChangedError,
    ObjectVanishedError,
    S3Connection,
    S3Store,
    Store,
    StoredObject,
    _connection,
    _s3,
    open_source,
)
from iot_pipeline.store._connection import ATTEMPTS
from iot_pipeline_tests.conftest import Bucket, csv_of, row
from iot_pipeline_tests.s3_server import NEWLINE, FaultyProxy, Waits, running_proxy, running_s3_server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ACCESS_KEY = "AKIAEXAMPLEEXAMPLE00"
SECRET = "a-secret/that+nobody=sees"  # noqa: S105 - opens nothing
KEY = "Timeseries/data1/data_0.csv"
CONTENT = csv_of(*(row(f"2013-01-01 00:{minute:02}", value=minute) for minute in range(60)))
CHANGED = csv_of(row(value=-1))


# --------------------------------------------------------------------------- directory


def test_a_directory_that_a_worker_does_not_see_is_an_error_and_no_vanished_file(tmp_path: Path) -> None:
    source = DirectoryStore(tmp_path / "elsewhere", "IOT_SOURCE")
    with pytest.raises(SourceError, match=r"IOT_SOURCE .* not on the machine") as caught:
        source.open_object(StoredObject("a.csv", "1", 1, 0)).__enter__()
    assert not isinstance(caught.value, ObjectVanishedError)


def test_a_directory_lists_all_files_at_any_depth_by_key(tmp_path: Path) -> None:
    for key in ("b.csv", "a/b/c.txt", "a/.hidden", "ä ö/\n.csv"):
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12")
    listing = open_source(str(tmp_path)).list_objects()
    assert [(obj.name, obj.size) for obj in listing] == [
        ("a/.hidden", 2),
        ("a/b/c.txt", 2),
        ("b.csv", 2),
        ("ä ö/\n.csv", 2),
    ]


def test_a_file_is_read_as_it_was_listed(tmp_path: Path) -> None:
    tmp_path.joinpath("a.csv").write_bytes(CONTENT)
    source = open_source(str(tmp_path))
    with source.open_object(source.list_objects()[0]) as stream:
        assert stream.read() == CONTENT


def test_a_file_of_the_same_size_and_time_but_other_content_is_another_version(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"1")
    source = open_source(str(tmp_path))
    (before,) = source.list_objects()
    time.sleep(0.02)
    path.write_bytes(b"2")
    os.utime(path, ns=(before_time := path.stat().st_atime_ns, before_time))
    assert source.list_objects() != [before]


def test_an_object_knows_when_it_was_last_written_whatever_its_version_is_compared_with(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"1")
    os.utime(path, (1.5, 1.5))
    (obj,) = open_source(str(tmp_path)).list_objects()
    assert obj.modified == 1_500_000
    assert replace(obj, modified=0) == obj


def test_a_file_overwritten_between_listing_and_reading_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"1")
    source = open_source(str(tmp_path))
    (obj,) = source.list_objects()
    path.write_bytes(b"22")
    with pytest.raises(ObjectChangedError, match=r"a\.csv"), source.open_object(obj):
        pass


def test_a_file_overwritten_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"1")
    source = open_source(str(tmp_path))
    (obj,) = source.list_objects()
    with pytest.raises(ObjectChangedError), source.open_object(obj):
        path.write_bytes(b"22")


def test_a_file_gone_between_listing_and_reading_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"1")
    source = open_source(str(tmp_path))
    (obj,) = source.list_objects()
    path.unlink()
    with pytest.raises(ObjectVanishedError, match=r"a\.csv"), source.open_object(obj):
        pass


def names_in(directory: Path) -> list[str]:
    return [obj.name for obj in open_source(str(directory)).list_objects()]


def make_files(directory: Path, *names: str) -> Path:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")
    return directory


def test_a_linked_directory_is_listed_like_one_that_is_there(tmp_path: Path) -> None:
    root = make_files(tmp_path / "root", "a.csv")
    (root / "Timeseries").symlink_to(make_files(tmp_path / "disk", "deep/b.csv"))
    assert names_in(root) == ["Timeseries/deep/b.csv", "a.csv"]


def test_a_file_behind_a_link_is_read(tmp_path: Path) -> None:
    root = make_files(tmp_path / "root", "a.csv")
    (root / "Timeseries").symlink_to(make_files(tmp_path / "disk", "b.csv"))
    source = open_source(str(root))
    with source.open_object(source.list_objects()[0]) as stream:
        assert stream.read() == b"1"


def test_links_that_lead_round_in_a_circle_are_no_files(tmp_path: Path) -> None:
    root = make_files(tmp_path / "root", "one/a.csv")
    (root / "itself").symlink_to(root)
    (root / "one" / "parent").symlink_to("..")
    (root / "grandparent").symlink_to(tmp_path)
    (root / "dangling.csv").symlink_to(tmp_path / "nowhere")
    assert names_in(root) == ["one/a.csv"]


def test_two_linked_directories_that_link_to_each_other_are_listed_once(tmp_path: Path) -> None:
    root = make_files(tmp_path / "root", "a.csv")
    one, two = make_files(tmp_path / "one", "b.csv"), make_files(tmp_path / "two", "c.csv")
    (one / "two").symlink_to(two)
    (two / "one").symlink_to(one)
    (root / "linked").symlink_to(one)
    assert names_in(root) == ["a.csv", "linked/b.csv", "linked/two/c.csv"]


def test_a_link_beside_the_directory_that_it_leads_to_changes_no_name(tmp_path: Path) -> None:
    root = make_files(tmp_path / "root", "z/a.csv")
    (root / "b").symlink_to("z")
    assert names_in(root) == ["z/a.csv"]


def test_a_file_deleted_while_its_directory_is_listed_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_files(tmp_path, "a.csv", "b.csv", "c/d.csv", "e/f.csv")
    scandir = os.scandir

    def delete_meanwhile(path: Any) -> Any:
        entries = scandir(path)
        for name in ("a.csv", "c/d.csv"):
            tmp_path.joinpath(name).unlink(missing_ok=True)
        return entries

    monkeypatch.setattr(os, "scandir", delete_meanwhile)
    assert names_in(tmp_path) == ["b.csv", "e/f.csv"]


def test_when_a_file_was_written_is_listed_in_microseconds(tmp_path: Path) -> None:
    os.utime(make_files(tmp_path, "a.csv") / "a.csv", ns=(0, 1_385_000_000_123_456_789))
    assert [obj.modified for obj in open_source(str(tmp_path)).list_objects()] == [1_385_000_000_123_456]


@pytest.mark.parametrize(
    "location", ["nowhere", "s3://", "s3:///prefix", "gs://bucket", "https://host/bucket"]
)
def test_a_wrong_source_is_one_line_that_names_the_setting(location: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^IOT_SOURCE .*$") as caught:
        open_source(location)
    assert location in str(caught.value)


@dataclass(frozen=True)
class ChangingStore(DirectoryStore):
    """A directory in which somebody changes files between listing and reading them."""

    changes: dict[str, list[bytes | None]] = field(default_factory=dict)

    @contextmanager
    def open_object(self, obj: StoredObject) -> Iterator[IO[bytes]]:
        if self.changes.get(obj.name):
            content = self.changes[obj.name].pop(0)
            path = self.root / obj.name
            path.unlink() if content is None else path.write_bytes(content)
        with super().open_object(obj) as stream:
            yield stream


def changing(bucket: Bucket, *contents: bytes | None) -> ChangingStore:
    bucket.write("data_0.csv", row(value=1))
    bucket.write("data_1.csv", row(value=2))
    return ChangingStore(bucket.source, changes={"Timeseries/data_0.csv": list(contents)})


def load(source: Store | str, bucket: Bucket) -> LoadReport:
    return load_timeseries(source=source, warehouse=bucket.warehouse)


def test_a_file_overwritten_between_listing_and_reading_is_listed_and_read_again(bucket: Bucket) -> None:
    source = changing(bucket, csv_of(row(value=31)), csv_of(row(value=32)))
    report = load(source, bucket)
    assert bucket.values() == [2, 32]
    assert (report.files_new, report.files_vanished) == (2, ())
    (obj, _) = source.list_objects()
    assert bucket.sql("SELECT key, version, size FROM source_files ORDER BY key")[0] == (
        obj.name,
        obj.version,
        obj.size,
    )
    assert load(source, bucket).files_unchanged == 2


def test_a_file_gone_between_listing_and_reading_is_recorded_as_vanished_and_the_load_goes_on(
    bucket: Bucket,
) -> None:
    report = load(changing(bucket, None), bucket)
    assert bucket.values() == [2]
    assert (report.files_new, report.files_vanished) == (1, ("Timeseries/data_0.csv",))


def test_a_file_overwritten_and_then_gone_is_recorded_as_vanished(bucket: Bucket) -> None:
    source = changing(bucket, CHANGED)
    listings = iter([source.list_objects(), source.list_objects()[1:]])
    object.__setattr__(source, "list_objects", lambda: next(listings))
    assert load(source, bucket).files_vanished == ("Timeseries/data_0.csv",)
    assert bucket.values() == [2]


def test_a_file_that_never_stops_changing_is_left_for_the_next_load_and_the_others_are_loaded(
    bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    bucket.write("data_0.csv", row(value=1))
    bucket.load()
    source = changing(bucket, *(csv_of(row(value=value)) for value in range(10, 30)))
    report = load(source, bucket)
    assert bucket.values() == [1, 2]
    assert report.files_unsettled == ("Timeseries/data_0.csv",)
    assert (report.files_new, report.files_changed, report.rows_read) == (1, 0, 1)
    assert "overwritten again and again" in caplog.text
    bucket.write("data_0.csv", row(value=3))
    report = bucket.load()
    assert (report.files_changed, report.files_unsettled) == (1, ())
    assert bucket.values() == [2, 3]


def test_a_full_reload_from_a_source_without_files_is_refused_unless_said_twice(bucket: Bucket) -> None:
    bucket.write("data_0.csv", row(value=1))
    bucket.load()
    bucket.delete("data_0.csv")
    with pytest.raises(ConfigurationError, match=r"^a full reload .* IOT_SOURCE.* allow_empty .*$"):
        bucket.load(full_reload=True)
    assert bucket.values() == [1]
    report = bucket.load(full_reload=True, allow_empty=True)
    assert (report.files_new, report.files_missing) == (0, 0)
    assert bucket.values() == []


def test_a_load_from_a_source_without_files_warns_and_leaves_what_is_there(
    bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    bucket.write("data_0.csv", row(value=1))
    bucket.load()
    bucket.delete("data_0.csv")
    assert bucket.load().files_missing == 1
    assert bucket.values() == [1]
    assert "check IOT_SOURCE" in caplog.text


def test_a_load_with_nothing_new_needs_no_workers(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.write("data_0.csv", row(value=1))
    bucket.load()
    monkeypatch.setenv("IOT_DASK_SCHEDULER", "tcp://127.0.0.1:1")
    assert bucket.load().files_unchanged == 1
    bucket.write("data_1.csv", row(value=2))
    with pytest.raises(IotPipelineError, match="IOT_DASK_SCHEDULER"):
        bucket.load()


def test_a_file_changed_later_replaces_its_old_rows_in_one_commit(bucket: Bucket) -> None:
    bucket.write("data_0.csv", row("2013-01-01 00:00", value=1), row("2013-02-01 00:00", value=1))
    bucket.load()
    bucket.write("data_0.csv", row("2013-02-01 00:00", value=2), row("2013-03-01 00:00", value=2))
    report = bucket.load()
    assert bucket.values() == [2, 2]
    assert (report.files_new, report.files_changed) == (0, 1)
    assert report.months == ("2013-01", "2013-02", "2013-03")


def test_a_file_deleted_later_keeps_its_rows_and_the_report_says_so(bucket: Bucket) -> None:
    bucket.write("data_0.csv", row(value=1))
    bucket.write("data_1.csv", row(value=2))
    bucket.load()
    bucket.delete("data_0.csv")
    report = bucket.load()
    assert bucket.values() == [1, 2]
    assert (report.files_missing, report.files_unchanged) == (1, 1)
    bucket.load(full_reload=True)
    assert bucket.values() == [2]


def test_what_is_not_a_csv_is_skipped_and_listed(bucket: Bucket) -> None:
    for key in ("a.CSV", "b.csv.bz2", "c.txt", "csv", ".csv", "deep/er/d.csv"):
        bucket.write(key, row(value=ord(key[0])))
    bucket.source.joinpath("elsewhere.csv").write_bytes(CONTENT)
    report = bucket.load()
    assert bucket.values() == [ord("."), ord("a"), ord("d")]
    assert report.files_skipped == ("Timeseries/b.csv.bz2", "Timeseries/c.txt", "Timeseries/csv")


@pytest.mark.parametrize("folder", ["timeseries", "TIMESERIES", "archive/2013/TimeSeries/part 1"])
def test_the_folder_is_found_in_any_case_and_at_any_depth(bucket: Bucket, folder: str) -> None:
    directory = bucket.source / folder
    directory.mkdir(parents=True)
    directory.joinpath("data_0.csv").write_bytes(CONTENT)
    assert bucket.load().rows_loaded == 60


@pytest.mark.parametrize(
    "name", ["blank name.csv", "ünïcode.csv", "new\nline.csv", "'quote\".csv", "a;b.csv"]
)
def test_an_odd_file_name_is_only_a_name(bucket: Bucket, name: str) -> None:
    bucket.write(name, row(value=1), "refused")
    bucket.load()
    assert bucket.values() == [1]
    assert bucket.sql("SELECT source_key FROM rejected_rows") == [(f"Timeseries/{name}",)]
    assert bucket.load().files_unchanged == 1


def test_a_file_name_that_is_not_utf8_is_skipped_and_listed(bucket: Bucket) -> None:
    bucket.write("data_0.csv", row(value=1))
    bucket.write(os.fsdecode(b"data_\xff.csv"), row(value=2))
    report = bucket.load()
    assert bucket.values() == [1]
    assert [key.isprintable() and key[:16] for key in report.files_skipped] == ["Timeseries/data_"]


# ------------------------------------------------------------------------------------ S3


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_s3_server() as url:
        yield url


@pytest.fixture(autouse=True)
def aws_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@dataclass(frozen=True)
class Objects:
    """A bucket on the server."""

    name: str
    client: "S3Client"
    connection: S3Connection

    def put(self, key: str, content: bytes = CONTENT) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def source(self, prefix: str = "", **connection: Any) -> Store:
        options = {"endpoint_url": self.connection.endpoint_url, **CREDENTIALS, **connection}
        return open_source(f"s3://{self.name}{prefix}", S3Connection(**options))


CREDENTIALS = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET}


def make_client(url: str, service: str = "s3", **credentials: str) -> Any:
    return boto3.session.Session().client(
        service,  # type: ignore[call-overload]
        endpoint_url=url,
        region_name="us-east-1",
        **(CREDENTIALS | credentials),
    )


@pytest.fixture(scope="module")
def client(server: str) -> Any:
    return make_client(server)


@pytest.fixture
def objects(server: str, client: Any) -> Objects:
    name = f"bucket-{time.monotonic_ns()}"
    client.create_bucket(Bucket=name)
    return Objects(name, client, S3Connection(endpoint_url=server))


@pytest.fixture
def proxy(server: str) -> Iterator[FaultyProxy]:
    with running_proxy(server) as proxy:
        yield proxy


def read(source: Store, key: str) -> bytes:
    obj = next(obj for obj in source.list_objects() if obj.name == key)
    with source.open_object(obj) as stream:
        return stream.read()


def test_a_bucket_is_loaded_as_a_directory_is(objects: Objects, bucket: Bucket) -> None:
    objects.put(KEY)
    objects.put("timeseries/data2/data_1.csv", CHANGED)
    objects.put("mapping/mapping.csv", b"")
    report = load(objects.source(), bucket)
    assert (report.files_new, report.rows_loaded) == (2, 61)
    assert load(objects.source(), bucket).files_unchanged == 2


def test_an_object_of_a_bucket_knows_when_it_was_last_written(objects: Objects) -> None:
    before = time.time()
    objects.put(KEY)
    (obj,) = objects.source().list_objects()
    assert before - 1 <= obj.modified / 1e6 <= time.time() + 1


def test_a_packed_object_of_a_bucket_is_loaded(objects: Objects, bucket: Bucket) -> None:
    objects.put(f"{KEY}.gz", gzip.compress(CONTENT))
    assert load(objects.source(), bucket).rows_loaded == 60


def test_keys_are_relative_to_the_prefix(objects: Objects) -> None:
    objects.put(f"deep/er/{KEY}")
    objects.put(f"deep/erratic/{KEY}")
    for prefix in ("/deep/er", "/deep/er/"):
        source = objects.source(prefix)
        assert [obj.name for obj in source.list_objects()] == [KEY]
        assert read(source, KEY) == CONTENT


def test_the_standard_variables_are_honoured(
    objects: Objects, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    objects.put(KEY)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert read(open_source(f"s3://{objects.name}"), KEY) == CONTENT


def test_more_than_a_thousand_keys_are_all_listed(objects: Objects) -> None:
    keys = sorted(f"Timeseries/data_{number}.csv" for number in range(1_003))
    for key in keys:
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(objects.name, key, b"")
    assert [obj.name for obj in objects.source().list_objects()] == keys


def test_odd_keys_are_only_names_and_never_local_paths(
    objects: Objects, proxy: FaultyProxy, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = [
        "blank name.csv",
        "ünïcode €.csv",
        "new\nline.csv",
        "../escape.csv",
        "/absolute.csv",
        "deep//er.csv",
        "%2e%2e.csv",
        "plus+and&?#.csv",
        "UPPER.CSV",
    ]
    others = ["packed.csv.zip", "notes.txt"]
    for number, name in enumerate(names):
        objects.put(f"Timeseries/{name}".replace("\n", NEWLINE), csv_of(row(value=number), "refused"))
    for name in others:
        objects.put(f"Timeseries/{name}")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    report = load(objects.source(endpoint_url=proxy.url), bucket)
    assert bucket.values() == list(range(len(names)))
    assert set(report.files_skipped) == {f"Timeseries/{name}" for name in others}
    assert {key for (key,) in bucket.sql("SELECT source_key FROM rejected_rows")} == {
        f"Timeseries/{name}" for name in names
    }
    assert list(here.iterdir()) == []
    assert not list(tmp_path.rglob("*escape*"))


def test_a_folders_marker_is_no_csv(objects: Objects, bucket: Bucket) -> None:
    objects.put("Timeseries/dir/", b"")
    objects.put("Timeseries/dir.csv/", b"")
    objects.put("Timeseries/dir/data_0.csv")
    report = load(objects.source(), bucket)
    assert report.files_new == 1
    assert report.files_skipped == ("Timeseries/dir.csv/", "Timeseries/dir/")


def test_an_object_overwritten_between_listing_and_reading_is_noticed(objects: Objects) -> None:
    objects.put(KEY)
    source = objects.source()
    (obj,) = source.list_objects()
    objects.put(KEY, CHANGED)
    with pytest.raises(ObjectChangedError, match=KEY), source.open_object(obj):
        pass


def test_an_object_gone_between_listing_and_reading_is_noticed(objects: Objects) -> None:
    objects.put(KEY)
    source = objects.source()
    (obj,) = source.list_objects()
    objects.client.delete_object(Bucket=objects.name, Key=KEY)
    with pytest.raises(ObjectVanishedError, match=KEY), source.open_object(obj):
        pass


def test_key_etag_and_size_are_recorded_together(objects: Objects, bucket: Bucket) -> None:
    objects.put(KEY, CHANGED)
    load(objects.source(), bucket)
    head = objects.client.head_object(Bucket=objects.name, Key=KEY)
    assert bucket.sql("SELECT key, version, size FROM source_files") == [
        (KEY, head["ETag"].strip('"'), head["ContentLength"])
    ]


def test_when_an_object_was_written_is_listed_in_microseconds_and_makes_no_version(objects: Objects) -> None:
    objects.put(KEY)
    (before,) = objects.source().list_objects()
    written = objects.client.head_object(Bucket=objects.name, Key=KEY)["LastModified"]
    assert abs(before.modified - written.timestamp() * 1e6) < 1e6
    time.sleep(1.1)  # the server tells the time in seconds
    objects.put(KEY)
    (after,) = objects.source().list_objects()
    assert after == before
    assert after.modified > before.modified


def test_an_object_of_many_parts_whose_etag_is_no_checksum_is_read(objects: Objects) -> None:
    upload = objects.client.create_multipart_upload(Bucket=objects.name, Key=KEY)
    options: Any = {"Bucket": objects.name, "Key": KEY, "UploadId": upload["UploadId"]}
    part = objects.client.upload_part(**options, PartNumber=1, Body=CONTENT)
    parts: Any = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    objects.client.complete_multipart_upload(**options, MultipartUpload=parts)
    source = objects.source()
    assert "-" in source.list_objects()[0].version
    assert read(source, KEY) == CONTENT


def test_a_large_object_is_spooled_to_the_disk_and_read_whole(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_s3, "SPOOL_BYTES", 100)
    objects.put(KEY)
    assert read(objects.source(), KEY) == CONTENT


# --------------------------------------------------------------------------------- faults

PASSING = ["500", "503", "429", "reset", "hang", "stall", "cut", "short", "flip"]


@pytest.fixture
def quick_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_connection, "READ_SECONDS", 1.0)  # a busy machine answers within it


@pytest.mark.usefixtures("quick_timeouts")
@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_tried_again_and_the_object_is_read_whole(
    objects: Objects, proxy: FaultyProxy, waits: Waits, fault: str
) -> None:
    objects.put(KEY)
    source = objects.source(endpoint_url=proxy.url)
    proxy.faults = [fault] * (ATTEMPTS - 1)
    assert read(source, KEY) == CONTENT
    assert proxy.requests[f"/{objects.name}/{KEY}"] == ATTEMPTS
    assert len(waits.seconds) <= ATTEMPTS


@pytest.mark.usefixtures("quick_timeouts", "waits")
@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_stays_fails_the_load_names_the_key_and_loads_nothing(
    objects: Objects, proxy: FaultyProxy, bucket: Bucket, fault: str
) -> None:
    objects.put("Timeseries/data_0.csv", csv_of(row(value=1)))
    load(objects.source(), bucket)
    objects.put("Timeseries/data_0.csv", CHANGED)
    objects.put("Timeseries/data_1.csv", CHANGED)
    proxy.faults = [fault] * 100
    with pytest.raises(SourceError, match=r"Timeseries/data_[01]\.csv") as caught:
        load(objects.source(endpoint_url=proxy.url), bucket)
    assert_clear(caught.value)
    assert sum(proxy.requests.values()) <= 1 + 2 * ATTEMPTS
    assert bucket.values() == [1]
    assert load(objects.source(), bucket).rows_loaded == 1
    assert bucket.values() == [-1]


@pytest.mark.usefixtures("quick_timeouts")
@pytest.mark.parametrize("fault", ["500", "503", "429", "reset", "hang"])
def test_a_listing_meets_faults_with_retries_too(
    objects: Objects, proxy: FaultyProxy, waits: Waits, fault: str
) -> None:
    objects.put(KEY)
    source = objects.source(endpoint_url=proxy.url)
    proxy.listing_faults = [fault] * (ATTEMPTS - 1)
    assert [obj.name for obj in source.list_objects()] == [KEY]
    assert len(waits.seconds) == ATTEMPTS - 1
    proxy.listing_faults = [fault] * 100
    with pytest.raises(SourceError, match=f"can't list s3://{objects.name}") as caught:
        source.list_objects()
    assert_clear(caught.value)


def test_retries_wait_a_little_before_each(objects: Objects, proxy: FaultyProxy, waits: Waits) -> None:
    objects.put(KEY)
    proxy.faults = ["503"] * (ATTEMPTS - 1)
    read(objects.source(endpoint_url=proxy.url), KEY)
    assert len(waits.seconds) == ATTEMPTS - 1
    assert all(0 < seconds <= 20 for seconds in waits.seconds)


# ------------------------------------------------------------------- wrong configuration


def assert_clear(error: BaseException) -> None:
    """Check that neither an error nor what caused it is more than a line or holds a secret."""
    text = str(error)
    assert text
    assert "\n" not in text
    assert len(text) < 500
    cause: BaseException | None = error
    while cause:
        assert SECRET not in f"{cause} {cause!r}"
        cause = cause.__cause__ or cause.__context__


def assert_fails_at_once(source: Store, bucket: Bucket, match: str, *, may_pass: bool = False) -> None:
    started = time.monotonic()
    with pytest.raises(IotPipelineError, match=match) as caught:
        load(source, bucket)
    assert caught.value.may_pass is may_pass
    assert time.monotonic() - started < 5
    assert_clear(caught.value)
    assert not bucket.warehouse.joinpath("source_files").exists()


def test_a_wrong_bucket_is_one_clear_line(objects: Objects, bucket: Bucket) -> None:
    source = open_source("s3://no-such-bucket", objects.source().connection)  # type: ignore[attr-defined]
    assert_fails_at_once(source, bucket, "s3://no-such-bucket.*there is no such bucket: check IOT_SOURCE")


def test_a_name_that_no_bucket_can_have_is_one_clear_line(objects: Objects, bucket: Bucket) -> None:
    source = open_source("s3://No_Bucket!", objects.source().connection)  # type: ignore[attr-defined]
    assert_fails_at_once(source, bucket, "No_Bucket!")


def test_a_server_that_nothing_listens_at_is_one_clear_line(
    objects: Objects, bucket: Bucket, waits: Waits
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert_fails_at_once(objects.source(endpoint_url=url), bucket, "AWS_ENDPOINT_URL_S3", may_pass=True)
    assert len(waits.seconds) < ATTEMPTS


@pytest.mark.parametrize("url", ["127.0.0.1:9000", "not a url", "http://", "http://127.0.0.1:99999"])
def test_an_endpoint_that_is_no_url_is_one_clear_line(objects: Objects, bucket: Bucket, url: str) -> None:
    assert_fails_at_once(objects.source(endpoint_url=url), bucket, "AWS_ENDPOINT_URL_S3")


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("page", ["<html><body/></html>", "<!DOCTYPE html>\n<p>Sign in" + "<br>\n" * 1_000])
def test_an_endpoint_that_is_no_s3_server_is_one_clear_line(
    objects: Objects, proxy: FaultyProxy, bucket: Bucket, page: str
) -> None:
    proxy.listing_faults = [page] * 100
    source = objects.source(endpoint_url=proxy.url)
    assert_fails_at_once(source, bucket, "check AWS_ENDPOINT_URL_S3", may_pass=True)


@pytest.mark.usefixtures("waits")
def test_a_secret_in_the_endpoint_is_not_shown(objects: Objects, bucket: Bucket) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://user:hunter2@127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(IotPipelineError) as caught:
            load(objects.source(endpoint_url=url), bucket)
    assert "hunter2" not in str(caught.value)


def test_missing_credentials_are_one_clear_line(objects: Objects, bucket: Bucket) -> None:
    source = objects.source(aws_access_key_id=None, aws_secret_access_key=None)
    assert_fails_at_once(source, bucket, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")


def test_an_unknown_profile_is_one_clear_line(objects: Objects, bucket: Bucket) -> None:
    assert_fails_at_once(objects.source(profile_name="nobody"), bucket, "nobody")


@pytest.fixture
def guarded(objects: Objects, server: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Let the server check credentials; returns those of a user who may read."""
    objects.put(KEY)
    iam = make_client(server, "iam")
    name = f"reader-{time.monotonic_ns()}"
    iam.create_user(UserName=name)
    policy = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'
    )
    iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
    return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}


def test_right_credentials_are_let_in(objects: Objects, bucket: Bucket, guarded: dict[str, str]) -> None:
    assert load(objects.source(**guarded), bucket).rows_loaded == 60


def test_a_wrong_secret_is_one_clear_line(objects: Objects, bucket: Bucket, guarded: dict[str, str]) -> None:
    source = objects.source(**guarded | {"aws_secret_access_key": SECRET})
    assert_fails_at_once(source, bucket, "AWS_SECRET_ACCESS_KEY")


@pytest.mark.usefixtures("guarded")
def test_an_unknown_access_key_is_one_clear_line(objects: Objects, bucket: Bucket) -> None:
    assert_fails_at_once(objects.source(), bucket, "AWS_ACCESS_KEY_ID")


def test_no_secret_is_part_of_what_a_source_shows() -> None:
    source = S3Store("bucket", "", S3Connection(aws_session_token=SECRET, **CREDENTIALS))
    assert SECRET not in repr(source)
    assert ACCESS_KEY not in repr(source)


def test_a_key_of_the_connection_goes_without_the_token_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = S3Connection(**CREDENTIALS)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "another")
    options = connection.object_store_options()
    assert "aws_session_token" not in options
    assert CREDENTIALS.items() <= options.items()


def test_a_source_can_be_sent_to_a_worker(objects: Objects) -> None:
    objects.put(KEY)
    source = objects.source()
    read(source, KEY)
    assert read(pickle.loads(pickle.dumps(source)), KEY) == CONTENT  # noqa: S301 - what it has pickled itself
