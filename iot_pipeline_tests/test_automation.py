"""What runs by itself: when, how often it is tried again, and how many at a time."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from iot_pipeline.definitions import defs
from iot_pipeline.defs.automation import new_source_files
from iot_pipeline.defs.failures import PATIENCE
from iot_pipeline.errors import ConfigurationError, SourceError, WarehouseError
from iot_pipeline.ingest import load_timeseries
from iot_pipeline.settings import PROJECT_ROOT
from iot_pipeline.warehouse import open_warehouse
from iot_pipeline_tests.conftest import Bucket, row
from iot_pipeline_tests.runs import TABLES, definitions_on, failure_of, materialize, source_at

pytestmark = pytest.mark.system

# ------------------------------------------------------------------------------ new files


def look(location: Path, cursor: str | None) -> dg.SensorResult | dg.SkipReason:
    """Let the sensor look at a source."""
    with dg.build_sensor_context(cursor=cursor, resources={"source": source_at(location)}) as context:
        answer = new_source_files(context)
    assert isinstance(answer, dg.SensorResult | dg.SkipReason)
    return answer


def request(location: Path, cursor: str | None) -> tuple[str, str]:
    """Let the sensor look and return the key of the one run that it requests, and its new cursor."""
    answer = look(location, cursor)
    assert isinstance(answer, dg.SensorResult)
    (run,) = answer.run_requests or ()
    assert run.run_key
    assert answer.cursor
    return run.run_key, answer.cursor


def reason(location: Path, cursor: str | None = None) -> str:
    """Let the sensor look and return why it requests no run."""
    answer = look(location, cursor)
    assert isinstance(answer, dg.SkipReason)
    return answer.skip_message or ""


def test_the_sensor_asks_for_all_assets_every_five_minutes_and_is_off_until_somebody_switches_it_on() -> None:
    sensor = defs.resolve_sensor_def("new_source_files")
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED
    assert sensor.minimum_interval_seconds == 300
    assert sensor.job_name == "reload"


def test_each_change_of_the_listing_requests_one_run(bucket: Bucket) -> None:
    bucket.write("a.csv", row())
    first, cursor = request(bucket.source, None)
    assert reason(bucket.source, cursor) == "Nothing has changed: 1 files."
    bucket.write("a.csv", row(), row(value=2))
    second, cursor = request(bucket.source, cursor)
    bucket.delete("a.csv")
    bucket.write("b.csv", row())
    third, cursor = request(bucket.source, cursor)
    assert len({first, second, third}) == 3
    assert reason(bucket.source, cursor) == "Nothing has changed: 1 files."


def test_a_sensor_that_is_asked_again_before_its_cursor_is_kept_requests_the_same_run(bucket: Bucket) -> None:
    bucket.write("a.csv", row())
    assert request(bucket.source, None) == request(bucket.source, None)


def test_a_listing_that_comes_back_requests_a_run_of_its_own(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    for directory in (before, after):
        directory.mkdir()
        (directory / f"{directory.name}.csv").write_text("")
    keys, cursor = [], None
    for directory in (before, after, before):
        key, cursor = request(directory, cursor)
        keys.append(key)
    assert len(set(keys)) == 3


def test_a_source_without_files_requests_no_run(bucket: Bucket) -> None:
    assert reason(bucket.source) == "The source holds no files."


def test_a_source_that_cannot_be_listed_is_one_line_and_looked_at_again(tmp_path: Path) -> None:
    said = reason(tmp_path / "nowhere")
    assert said.startswith("IOT_SOURCE is not a directory")
    assert said.endswith("It is tried again in 5 minutes.")
    assert "\n" not in said


# -------------------------------------------------------------------------- trying again


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Don't wait before a retry; returns the attempts that would have been waited for."""
    attempts: list[int] = []

    def calculate_delay(_policy: dg.RetryPolicy, attempt: int) -> float:
        attempts.append(attempt)
        return 0

    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", calculate_delay)
    return attempts


def reload_at_night(bucket: Bucket) -> dg.ExecuteInProcessResult:
    """Run the nightly job's part that loads readings."""
    job = definitions_on(bucket.source, bucket.warehouse).resolve_job_def("reload")
    with dg.instance_for_test() as instance:
        return job.execute_in_process(
            instance=instance, asset_selection=[dg.AssetKey("timeseries")], raise_on_error=False
        )


