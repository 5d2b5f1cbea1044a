"""An upload: the bucket holds what the directory holds, however often it is repeated."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from iot_pipeline.errors import ConfigurationError, SourceError
from iot_pipeline.store import UploadReport, open_source, upload
from iot_pipeline_tests.s3_server import running_s3_server

PLACE = "s3://a-bucket/a/prefix"


@pytest.fixture(autouse=True)
def _server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with running_s3_server() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in ("mapping.csv", "Timeseries/one/a.csv", "Timeseries/two/b.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"this is {name}")
    return tmp_path


def content_of(location: str) -> dict[str, str]:
    source = open_source(location)
    found = {}
    for obj in source.list_objects():
        with source.open_object(obj) as stream:
            found[obj.name] = stream.read().decode()
    return found


def test_a_new_bucket_gets_all_files(directory: Path) -> None:
    assert upload(directory, PLACE) == UploadReport(uploaded=3, unchanged=0)
    names = ["Timeseries/one/a.csv", "Timeseries/two/b.csv", "mapping.csv"]
    assert content_of(PLACE) == {name: f"this is {name}" for name in names}


def test_a_repeated_upload_sends_only_what_changed(directory: Path) -> None:
    upload(directory, PLACE)
    (directory / "mapping.csv").write_text("something else")
    assert upload(directory, PLACE) == UploadReport(uploaded=1, unchanged=2)
    assert content_of(PLACE)["mapping.csv"] == "something else"
    assert upload(directory, PLACE) == UploadReport(uploaded=0, unchanged=3)


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_a_bucket_is_made_in_the_region_of_the_settings(
    directory: Path, monkeypatch: pytest.MonkeyPatch, region: str
) -> None:
    monkeypatch.setenv("AWS_REGION", region)
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    bucket = f"bucket-{region}"  # the servers of one process share their buckets
    assert upload(directory, f"s3://{bucket}").uploaded == 3
    made = boto3.client("s3").get_bucket_location(Bucket=bucket)["LocationConstraint"]
    assert (made or "us-east-1") == region


def test_a_bucket_that_exists_is_filled(directory: Path) -> None:
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="made-before")
    assert upload(directory, "s3://made-before").uploaded == 3


def test_a_place_that_is_no_bucket_is_refused(directory: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"upload needs a directory and s3://bucket"):
        upload(directory, str(directory))


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="upload needs a directory"):
        upload(tmp_path / "nowhere", PLACE)


def test_a_server_that_is_not_there_is_said_in_one_line(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match=r"can't make the bucket a-bucket: .*check AWS_ENDPOINT_URL_S3"):
        upload(directory, PLACE)
