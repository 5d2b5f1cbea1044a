"""The shell commands: what they print, and how they fail."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from iot_pipeline import get_measurements
from iot_pipeline.cli import main
from iot_pipeline.warehouse import status

RANGE = ("sensor_00003", "2013-10-05", "2013-10-06")


@pytest.fixture(autouse=True)
def _settings(sample_warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOT_WAREHOUSE", str(sample_warehouse))


@pytest.fixture
def readings(_settings: None) -> pd.DataFrame:
    return get_measurements(*RANGE)


def test_a_table_shows_the_readings_and_how_many_they_are(
    capsys: pytest.CaptureFixture[str], readings: pd.DataFrame
) -> None:
    assert main(["query", *RANGE]) == 0
    out = capsys.readouterr().out
    assert str(readings["timestamp"].iloc[0]) in out
    assert f"({len(readings):,} rows)" in out


def test_json_gives_the_exact_values(capsys: pytest.CaptureFixture[str], readings: pd.DataFrame) -> None:
    assert main(["query", *RANGE, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["sensor_value"] for row in rows] == readings["sensor_value"].tolist()
    assert [pd.Timestamp(row["timestamp"]) for row in rows] == readings["timestamp"].tolist()


def test_csv_gives_the_exact_values(tmp_path: Path, readings: pd.DataFrame) -> None:
    assert main(["query", *RANGE, "--format", "csv", "-o", str(tmp_path / "a.csv")]) == 0
    rows = pd.read_csv(tmp_path / "a.csv")
    assert rows["sensor_value"].tolist() == readings["sensor_value"].tolist()


def test_parquet_gives_the_same_frame(tmp_path: Path, readings: pd.DataFrame) -> None:
    assert main(["query", *RANGE, "--format", "parquet", "-o", str(tmp_path / "a.parquet")]) == 0
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), readings)


def test_an_empty_range_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "sensor_00003", "1999-01-01", "1999-01-02"]) == 0
    assert capsys.readouterr().out == "no readings in that range of time\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["query", "sensor_0003", "2013-10-05", "2013-10-06"], "there is no sensor 'sensor_0003'"),
        (["query", "sensor_00003", "soon", "2013-10-06"], "can't read the time 'soon'"),
        (["query", "sensor_00003", "2013-10-07", "2013-10-06"], "is after end"),
        (["query", *RANGE, "--format", "parquet"], "add -o FILE"),
        (["query", *RANGE, "-o", "/nowhere/a.txt"], "/nowhere"),
        (["sql", "SELECT nothing"], "nothing"),
        (["sql", "SELECT 'a'::INTEGER"], "Conversion Error"),
        (["plot", "sensor_00003", "1999-01-01", "1999-01-02"], "no readings to draw"),
        (["sample-data", "/proc/nowhere"], "/proc/nowhere"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_1(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert said in captured.err


@pytest.mark.parametrize("arguments", [[], ["query"], ["sample-data", "--sensors", "0", "x"], ["dance"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_an_interrupt_is_silent_and_the_exit_code_of_a_shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(status, "read_status", interrupt)
    assert main(["status"]) == 130
    assert capsys.readouterr() == ("", "")


def test_an_empty_warehouse_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IOT_WAREHOUSE", str(tmp_path))
    assert main(["status"]) == 1
    assert "run: dagster asset materialize" in capsys.readouterr().err


def test_sql_sees_all_views(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", "SELECT count(*) AS n FROM measurements"]) == 0
    assert "35626" in capsys.readouterr().out


def test_status_counts_what_was_loaded_and_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert "30 loaded" in out
    assert "35,626 from 2013-10-03 16:07 to 2013-11-03 15:06" in out


def test_plot_writes_a_picture_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plot", "sensor_00003"]) == 0
    assert capsys.readouterr().out == "sensor_00003.png\n"
    assert (tmp_path / "sensor_00003.png").read_bytes().startswith(b"\x89PNG")


def test_sample_data_writes_a_bucket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample-data", "--sensors", "2", "--days", "3", "--seed", "1", str(tmp_path / "b")]) == 0
    assert "readings in" in capsys.readouterr().out
    assert (tmp_path / "b" / "mapping" / "mapping.csv").exists()


def test_a_reader_who_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -m iot_pipeline.cli query sensor_00003 2013-10-01 2013-11-30 --format csv"
    answer = subprocess.run(f"{command} | head -n 1", shell=True, capture_output=True, text=True, check=True)  # noqa: S602 - our own words
    assert answer.stdout.startswith("timestamp")
    assert answer.stderr == ""
