"""What `make run` shows in the end."""

import re
import shutil
from pathlib import Path

import pytest

from iot_pipeline.cli import tour
from iot_pipeline.report import write_report
from iot_pipeline_tests.conftest import SAMPLE, SENSOR, Bucket, row

pytestmark = pytest.mark.system


def test_the_tour_names_the_bucket_the_warehouse_and_the_sensor_of_the_first_picture(
    sample_warehouse: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    warehouse = shutil.copytree(sample_warehouse, tmp_path / "warehouse")
    monkeypatch.setenv("IOT_SOURCE", str(SAMPLE))
    monkeypatch.setenv("IOT_WAREHOUSE", str(warehouse))
    report = write_report()
    tour.main()
    out = capsys.readouterr().out
    assert re.search(rf"^source: +{SAMPLE}$", out, re.MULTILINE)
    assert re.search(rf"^warehouse: +{warehouse}$", out, re.MULTILINE)
    (name,) = re.findall(r"The most severe sensor is (\w+)", out)
    (picture,) = re.findall(r"^Picture: +(.*)$", out, re.MULTILINE)
    assert Path(picture).read_bytes() == report.pictures[name]
    assert f'get_measurements("{name}", ' in out


def test_the_tour_of_a_warehouse_without_anomalies_shows_no_picture(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IOT_SOURCE", str(bucket.source))
    monkeypatch.setenv("IOT_WAREHOUSE", str(bucket.warehouse))
    (bucket.source / "mapping.csv").write_text(f"sensor_name;sensor_uuid\na;{SENSOR}\n")
    bucket.write("a.csv", row())
    bucket.load()
    tour.main()
    out = capsys.readouterr().out
    assert "Report:" in out
    assert "Picture:" not in out
