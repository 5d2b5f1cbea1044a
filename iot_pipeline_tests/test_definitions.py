"""The code location as the server builds it, and its assets run on the sample bucket."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from dagster_aws.s3 import S3Resource
from dagster_duckdb import DuckDBResource

from iot_pipeline import get_measurements
from iot_pipeline.definitions import build_defs, defs
from iot_pipeline.defs.resources import MeasurementsResource, SourceResource
from iot_pipeline.ingest.ledger import read_ledger, write_ledger
from iot_pipeline.warehouse import open_warehouse
from iot_pipeline_tests.conftest import SAMPLE, SENSOR, Bucket, row

TABLES = {"mapping", "timeseries", "anomalies", "sensor_models", "anomaly_report"}


def definitions_on(source: Path, warehouse: Path) -> dg.Definitions:
    return build_defs(
        resource_overrides={
            "source": SourceResource(location=str(source), s3=S3Resource()),
            "measurements": MeasurementsResource(
                warehouse=str(warehouse), duckdb=DuckDBResource(database=":memory:")
            ),
        }
    )


def materialize(definitions: dg.Definitions, *assets: str, config: Any = None) -> dg.ExecuteInProcessResult:
    job = definitions.resolve_implicit_global_asset_job_def()
    with dg.instance_for_test() as instance:
        return job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(asset) for asset in assets],
            run_config=config,
            raise_on_error=False,
        )


def metadata_of(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (event,) = [
        event.step_materialization_data.materialization
        for event in result.all_events
        if event.event_type_value == "ASSET_MATERIALIZATION" and event.asset_key == dg.AssetKey(asset)
    ]
    return {name: value.value for name, value in event.metadata.items()}


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data = event.step_failure_data
    assert data.user_failure_data
    return data.user_failure_data.description or ""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dg.ExecuteInProcessResult:
    return materialize(definitions_on(SAMPLE, tmp_path_factory.mktemp("run")), *TABLES)


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
        "sensor_models": {"mapping", "timeseries"},
        "anomaly_report": {"anomalies", "sensor_models"},
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


def test_a_run_of_all_assets_succeeds_and_says_how_many_rows_each_table_has(
    run: dg.ExecuteInProcessResult,
) -> None:
    assert run.success
    assert metadata_of(run, "mapping")["dagster/row_count"] == 12
    assert metadata_of(run, "timeseries")["dagster/row_count"] == 35_626
    assert metadata_of(run, "sensor_models")["dagster/row_count"] == 12
    found = metadata_of(run, "anomalies")
    assert found["dagster/row_count"] == sum(found["by_kind"].values()) > 0


def test_a_run_accounts_for_every_row(run: dg.ExecuteInProcessResult) -> None:
    found = metadata_of(run, "timeseries")
    assert found["files_new"] == 30
    assert found["rows_read"] == found["rows_loaded"] + found["rows_rejected"] + found["rows_duplicate"]


def write_row_without_account(bucket: Bucket) -> None:
    """Claim in the ledger that one row more was loaded than is in the table."""
    house = open_warehouse(bucket.warehouse)
    ledger = read_ledger(house.source_files)
    (entry,) = ledger.files.values()
    entry.info = replace(entry.info, rows_read=entry.info.rows_read + 1)
    entry.loaded = {"2013-01": 2}
    write_ledger(house.source_files, ledger)


@pytest.mark.parametrize("tampered", [False, True])
def test_a_row_that_is_not_accounted_for_fails_a_blocking_check(bucket: Bucket, *, tampered: bool) -> None:
    bucket.write("a.csv", row(), "no row")
    bucket.load()
    if tampered:
        write_row_without_account(bucket)
    definitions = definitions_on(bucket.source, bucket.warehouse)
    result = materialize(definitions, "timeseries")
    (evaluation,) = result.get_asset_check_evaluations()
    assert evaluation.passed is not tampered
    assert result.success is not tampered


def test_rejected_rows_are_counted_by_reason(bucket: Bucket) -> None:
    bucket.write("a.csv", row(), "no row", row(value="nan"), row(value="x"))
    result = materialize(definitions_on(bucket.source, bucket.warehouse), "timeseries")
    assert metadata_of(result, "timeseries")["all_rejected_rows"] == {
        "bad sensor_value": 2,
        "wrong number of fields": 1,
    }


def test_a_run_shows_pictures_of_the_worst_sensors(run: dg.ExecuteInProcessResult) -> None:
    found = metadata_of(run, "anomaly_report")
    assert Path(found["page"]).exists()
    assert found["pictures"].count("data:image/png;base64,") == 3


def test_a_run_marks_the_bucket_as_seen(run: dg.ExecuteInProcessResult) -> None:
    assert metadata_of(run, "bucket") == {"csv_files": 30}


def test_anomalies_alone_can_be_selected_and_both_tables_are_reported(tmp_path: Path) -> None:
    definitions = definitions_on(SAMPLE, tmp_path)
    assert materialize(definitions, "mapping", "timeseries").success
    result = materialize(definitions, "anomalies")
    assert result.success
    assert metadata_of(result, "sensor_models")["dagster/row_count"] == 12


def test_full_reload_is_run_config(bucket: Bucket) -> None:
    bucket.write("a.csv", row())
    bucket.write("b.csv", row("2013-02-01 12:00"))
    bucket.load()
    bucket.delete("b.csv")
    config = {"ops": {"timeseries": {"config": {"full_reload": True}}}}
    definitions = definitions_on(bucket.source, bucket.warehouse)
    assert materialize(definitions, "timeseries", config=config).success
    assert len(bucket.content()) == 1


@pytest.mark.parametrize(
    ("asset", "said"),
    [
        ("mapping", "the source must hold one mapping.csv, found none: check IOT_SOURCE"),
        ("anomalies", "run: dagster asset materialize --select mapping,timeseries"),
        ("anomaly_report", "run: dagster asset materialize --select mapping,timeseries"),
    ],
)
def test_a_failure_that_a_user_can_mend_is_one_line(bucket: Bucket, asset: str, said: str) -> None:
    result = materialize(definitions_on(bucket.source, bucket.warehouse), asset)
    assert not result.success
    assert said in failure_of(result)
    assert "\n" not in failure_of(result)


def test_the_query_resource_answers_like_the_function(sample_warehouse: Path) -> None:
    measurements = MeasurementsResource(
        warehouse=str(sample_warehouse), duckdb=DuckDBResource(database=":memory:")
    )

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
