"""The environment: defaults, and what is said of a value that can't be used."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from iot_pipeline import connect, get_measurements
from iot_pipeline.errors import ConfigurationError, SourceError, WarehouseNotReadyError
from iot_pipeline.ingest import load_mapping, load_timeseries
from iot_pipeline.report import write_report
from iot_pipeline.settings import PROJECT_ROOT, get_settings
from iot_pipeline.store import open_source
from iot_pipeline.warehouse import open_warehouse
from iot_pipeline_tests.conftest import SAMPLE


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "IOT_SOURCE",
        "IOT_WAREHOUSE",
        "IOT_GRACE_DAYS",
        "IOT_WORKERS",
        "IOT_DASK_SCHEDULER",
        "IOT_MAPPING",
        "IOT_ALERT_URLS",
        "IOT_ALERT_MIN_SCORE",
        "IOT_EXPLORE_URL",
        "IOT_EXPLORE_USER_HEADER",
        "IOT_HEARTBEAT_URL",
    ):
        monkeypatch.delenv(name, raising=False)


def test_defaults_are_the_sample_bucket_and_a_warehouse_beside_it_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = get_settings()
    assert settings.source == str(PROJECT_ROOT / "data" / "sample")
    assert settings.warehouse == str(PROJECT_ROOT / "data" / "warehouse")
    assert settings.grace_period == timedelta(days=7)


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOT_SOURCE", "")
    assert get_settings().source.endswith("sample")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IOT_GRACE_DAYS", "soon"),
        ("IOT_GRACE_DAYS", "-1"),
        ("IOT_GRACE_DAYS", "1e12"),
        ("IOT_WORKERS", "0"),
        ("IOT_WORKERS", "inf"),
        ("IOT_ALERT_MIN_SCORE", "high"),
    ],
)
def test_a_number_that_is_none_is_an_error_that_names_the_variable(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        get_settings()


@pytest.mark.parametrize(
    "text",
    [
        "json://a mailto://b?to=x@c,y@d",
        "json://a,mailto://b?to=x@c,y@d",
        " json://a,\n mailto://b?to=x@c,y@d, ",
    ],
)
def test_urls_of_alerts_are_separated_by_spaces_or_commas_and_may_have_commas_of_their_own(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IOT_ALERT_URLS", text)
    assert get_settings().alert_urls == ("json://a", "mailto://b?to=x@c,y@d")


def test_without_settings_nobody_is_alerted() -> None:
    settings = get_settings()
    assert (settings.alert_urls, settings.heartbeat_url, settings.explore_url) == ((), "", "")


@pytest.mark.parametrize("location", ["/nowhere", "s3://", "http://example.org", "s3:///prefix"])
def test_a_source_that_can_not_be_is_an_error_that_names_the_variable(location: str) -> None:
    with pytest.raises(ConfigurationError, match="IOT_SOURCE"):
        open_source(location)


def test_a_warehouse_that_can_not_be_written_to_is_an_error_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "source").mkdir()
    with pytest.raises(ConfigurationError, match="IOT_WAREHOUSE"):
        load_timeseries(source=str(tmp_path / "source"), warehouse=tmp_path / "file" / "warehouse")


@pytest.mark.parametrize("location", ["gs://bucket", "s3://", "s3:/bucket", "/proc/nowhere"])
def test_a_place_for_the_mapping_that_can_not_be_is_an_error_that_names_its_variable(
    location: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("IOT_WAREHOUSE", str(tmp_path))
    monkeypatch.setenv("IOT_MAPPING", location)
    with pytest.raises(ConfigurationError, match=r"^IOT_MAPPING"):
        load_mapping(source=str(SAMPLE))


def test_a_warehouse_path_that_duckdb_would_take_for_a_pattern_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="IOT_WAREHOUSE"):
        open_warehouse("/data/[warehouse]")


def test_an_empty_source_loads_nothing_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "source").mkdir()
    report = load_timeseries(source=str(tmp_path / "source"), warehouse=tmp_path / "warehouse")
    assert report.files_new == 0
    assert "check IOT_SOURCE" in caplog.text


def test_configuration_and_source_errors_can_be_caught_apart() -> None:
    assert not issubclass(ConfigurationError, SourceError)


def test_the_mapping_may_stay_elsewhere_than_the_tables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("IOT_WAREHOUSE", str(tmp_path / "warehouse"))
    monkeypatch.setenv("IOT_MAPPING", str(tmp_path / "deployment"))
    load_mapping(source=str(SAMPLE))
    load_timeseries(source=str(SAMPLE))
    assert (tmp_path / "deployment" / "mapping.sqlite").exists()
    assert not (tmp_path / "warehouse" / "mapping.sqlite").exists()
    assert len(get_measurements("sensor_00000", "2013-10-05", "2013-10-06")) > 50
    with connect() as connection:
        assert connection.sql("SELECT count(*) FROM sensors").fetchall() == [(12,)]


@pytest.mark.system
def test_the_report_is_written_where_the_mapping_stays_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sample_warehouse: Path
) -> None:
    shutil.copytree(sample_warehouse, tmp_path / "warehouse")
    (tmp_path / "deployment").mkdir()
    (tmp_path / "warehouse" / "mapping.sqlite").rename(tmp_path / "deployment" / "mapping.sqlite")
    monkeypatch.setenv("IOT_WAREHOUSE", str(tmp_path / "warehouse"))
    monkeypatch.setenv("IOT_MAPPING", str(tmp_path / "deployment"))
    assert write_report().pictures


def test_a_mapping_that_is_not_there_is_missed_in_its_own_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sample_warehouse: Path
) -> None:
    monkeypatch.setenv("IOT_WAREHOUSE", str(sample_warehouse))
    monkeypatch.setenv("IOT_MAPPING", str(tmp_path / "deployment"))
    with pytest.raises(WarehouseNotReadyError, match="deployment"):
        get_measurements("sensor_00000", "2013-10-05", "2013-10-06")


def test_the_mapping_of_another_warehouse_is_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IOT_MAPPING", str(tmp_path / "deployment"))
    load_mapping(source=str(SAMPLE), warehouse=tmp_path / "another")
    assert (tmp_path / "another" / "mapping.sqlite").exists()


def test_an_address_of_the_page_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOT_EXPLORE_URL", "javascript:alert(1)")
    with pytest.raises(ConfigurationError, match=r"^IOT_EXPLORE_URL must start with http:// or"):
        get_settings()
