"""The shell commands: what they print, and how they fail."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from iot_pipeline import get_measurements, report
from iot_pipeline.cli import cli, main
from iot_pipeline.kinds import ANNOTATIONS, KINDS
from iot_pipeline.warehouse import status
from iot_pipeline_tests.conftest import OTHER_SENSOR, SAMPLE, SENSOR, Bucket, row, use_with_one_sensor

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


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_the_help_of_a_command_ends_in_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"Usage: iot-pipeline {name} " in out
    assert f"\n    iot-pipeline {name}" in out.split("Example", 1)[1]


def test_version_names_the_release(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("iot-pipeline 0.")


@pytest.mark.system
def test_a_shell_gets_what_completes_commands_and_options() -> None:
    for typed, offered in {"iot-pipeline anom": "anomalies", "iot-pipeline load --": "--full-reload"}.items():
        environment = {
            "_IOT_PIPELINE_COMPLETE": "bash_complete",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(typed.count(" ")),
        }
        answer = subprocess.run(
            [Path(sys.executable).with_name("iot-pipeline")],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert f"plain,{offered}" in answer.stdout.splitlines()


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


def test_an_empty_range_is_said_in_words_together_with_the_range_of_the_readings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["query", "sensor_00003", "1999-01-01", "1999-01-02", "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    assert out == "timestamp,sensor_value\n"
    assert err == (
        "sensor_00003 has no readings in that range of time:"
        " it has some from 2013-10-03 16:07 to 2013-11-03 15:02\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["query", "sensor_0003", *RANGE[1:]], "there is no sensor 'sensor_0003'"),
        (["query", "sensor_0", *RANGE[1:]], "did you mean sensor_00000, sensor_00001, sensor_00002?"),
        (["query", "7", *RANGE[1:]], "did you mean sensor_00007?"),
        (["query", "nothing", *RANGE[1:]], "`iot-pipeline sensors` lists all"),
        (["query", "sensor_00003", "soon", "2013-10-06"], "can't read the time 'soon'"),
        (["query", "sensor_00003", "2013-10-07", "2013-10-06"], "is after end"),
        (["query", *RANGE, "--format", "parquet"], "add -o FILE"),
        (["query", *RANGE, "-o", "/nowhere/a.txt"], "there is no directory /nowhere"),
        (["query", *RANGE, "-o", "a.xlsx"], "must end in .csv or .json or .parquet or .txt"),
        (["query", *RANGE, "-o", "/usr"], "/usr is a directory"),
        (["query", *RANGE, "-o", "/proc/a.csv"], "can't write /proc/a.csv"),
        (["query", *RANGE, "-o", "/nowhere/a", "--format", "csv"], "there is no directory /nowhere"),
        (["sql", ""], "there is no statement"),
        (["sql", "SELECT INTERVAL 3 HOUR", "-o", "interval.parquet"], "parquet can't hold these columns"),
        (["sql", "SELECT nothing"], "nothing"),
        (["sql", "SELECT 'a'::INTEGER"], "Conversion Error"),
        (["plot", "sensor_00003", "1999-01-01", "1999-01-02"], "it has some from 2013-10-03 16:07 to"),
        (["plot", "sensor_00003", "2013-10-07", "2013-10-06"], "is after end"),
        (["plot", "sensor_00003", "-o", "/nowhere/a.png"], "there is no directory /nowhere"),
        (["plot", "sensor_00003", "-o", "a.gif"], "must end in .png or .svg or .pdf"),
        (["plot", "sensor_00003", "-o", "/usr"], "/usr is a directory"),
        (["plot", "sensor_00003", "-o", "/proc/a.png"], "can't write /proc/a.png"),
        (["anomalies", "--since", "soon"], "can't read the time 'soon'"),
        (["anomalies", "--since", "2014-01-01", "--until", "2013-01-01"], "start 2014-01-01 is after end"),
        (["annotate", "hall*", "2013-10-05", "2013-10-06", "confirmed"], "there is no sensor 'hall*'"),
        (["annotate", "*", "2013-10-05", "2013-10-04", "confirmed"], "write the earlier time first"),
        (["annotate", "*", "2013-10-05", "2013-10-06", "holiday"], "unknown kind 'holiday': write one of"),
        (["annotate", "--from", "nowhere.csv"], "iot-pipeline: nowhere.csv: No such file or directory"),
        (["annotate", "--withdraw", "x"], "`iot-pipeline annotate --list` lists those that stand"),
        (["anomalies", "--sensor", "sensor_3"], "did you mean sensor_00003"),
        (["sample-data", "/proc/nowhere"], "/proc/nowhere"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_1(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    assert list(tmp_path.iterdir()) == []
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert said in captured.err


def test_an_unknown_sensor_is_missed_in_a_certain_warehouse(
    sample_warehouse: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["query", "nothing", *RANGE[1:]]) == 1
    assert f"among the 12 of {sample_warehouse}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["query"],
        ["sample-data", "--sensors", "0", "x"],
        ["sample-data", "--start", "soon", "x"],
        ["sql", "FROM sensors", "--format", "xml"],
        ["annotate"],
        ["annotate", "sensor_00003", "2013-10-05"],
        ["annotate", "sensor_00003", "2013-10-05", "2013-10-06", "confirmed", "--list"],
        ["query", *RANGE, "--every", "2h"],
        ["load", "--only", "mapping,everything"],
        ["dance"],
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_how_to_use_it(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert "Usage: iot-pipeline" in capsys.readouterr().err


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
    assert "run: iot-pipeline load" in capsys.readouterr().err


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


@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF"), ("PNG", b"\x89PNG")])
def test_the_suffix_of_a_picture_chooses_its_format(tmp_path: Path, suffix: str, start: bytes) -> None:
    path = tmp_path / f"picture.{suffix}"
    assert main(["plot", RANGE[0], *RANGE[1:], "-o", str(path)]) == 0
    assert path.read_bytes().startswith(start)


def test_the_picture_of_a_sensor_with_a_slash_in_its_name_is_a_file_in_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "draw_sensor", lambda *args, **options: b"picture")
    assert main(["plot", "../hall/7"]) == 0
    assert capsys.readouterr().out == ".._hall_7.png\n"
    assert (tmp_path / ".._hall_7.png").read_bytes() == b"picture"


def test_anomalies_are_events_with_the_newest_first(tmp_path: Path) -> None:
    path = tmp_path / "events.json"
    assert main(["anomalies", "-o", str(path)]) == 0
    events = json.loads(path.read_text())
    assert list(events[0]) == [
        *("sensor_name", "kind", "start", "end", "duration_h", "n_readings", "peak_score"),
        *("annotation", "event_id", "incident_id"),
    ]
    starts = [pd.Timestamp(event["start"]) for event in events]
    assert len(starts) == 15
    assert starts == sorted(starts, reverse=True)


def test_anomalies_can_be_asked_for_by_time_and_sensor(capsys: pytest.CaptureFixture[str]) -> None:
    window = ["--since", "2013-10-16", "--until", "2013-10-16T20:00", "--sensor", "sensor_00001"]
    assert main(["anomalies", *window, "--format", "json"]) == 0
    (event,) = json.loads(capsys.readouterr().out)
    assert (event["kind"], event["start"]) == ("burst", "2013-10-16T16:17:00+02:00")


def test_anomalies_of_today_are_none_of_an_old_bucket(capsys: pytest.CaptureFixture[str]) -> None:
    for since, found in (("yesterday", 0), ("Today", 0), ("99999 days ago", 15)):
        assert main(["anomalies", "--since", since, "--format", "json"]) == 0
        assert len(json.loads(capsys.readouterr().out)) == found


def test_what_is_said_in_the_shell_is_listed_and_can_be_withdrawn(
    sample_warehouse: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("IOT_WAREHOUSE", str(shutil.copytree(sample_warehouse, tmp_path / "warehouse")))
    says = ["annotate", "sensor_00006", "2013-10-04", "2013-10-05", "false_alarm", "--note", "rats"]
    assert main([*says, "--author", "Ada"]) == 0
    annotation_id = capsys.readouterr().out.strip()
    assert main(["annotate", "--list", "-o", str(tmp_path / "said.csv")]) == 0
    with (tmp_path / "said.csv").open() as file:
        (said,) = csv.DictReader(file)
    assert (said["annotation_id"], said["start"]) == (annotation_id, "2013-10-04 00:00:00+02:00")
    assert main(["anomalies", "--sensor", "sensor_00006"]) == 0
    assert capsys.readouterr().out.count("false_alarm") == 1
    assert main(["annotate", "--withdraw", annotation_id]) == 0
    assert main(["annotate", "--from", str(tmp_path / "said.csv")]) == 0
    _, again = capsys.readouterr().out.splitlines()
    assert main(["annotate", "--list", "--format", "json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert (said["annotation_id"], said["note"], said["author"]) == (again, "rats", "Ada")


def test_the_help_of_annotate_explains_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["annotate", "--help"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert all(text in words for text in ANNOTATIONS.values())


def test_the_help_of_anomalies_explains_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["anomalies", "--help"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert all(text in words for text in KINDS.values())


def test_sensors_are_listed_with_their_readings_and_anomalies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sensors", "--format", "json"]) == 0
    sensors = json.loads(capsys.readouterr().out)
    assert [sensor["sensor_name"] for sensor in sensors] == [f"sensor_{n:05}" for n in range(12)]
    assert sum(sensor["n_readings"] for sensor in sensors) == 35_626
    assert sensors[1] == {
        "sensor_name": "sensor_00001",
        "sensor_uuid": "55a5e6ca-c8f6-44d4-a8f6-c4836c5a3726",
        "first": "2013-10-03T16:07:00+02:00",
        "last": "2013-11-03T15:00:00+01:00",
        "n_readings": 2979,
        "model": "linear",
        "n_anomalies": 35,
    }


@pytest.mark.system
def test_load_says_in_words_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IOT_SOURCE", str(SAMPLE))
    monkeypatch.setenv("IOT_WAREHOUSE", str(tmp_path / "warehouse"))
    assert main(["load"]) == 0
    out, err = capsys.readouterr()
    assert f"Loading {SAMPLE} into {tmp_path / 'warehouse'}" in out
    assert "12 sensors in mapping/mapping.csv" in out
    assert "30 new, 0 changed and 0 unchanged files" in out
    assert "12 sensors judged, 12 of them anew" in out
    summary = dict(line.split(": ", 1) for line in out.splitlines()[-6:])
    assert {name: text.strip() for name, text in summary.items() if name in {"files", "rows"}} == {
        "files": "30",
        "rows": "35,626",
    }
    assert list(summary) == ["files", "rows", "rejected", "new events", "report", "seconds"]
    assert int(summary["new events"]) > 0
    assert Path(summary["report"].strip()).exists()
    assert err == ""
    assert main(["load"]) == 0
    out = capsys.readouterr().out
    assert "0 new, 0 changed and 30 unchanged files" in out
    assert re.search(r"^new events: +0$", out, re.MULTILINE)


@pytest.mark.system
def test_load_runs_only_the_stages_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IOT_SOURCE", str(SAMPLE))
    monkeypatch.setenv("IOT_WAREHOUSE", str(tmp_path / "warehouse"))
    for _ in range(2):
        assert main(["load", "--only", "timeseries,mapping", "--full-reload"]) == 0
        assert "30 new, 0 changed and 0 unchanged files" in capsys.readouterr().out
    assert not (tmp_path / "warehouse" / "anomalies").exists()
    assert main(["load", "--only", "anomalies"]) == 0
    assert "unchanged files" not in capsys.readouterr().out
    assert not (tmp_path / "warehouse" / "report").exists()


def test_load_names_the_files_in_quarantine_and_fails(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_with_one_sensor(bucket, monkeypatch)
    bucket.write("good.csv", row(), row(value="x"))
    bucket.write("bad.csv", b"who;knows\n1;2\n")
    bucket.write("notes.txt", b"")
    assert main(["load"]) == 1
    out, err = capsys.readouterr()
    assert "1 rejected" in out
    assert "FROM rejected_rows" in out
    assert "Timeseries/notes.txt: no CSV file, passed over" in out
    assert "index.html" in out
    bad, good = err.splitlines()
    assert bad.startswith("Timeseries/bad.csv: ")
    assert good == "Timeseries/good.csv: 1 of 2 rows rejected"


def test_load_counts_one_as_one(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_with_one_sensor(bucket, monkeypatch)
    bucket.write("a.csv", row())
    assert main(["load"]) == 0
    bucket.delete("a.csv")
    assert main(["load", "--only", "timeseries"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "1 sensor in mapping.csv" in lines
    assert "1 row read: 1 loaded, 0 there already, 0 rejected" in lines
    assert "1 sensor judged, 1 of them anew" in lines
    assert "1 file gone from the source; the readings stay" in lines


@pytest.mark.parametrize("uuid", [SENSOR, OTHER_SENSOR])
def test_load_without_a_reading_of_a_known_sensor_says_to_look_at_the_source(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], uuid: str
) -> None:
    use_with_one_sensor(bucket, monkeypatch)
    if uuid != SENSOR:
        bucket.write("a.csv", row(uuid=uuid))
    assert main(["load"]) == 1
    assert capsys.readouterr().err == (
        f"iot-pipeline: no sensor of the mapping has readings in {bucket.warehouse}: check IOT_SOURCE\n"
    )


def test_a_full_reload_empties_the_table_only_if_that_is_said_as_well(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IOT_SOURCE", str(bucket.source))
    monkeypatch.setenv("IOT_WAREHOUSE", str(bucket.warehouse))
    bucket.write("a.csv", row())
    bucket.load()
    bucket.delete("a.csv")
    assert main(["load", "--only", "timeseries", "--full-reload"]) == 1
    assert capsys.readouterr().err.endswith("set allow_empty (--allow-empty) too if you want that\n")
    assert bucket.values() == [1]
    assert main(["load", "--only", "timeseries", "--full-reload", "--allow-empty"]) == 0
    assert bucket.values() == []


def test_load_stops_where_the_table_has_lost_readings(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_with_one_sensor(bucket, monkeypatch)
    bucket.write("a.csv", row("2013-01-01 12:00"), row("2013-01-01 13:00"))
    assert main(["load"]) == 0
    (file,) = (bucket.warehouse / "timeseries").glob("month=*/*.parquet")
    pq.write_table(pq.ParquetFile(file).read().slice(1), file)
    capsys.readouterr()
    assert main(["load"]) == 1
    err = capsys.readouterr().err
    assert "2 rows were loaded and 0 rejected, but the table has 1 and the quarantine 0" in err
    assert "run: iot-pipeline load --full-reload" in err


def test_query_gives_several_sensors_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["sensor_00003", "sensor_00007", "2013-10-05", "2013-10-08", "--every", "1d"]
    assert main(["query", *arguments, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["sensor_name"] for row in rows[:3]] == ["sensor_00003"] * 3
    assert [row["timestamp"] for row in rows[:3]] == [f"2013-10-0{day}T00:00:00+02:00" for day in (5, 6, 7)]
    assert set(rows[0]) == {"sensor_name", "timestamp", "n", "mean", "min", "max", "first", "last"}
    assert {row["sensor_name"] for row in rows} == {"sensor_00003", "sensor_00007"}


def test_sample_data_writes_a_bucket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample-data", "--sensors", "2", "--days", "3", "--seed", "1", str(tmp_path / "b")]) == 0
    assert "readings in" in capsys.readouterr().out
    assert (tmp_path / "b" / "mapping" / "mapping.csv").exists()


@pytest.mark.system
def test_a_reader_who_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -m iot_pipeline.cli query sensor_00003 2013-10-01 2013-11-30 --format csv"
    answer = subprocess.run(f"{command} | head -n 1", shell=True, capture_output=True, text=True, check=True)  # noqa: S602 - our own words
    assert answer.stdout.startswith("timestamp")
    assert answer.stderr == ""
