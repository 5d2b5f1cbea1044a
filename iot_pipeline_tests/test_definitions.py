"""The code location as the server builds it, and its assets run on the sample bucket."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from iot_pipeline import get_measurements
from iot_pipeline.definitions import defs
from iot_pipeline.defs.resources import MeasurementsResource
from iot_pipeline_tests.conftest import SAMPLE, SENSOR, Bucket, row
from iot_pipeline_tests.runs import (
    TABLES,
    definitions_on,
    failure_of,
    materialize,
    measurements_in,
    metadata_of,
)

pytestmark = pytest.mark.system

PICTURE = "data:image/png;base64,"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dg.ExecuteInProcessResult:
    return materialize(definitions_on(SAMPLE, tmp_path_factory.mktemp("run")))


def test_the_location_holds_these_assets() -> None:
    graph = defs.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == TABLES | {"bucket"}
    assert {key.to_user_string() for key in graph.materializable_asset_keys} == TABLES


def test_the_graph_leads_from_the_bucket_to_the_report() -> None:
    graph = defs.resolve_asset_graph()
    parents = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }
    assert parents == {
        "bucket": set(),
        "mapping": {"bucket"},
        "timeseries": {"bucket"},
        "anomalies": {"mapping", "timeseries"},
        "events": {"mapping", "timeseries"},
        "sensor_models": {"mapping", "timeseries"},
        "anomaly_report": {"anomalies", "events", "sensor_models"},
    }


def test_every_asset_says_what_its_rows_are_who_owns_it_and_what_it_is_made_of() -> None:
    graph = defs.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description
        assert node.owners
        assert node.kinds


def test_everything_is_reloaded_every_night_at_three_in_berlin() -> None:
    schedule = defs.resolve_schedule_def("daily_reload")
    assert schedule.cron_schedule == "0 3 * * *"
    assert schedule.execution_timezone == "Europe/Berlin"
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    job = defs.resolve_job_def("reload")
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == TABLES


def test_every_asset_is_stale_at_five_unless_the_night_made_it() -> None:
    graph = defs.resolve_asset_graph()
    nightly = dg.FreshnessPolicy.cron(
        deadline_cron="0 5 * * *", lower_bound_delta=timedelta(hours=2), timezone="Europe/Berlin"
    )
    for key in graph.materializable_asset_keys:
        assert graph.get(key).freshness_policy == nightly


def test_a_run_of_all_assets_succeeds_and_says_how_many_rows_each_table_has(
    run: dg.ExecuteInProcessResult,
) -> None:
    assert run.success
    assert metadata_of(run, "mapping")["dagster/row_count"] == 12
    assert metadata_of(run, "timeseries")["dagster/row_count"] == 35_626
    assert metadata_of(run, "sensor_models")["dagster/row_count"] == 12
    found = metadata_of(run, "anomalies")
    assert found["dagster/row_count"] == sum(found["anomalies_by_kind"].values()) > 0
    events = metadata_of(run, "events")
    assert events["dagster/row_count"] == sum(events["events_by_kind"].values()) == events["incidents"] == 15


def test_a_run_says_what_span_of_time_the_readings_cover_and_how_large_their_table_is(
    run: dg.ExecuteInProcessResult,
) -> None:
    found = metadata_of(run, "timeseries")
    assert found["first_reading"] == datetime(2013, 10, 3, 14, 7, tzinfo=UTC).timestamp()
    assert found["last_reading"] == datetime(2013, 11, 3, 14, 6, tzinfo=UTC).timestamp()
    assert 0.1 < found["size_in_mb"] < 1


def test_a_run_shows_readings_and_anomalies_over_time(run: dg.ExecuteInProcessResult) -> None:
    assert metadata_of(run, "timeseries")["readings_per_month"].count(PICTURE) == 1
    assert metadata_of(run, "anomalies")["anomalies_per_week"].count(PICTURE) == 1


def test_where_there_is_nothing_to_draw_there_is_no_picture(bucket: Bucket) -> None:
    result = materialize(definitions_on(bucket.source, bucket.warehouse), "timeseries")
    assert metadata_of(result, "timeseries")["readings_per_month"] == "Nothing to show."


def test_a_run_accounts_for_every_row(run: dg.ExecuteInProcessResult) -> None:
    found = metadata_of(run, "timeseries")
    assert found["this_load_files_new"] == 30
    assert found["this_load_rows_read"] == 35_626 + found["this_load_rows_duplicate"]


def test_rejected_rows_are_counted_by_reason(bucket: Bucket) -> None:
    bucket.write("a.csv", row(), "no row", row(value="nan"), row(value="x"))
    result = materialize(definitions_on(bucket.source, bucket.warehouse), "timeseries")
    assert metadata_of(result, "timeseries")["rejected_rows_by_reason"] == {
        "bad sensor_value": 2,
        "wrong number of fields": 1,
    }


def test_a_run_shows_pictures_of_the_worst_sensors(run: dg.ExecuteInProcessResult) -> None:
    found = metadata_of(run, "anomaly_report")
    assert Path(found["page"]).exists()
    assert found["pictures_of_the_worst"].count(PICTURE) == 3


def test_a_run_marks_the_bucket_as_seen(run: dg.ExecuteInProcessResult) -> None:
    assert metadata_of(run, "bucket") == {"source": str(SAMPLE), "csv_files": 30}


def test_every_asset_says_where_it_was_read_from_and_written_to(tmp_path: Path) -> None:
    definitions = definitions_on(SAMPLE, tmp_path)
    with dg.instance_for_test() as instance:
        result = materialize(definitions, instance=instance)
        (run,) = instance.get_runs()
    for asset in TABLES:
        assert metadata_of(result, asset)["warehouse"] == str(tmp_path)
    assert run.tags["iot_pipeline/warehouse"] == str(tmp_path)
    assert run.tags["iot_pipeline/source"] == str(SAMPLE)


def test_one_table_of_the_detector_can_be_selected_and_all_are_reported(tmp_path: Path) -> None:
    definitions = definitions_on(SAMPLE, tmp_path)
    assert materialize(definitions, "mapping", "timeseries").success
    result = materialize(definitions, "events")
    assert result.success
    assert metadata_of(result, "sensor_models")["dagster/row_count"] == 12
    assert metadata_of(result, "anomalies")["dagster/row_count"] == 148


def test_full_reload_is_run_config(bucket: Bucket) -> None:
    bucket.write("a.csv", row())
    bucket.write("b.csv", row("2013-02-01 12:00"))
    bucket.load()
    bucket.delete("b.csv")
    config = {"ops": {"timeseries": {"config": {"full_reload": True}}}}
    definitions = definitions_on(bucket.source, bucket.warehouse)
    assert materialize(definitions, "timeseries", config=config).success
    assert len(bucket.content()) == 1


def test_a_full_reload_that_may_empty_the_table_is_run_config(bucket: Bucket) -> None:
    bucket.write("a.csv", row())
    bucket.load()
    bucket.delete("a.csv")
    definitions = definitions_on(bucket.source, bucket.warehouse)
    for options, succeeds in (({}, False), ({"allow_empty": True}, True)):
        config = {"ops": {"timeseries": {"config": {"full_reload": True, **options}}}}
        assert materialize(definitions, "timeseries", config=config).success is succeeds
    assert bucket.content() == []


@pytest.mark.parametrize(
    ("asset", "said"),
    [
        ("mapping", " must hold one mapping.csv, found none: check IOT_SOURCE"),
        ("anomalies", "run: iot-pipeline load --only mapping,timeseries"),
        ("anomaly_report", "run: iot-pipeline load --only mapping,timeseries"),
    ],
)
def test_a_failure_that_a_user_can_mend_is_one_line(bucket: Bucket, asset: str, said: str) -> None:
    result = materialize(definitions_on(bucket.source, bucket.warehouse), asset)
    assert not result.success
    assert said in failure_of(result)
    assert "\n" not in failure_of(result)


def test_the_query_resource_answers_like_the_function(sample_warehouse: Path) -> None:
    measurements = measurements_in(sample_warehouse)

    @dg.asset
    def consumer(measurements: MeasurementsResource) -> dg.MaterializeResult[Any]:
        rows = measurements.get_measurements("sensor_00003", "2013-10-05", pd.Timestamp("2013-10-06"))
        with measurements.connect() as connection:
            ((n_sensors,),) = connection.execute("SELECT count(*) FROM sensors").fetchall()
        return dg.MaterializeResult(metadata={"rows": len(rows), "sensors": n_sensors})

    result = dg.materialize([consumer], resources={"measurements": measurements})
    rows = get_measurements("sensor_00003", "2013-10-05", "2013-10-06", warehouse=sample_warehouse)
    assert metadata_of(result, "consumer") == {"rows": len(rows), "sensors": 12}


def test_unreadable_sources_keep_what_was_loaded(bucket: Bucket) -> None:
    bucket.write("a.csv", row(uuid=SENSOR))
    bucket.load()
    result = materialize(definitions_on(bucket.source / "nowhere", bucket.warehouse), "timeseries")
    assert "is not a directory" in failure_of(result)
    assert len(bucket.content()) == 1


def test_the_report_links_to_the_pages_at_the_address_of_the_settings_and_else_to_none(
    sample_warehouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = shutil.copytree(sample_warehouse, tmp_path / "warehouse")
    definitions = definitions_on(SAMPLE, warehouse)
    monkeypatch.delenv("IOT_EXPLORE_URL", raising=False)
    assert "open_the_report" not in metadata_of(materialize(definitions, "anomaly_report"), "anomaly_report")
    monkeypatch.setenv("IOT_EXPLORE_URL", "https://sensors.example.org/")
    metadata = metadata_of(materialize(definitions, "anomaly_report"), "anomaly_report")
    assert metadata["open_the_report"] == "https://sensors.example.org/report"
    assert metadata["open_the_explore_page"] == "https://sensors.example.org/"
