"""A warehouse that the release before this one has written is carried on."""

import zipfile
from pathlib import Path

import pytest

from iot_pipeline_tests.conftest import OTHER_SENSOR, SENSOR, Bucket, row

EARLIER = Path(__file__).with_name("earlier_warehouse.zip")
"""Written by 0.1.0 of November 2026 from the files below, of which ``html.csv`` was no CSV."""

FILES = {
    "gone.csv": (row("2013-01-01 00:00:00", value=1), "refused", row("2013-02-01 00:00:00", value=2)),
    "stays.csv": (
        row("2013-02-01 00:00:00", value=2),
        "refused",
        row("2013-10-27 02:10:05", OTHER_SENSOR, 3),
        row("2013-10-27 02:10:03", OTHER_SENSOR, 4),
        row("2013-10-27 02:40:00", OTHER_SENSOR, 5),
    ),
    "breaks.csv": (row("2013-02-02 00:00:00", OTHER_SENSOR, 6),),
}


@pytest.fixture
def earlier(bucket: Bucket) -> Bucket:
    """Return the warehouse, with its source a load later: a file is gone, one has become unreadable."""
    with zipfile.ZipFile(EARLIER) as archive:
        archive.extractall(bucket.warehouse)
    bucket.write("stays.csv", *FILES["stays.csv"])
    bucket.write("html.csv", b"<html></html>")
    bucket.write("breaks.csv", b"<html></html>")
    return bucket


def test_what_an_earlier_release_has_loaded_can_be_read_before_the_next_load(earlier: Bucket) -> None:
    assert len(earlier.content()) == 6
    assert earlier.sql("SELECT source_key, line_number, raw, n FROM rejected_rows ORDER BY 1") == [
        ("Timeseries/gone.csv", 3, "refused", 1),
        ("Timeseries/stays.csv", 3, "refused", 1),
    ]


def test_the_next_load_converts_the_files_of_an_earlier_release_again(
    earlier: Bucket, tmp_path: Path
) -> None:
    report = earlier.load()
    assert (report.files_new, report.files_changed, report.files_missing) == (0, 3, 1)
    scratch = Bucket(tmp_path / "scratch", tmp_path / "scratch_warehouse")
    for key, lines in FILES.items():
        scratch.write(key, *lines)
    scratch.load()
    assert earlier.content() == scratch.content()
    assert [time for time in earlier.times() if "10-27" in time] == [
        "2013-10-27 02:10+02",
        "2013-10-27 02:10+02",
        "2013-10-27 02:40+02",
    ]
    accounts = earlier.sql(
        "SELECT key, rows_read, rows_loaded, rows_rejected, rows_duplicate, error IS NULL FROM source_files"
        " ORDER BY key"
    )
    assert accounts == [
        ("Timeseries/breaks.csv", 1, 1, 0, 0, False),
        ("Timeseries/gone.csv", 3, 2, 1, 0, True),
        ("Timeseries/html.csv", 0, 0, 0, 0, False),
        ("Timeseries/stays.csv", 5, 3, 1, 1, True),
    ]
    assert earlier.load().files_unchanged == 3


def test_a_full_reload_of_an_earlier_warehouse_holds_what_the_source_holds(earlier: Bucket) -> None:
    earlier.load(full_reload=True)
    assert {uuid for uuid, _, _ in earlier.content()} == {SENSOR, OTHER_SENSOR}
    assert len(earlier.content()) == 4
