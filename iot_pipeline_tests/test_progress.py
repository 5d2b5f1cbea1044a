"""How far a load is, in a log and in a terminal."""

import sys

import pytest

from iot_pipeline.progress import Progress, Stage, log_progress, terminal_progress
from iot_pipeline_tests.conftest import Bucket, row

HALF = Progress("converting files", done=500, total=1_000, rows=2_000_000, seconds=4.0)


def test_a_line_says_what_is_done_how_fast_and_how_long_it_will_take() -> None:
    assert str(HALF) == "converting files: 500 of 1,000, 500,000 rows/s, 4 s left"


def test_a_log_gets_a_line_only_now_and_then() -> None:
    lines: list[str] = []
    on_progress = log_progress(lines.append, every_seconds=3600)
    on_progress(HALF)
    assert lines == []
    on_progress = log_progress(lines.append, every_seconds=0)
    on_progress(HALF)
    assert lines == [str(HALF)]


def test_a_stage_reports_what_has_been_done_so_far_each_time_it_is_advanced() -> None:
    reports: list[Progress] = []
    stage = Stage("judging sensors", total=20, on_progress=reports.append)
    stage.advance(16, rows=1000)
    stage.advance(rows=5)
    assert [(report.stage, report.done, report.total, report.rows) for report in reports] == [
        ("judging sensors", 16, 20, 1000),
        ("judging sensors", 17, 20, 1005),
    ]
    assert 0 <= reports[0].seconds <= reports[1].seconds


def test_a_load_reports_every_file_and_every_month(bucket: Bucket) -> None:
    for number in range(20):
        bucket.write(f"{number}.csv", row(f"2013-{1 + number % 3:02}-01 12:{number:02}"))
    reports: list[Progress] = []
    bucket.load(on_progress=reports.append)
    last = {report.stage: report for report in reports}
    assert [(r.stage, r.done, r.total, r.rows) for r in last.values()] == [
        ("converting files", 20, 20, 20),
        ("compacting months", 3, 3, 20),
    ]
    assert all(report.done <= report.total for report in reports)


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with terminal_progress() as show:
        show(HALF)
    assert "converting files:  50%" in capsys.readouterr().err


def test_the_bar_of_a_stage_ends_when_the_next_one_begins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with terminal_progress() as show:
        show(HALF)
        show(Progress("compacting months", done=1, total=2, rows=10, seconds=1.0))
    lines = capsys.readouterr().err.strip().split("\n")
    assert [line.split("\r")[-1][:17] for line in lines] == ["converting files:", "compacting months"]


def test_anything_but_a_terminal_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal_progress() as show:
        show(HALF)
    assert capsys.readouterr().err == ""
