"""Rows in files, in pipes and on a terminal: all of them, in a form that others can read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from iot_pipeline.cli import main
from iot_pipeline.cli.output import BATCH_ROWS, SCREEN_ROWS, Output
from iot_pipeline_tests.terminal import run_in_terminal

MANY = "FROM range(1000) t(x)"
WIDE = "a text of several words " * 12


@pytest.fixture(autouse=True)
def _settings(sample_warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOT_WAREHOUSE", str(sample_warehouse))


def in_a_pipe(*arguments: str) -> str:
    command = [sys.executable, "-m", "iot_pipeline.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.system
def test_a_pipe_gets_every_row() -> None:
    assert in_a_pipe("sql", MANY).split() == ["x", *map(str, range(1000)), "(1,000", "rows)"]
    lines = in_a_pipe("query", "sensor_00003", "2013-10-03", "2013-10-20").splitlines()
    assert len(lines) > 1000
    assert "..." not in lines


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet", "txt"])
def test_the_suffix_of_a_file_chooses_its_format_and_it_gets_every_row(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    assert main(["sql", MANY, "-o", str(path)]) == 0
    frame = {
        "csv": lambda: pd.read_csv(path),
        "json": lambda: pd.read_json(path),
        "parquet": lambda: pd.read_parquet(path),
        "txt": lambda: pd.read_csv(path, skipfooter=1, skipinitialspace=True, engine="python"),
    }[suffix]()
    assert frame["x"].tolist() == list(range(1000))


def test_a_format_that_is_asked_for_counts_more_than_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "rows.data"
    assert main(["sql", MANY, "--format", "json", "-o", str(path)]) == 0
    assert len(json.loads(path.read_text())) == 1000


def test_rows_of_many_batches_are_all_written(tmp_path: Path) -> None:
    rows = duckdb.connect().query("SELECT x, x * x AS square FROM range(25) t(x)")
    for path in (tmp_path / "rows.csv", tmp_path / "rows.txt"):
        Output.choose(None, path).write(rows.to_arrow_reader(10))
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 26
    lines = (tmp_path / "rows.txt").read_text().splitlines()
    assert len(lines) == 27
    assert lines[0] == "x  square"
    assert lines[25:] == ["24     576", "(25 rows)"]
    assert BATCH_ROWS > 25


def test_csv_quotes_what_needs_it_and_leaves_numbers_exact(capsys: pytest.CaptureFixture[str]) -> None:
    statement = "SELECT 0.1::DOUBLE + 0.2 AS sum, 'say \"a\"; b' AS said, NULL AS nothing, [1, 2] AS list"
    assert main(["sql", statement, "--format", "csv"]) == 0
    assert capsys.readouterr().out == (
        'sum,said,nothing,list\n0.30000000000000004,"say ""a""; b",,"[1, 2]"\n'
    )


def test_times_have_their_offset_in_csv_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    statement = "SELECT make_timestamptz(1382835600000000 + s * 1800000000) AS t FROM range(4) r(s)"
    main(["sql", statement, "--format", "csv"])
    main(["sql", statement, "--format", "json"])
    lines = capsys.readouterr().out.splitlines()
    # The hour in which the clock is set back in Berlin.
    expected = ["2013-10-27 03:00:00+02:00"]
    expected = [
        "2013-10-27 02:00:00+01:00",
        "2013-10-27 02:30:00+01:00",
        "2013-10-27 03:00:00+01:00",
        "2013-10-27 03:30:00+01:00",
    ]
    assert lines[1:5] == expected
    assert [row["t"] for row in json.loads("".join(lines[5:]))] == [t.replace(" ", "T") for t in expected]


def test_json_has_no_nan_and_no_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    statement = "SELECT 'nan'::DOUBLE AS n, ['inf'::DOUBLE, 1] AS l, {'a': '-inf'::FLOAT} AS s, 1.50 AS d"
    assert main(["sql", statement, "--format", "json"]) == 0

    def refuse(name: str) -> None:
        pytest.fail(f"{name} is no JSON")

    (found,) = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found == {"n": None, "l": [None, 1.0], "s": {"a": None}, "d": 1.5}


def test_json_refuses_two_columns_of_one_name_of_which_one_would_be_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["sql", "SELECT 1 AS x, 2 AS x, 3 AS y", "--format", "json"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "iot-pipeline: JSON can't hold two columns 'x': rename one of them with AS\n"


@pytest.mark.parametrize("format_", ["table", "csv", "json"])
def test_a_map_is_written_as_pairs(capsys: pytest.CaptureFixture[str], format_: str) -> None:
    statement = "SELECT map {'a': TIMESTAMPTZ '2013-10-05 12:00+02:00'} AS x"
    assert main(["sql", statement, "--format", format_]) == 0
    out = capsys.readouterr().out
    pair = '[["a", "2013-10-05T12:00:00+02:00"]]'
    assert (pair.replace('"', '""') if format_ == "csv" else pair) in out


def test_a_table_escapes_what_would_break_a_line_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        main(
            ["sql", "SELECT 'Wärme' || chr(10) || 'Küche' || chr(9) || '温度 „ok“' AS x", "--format", "table"]
        )
        == 0
    )
    assert capsys.readouterr().out.splitlines()[1] == r"Wärme\nKüche\t温度 „ok“"


def test_no_rows_are_valid_json_csv_and_parquet(tmp_path: Path) -> None:
    for suffix in ("csv", "json", "parquet", "txt"):
        assert main(["sql", f"{MANY} WHERE x < 0", "-o", str(tmp_path / f"rows.{suffix}")]) == 0
    assert (tmp_path / "rows.csv").read_text() == "x\n"
    assert json.loads((tmp_path / "rows.json").read_text()) == []
    assert pd.read_parquet(tmp_path / "rows.parquet").columns.tolist() == ["x"]
    assert (tmp_path / "rows.txt").read_text() == "x\n(0 rows)\n"


def test_a_query_that_fails_half_way_leaves_the_earlier_file_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("earlier")
    statement = "SELECT CASE WHEN x > 900000 THEN error('too far') ELSE x END FROM range(1000000) t(x)"
    assert main(["sql", statement, "-o", str(path)]) == 1
    assert "too far" in capsys.readouterr().err
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.system
@pytest.mark.parametrize("format_", ["table", "csv", "json"])
def test_a_query_that_fails_half_way_to_a_pipe_is_one_line_and_exit_code_1(format_: str) -> None:
    statement = "SELECT CASE WHEN x > 900000 THEN error('too far') ELSE x END AS x FROM range(1000000) t(x)"
    command = [sys.executable, "-m", "iot_pipeline.cli", "sql", statement, "--format", format_]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert answer.stderr.startswith("iot-pipeline: ")
    assert answer.stderr.count("\n") == 1


@pytest.mark.system
def test_a_link_and_a_pipe_are_written_to_and_not_replaced(tmp_path: Path) -> None:
    link, path = tmp_path / "link.csv", tmp_path / "rows.csv"
    link.symlink_to(path)
    path.touch()
    assert main(["sql", "SELECT 1 AS x", "-o", str(link)]) == 0
    assert link.is_symlink()
    assert path.read_text() == "x\n1\n"
    assert in_a_pipe("sql", "SELECT 1 AS x", "--format", "csv", "-o", "/dev/stdout") == "x\n1\n"


@pytest.mark.system
def test_a_terminal_shows_the_first_rows_of_many_and_says_how_to_get_all() -> None:
    lines = run_in_terminal("sql", MANY, columns=80).splitlines()
    assert [line.strip() for line in lines[1:-1]] == list(map(str, range(SCREEN_ROWS)))
    assert lines[-1] == f"(the first {SCREEN_ROWS} rows; all of them: -o FILE.csv, or a pipe)"


@pytest.mark.system
@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_wide_text_is_wrapped_and_shown_whole(columns: int) -> None:
    shown = run_in_terminal("sql", f"SELECT 7 AS number, '{WIDE}' AS reasoning", columns=columns)
    assert max(map(len, shown.splitlines())) <= columns
    assert "…" not in shown
    header, *rest = shown.splitlines()
    assert header.split() == ["number", "reasoning"]
    assert " ".join(rest).split() == ["7", *WIDE.split(), "(1", "row)"]


@pytest.mark.system
def test_more_columns_than_fit_stand_below_each_other() -> None:
    shown = run_in_terminal("sql", "FROM source_files ORDER BY key LIMIT 2", columns=80)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    names = [line.split()[0] for line in lines if line.strip()]
    assert names.count("rows_rejected") == 2
    assert names.count("error") == 2
    assert "timeseries/data1/data_0.csv" in shown


@pytest.mark.system
def test_a_text_can_neither_command_a_terminal_nor_break_a_line() -> None:
    statement = "SELECT 'a' || chr(27) || '[2J' || chr(10) || '[bold]b' AS text"
    for shown in (run_in_terminal("sql", statement, columns=80), in_a_pipe("sql", statement)):
        assert [line.strip() for line in shown.splitlines()] == ["text", r"a\x1b[2J\n[bold]b", "(1 row)"]


@pytest.mark.system
def test_a_table_of_rows_needs_no_terminal_to_be_complete() -> None:
    environment = {**os.environ, "COLUMNS": "20"}
    command = [sys.executable, "-m", "iot_pipeline.cli", "sql", f"SELECT '{WIDE}' AS reasoning"]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert WIDE.strip() in shown
