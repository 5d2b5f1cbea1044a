"""What `make run` shows in the end."""

import re
import shutil
from pathlib import Path

import pytest

from iot_pipeline.cli import main, tour
from iot_pipeline.ingest import load_mapping
from iot_pipeline.report import write_report
from iot_pipeline_tests.conftest import SAMPLE, Bucket, row, use_with_one_sensor

pytestmark = pytest.mark.system


def test_the_tour_names_the_bucket_the_warehouse_and_first_the_sensor_of_the_first_picture(
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
    first, *_ = re.findall(r"^  (sensor_\w+): \w", out, re.MULTILINE)
    assert first == next(iter(report.pictures))
    assert len(out.splitlines()) < 30


def test_the_tour_ends_with_a_command_that_works(
    sample_warehouse: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IOT_WAREHOUSE", str(sample_warehouse))
    tour.main()
    _, _, command = capsys.readouterr().out.rpartition(".venv/bin/iot-pipeline ")
    assert main(command.split()) == 0
    assert len(capsys.readouterr().out.splitlines()) > 10


def test_the_tour_of_a_warehouse_without_anomalies_says_so(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_with_one_sensor(bucket, monkeypatch)
    bucket.write("a.csv", row())
    load_mapping()
    bucket.load()
    tour.main()
    out = capsys.readouterr().out
    assert "0 of 1 sensors have anomalies." in out
    assert "iot-pipeline query" not in out