class Faults:
    """Stands in for the load: raises what it is given, one a call, then loads."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def __call__(self, **options: Any) -> Any:
        if self.errors:
            raise self.errors.pop(0)
        return load_timeseries(**options)


@pytest.fixture
def loading(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes the next loads of a bucket of one reading fail."""
    bucket.write("a.csv", row())
    return lambda *errors: monkeypatch.setattr("iot_pipeline.defs.assets.load_timeseries", Faults(*errors))


def test_the_night_tries_again_when_the_object_store_does_not_answer(
    bucket: Bucket, loading: Any, waits: list[int]
) -> None:
    loading(SourceError("can't list s3://bucket: SlowDown"), SourceError("can't read a.csv: time-out"))
    assert reload_at_night(bucket).success
    assert waits == [1, 2]
    assert len(bucket.content()) == 1


def test_the_night_ends_with_the_error_when_the_object_store_does_not_come_back(
    bucket: Bucket, loading: Any, waits: list[int]
) -> None:
    loading(*[SourceError("can't list s3://bucket: SlowDown")] * 10)
    assert failure_of(reload_at_night(bucket)) == "can't list s3://bucket: SlowDown"
    assert len(waits) == PATIENCE.max_retries


@pytest.mark.parametrize(
    "error", [ConfigurationError("wrong secret: check AWS_SECRET_ACCESS_KEY"), WarehouseError("disk full")]
)
def test_the_night_does_not_try_again_what_somebody_has_to_mend(
    bucket: Bucket, loading: Any, waits: list[int], error: Exception
) -> None:
    loading(error)
    assert failure_of(reload_at_night(bucket)) == str(error)
    assert waits == []


def test_who_materializes_by_hand_is_told_at_once(bucket: Bucket, loading: Any, waits: list[int]) -> None:
    loading(SourceError("can't list s3://bucket: SlowDown"))
    result = materialize(definitions_on(bucket.source, bucket.warehouse), "timeseries")
    assert failure_of(result) == "can't list s3://bucket: SlowDown"
    assert waits == []


@contextmanager
def somebody_is_loading(bucket: Bucket) -> Iterator[None]:
    with open_warehouse(bucket.warehouse).writing("timeseries"):
        yield


def test_a_load_beside_another_one_is_refused_with_one_line_and_tried_again_at_night(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.write("a.csv", row())
    with somebody_is_loading(bucket):
        result = materialize(definitions_on(bucket.source, bucket.warehouse), "timeseries")
    assert "is writing" in failure_of(result)
    assert "try again when it is done" in failure_of(result)

    other_load = somebody_is_loading(bucket)
    other_load.__enter__()

    def wait(_policy: dg.RetryPolicy, _attempt: int) -> float:
        other_load.__exit__(None, None, None)
        return 0

    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", wait)
    assert reload_at_night(bucket).success


# ---------------------------------------------------------------------- one run at a time


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a DAGSTER_HOME with the project's settings."""
    shutil.copy(PROJECT_ROOT / "dagster_home" / "dagster.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("home")
def test_of_the_runs_that_write_the_queue_starts_one_at_a_time() -> None:
    with dg.DagsterInstance.get() as instance:
        pools = instance.get_concurrency_config().pool_config
    assert pools.pool_granularity
    assert (pools.pool_granularity.value, pools.default_pool_limit) == ("run", 1)
    job = defs.resolve_job_def("reload")
    pool_of = {node.name: node.definition.pools for node in job.nodes}
    assert {name for name, names in pool_of.items() if names == {"warehouse"}} == TABLES - {
        "anomalies",
        "events",
        "sensor_models",
    } | {"detection"}


POOLED_RUN = """
import sys, time
import dagster as dg

@dg.asset(pool="warehouse")
def pooled():
    print("started", flush=True)
    time.sleep(float(sys.argv[1]))

with dg.DagsterInstance.get() as instance:
    dg.materialize([pooled], instance=instance)
"""


@pytest.mark.usefixtures("home")
def test_a_killed_run_does_not_keep_the_next_one_waiting() -> None:
    command = [sys.executable, "-c", POOLED_RUN]
    with subprocess.Popen(
        [*command, "600"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as killed:
        assert killed.stdout
        assert killed.stdout.readline() == "started\n"
        killed.kill()
    subprocess.run([*command, "0"], check=True, capture_output=True, timeout=120)


@pytest.mark.usefixtures("home")
def test_a_run_whose_process_was_killed_is_started_once_more_and_one_that_failed_is_not() -> None:
    with dg.DagsterInstance.get() as instance:
        assert instance.run_retries_enabled
        assert instance.run_retries_max_retries == 1
        assert not instance.run_retries_retry_on_asset_or_op_failure
