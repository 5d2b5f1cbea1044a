import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from iot_pipeline.samples.bucket import SampleReport, write_sample_bucket
from iot_pipeline.samples.series import ANOMALIES

BERLIN = ZoneInfo("Europe/Berlin")
START = datetime(2013, 10, 3, 16, 7, tzinfo=BERLIN)


@dataclass(frozen=True)
class Bucket:
    directory: Path
    report: SampleReport

    @property
    def files(self) -> list[Path]:
        return sorted(self.directory.glob("timeseries/*/*.csv"), key=lambda path: int(path.stem[5:]))

    @property
    def names(self) -> dict[str, str]:
        return {
            row["sensor_uuid"]: row["sensor_name"] for row in read(self.directory / "mapping" / "mapping.csv")
        }

    @property
    def labels(self) -> list[dict[str, str]]:
        return read(self.directory / "labels.csv")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter=";"))


def true_times(rows: list[dict[str, str]]) -> list[datetime]:
    """Read a file's timestamps; a naive time of the repeated hour is told apart by the time before it."""
    times: list[datetime] = []
    for row in rows:
        text = row["timestamp"]
        time = datetime.fromisoformat(f"{text}:00" if text.endswith("+00") else text)
        if time.tzinfo is None:
            first, second = (time.replace(tzinfo=BERLIN, fold=fold).astimezone(UTC) for fold in (0, 1))
            time = second if times and first < times[-1] else first
        times.append(time.astimezone(UTC))
    return times


def bytes_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*.csv")}


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Bucket:
    directory = tmp_path_factory.mktemp("bucket")
    return Bucket(directory, write_sample_bucket(directory, sensors=12, days=31, seed=2, start=START))


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    def write(name: str, *, seed: int = 1, start: datetime = START) -> dict[str, bytes]:
        write_sample_bucket(tmp_path / name, sensors=3, days=4, seed=seed, start=start)
        return bytes_of(tmp_path / name)

    return write


def test_the_same_seed_writes_the_same_bytes(small: Callable[..., dict[str, bytes]]) -> None:
    assert small("one") == small("two")


def test_another_seed_writes_other_bytes(small: Callable[..., dict[str, bytes]]) -> None:
    one, two = small("one"), small("two", seed=2)

    assert not set(one.values()) & set(two.values())


def test_a_naive_start_is_berlin_wall_time(small: Callable[..., dict[str, bytes]]) -> None:
    assert small("one") == small("two", start=START.replace(tzinfo=None))


def test_files_are_numbered_through_both_folders(bucket: Bucket) -> None:
    folders = [path.parent.name for path in bucket.files]

    assert [path.name for path in bucket.files] == [f"data_{number}.csv" for number in range(len(folders))]
    assert folders == sorted(folders)
    assert set(folders) == {"data1", "data2"}


def test_every_file_but_the_last_has_a_hundred_rows_per_sensor(bucket: Bucket) -> None:
    *full, last = (len(read(path)) for path in bucket.files)

    assert set(full) == {1200}
    assert 0 < last <= 1200


def test_the_report_counts_what_was_written(bucket: Bucket) -> None:
    rows = sum(len(read(path)) for path in bucket.files)
    size = sum(path.stat().st_size for path in bucket.files)

    assert bucket.report == SampleReport(files=len(bucket.files), rows=rows, bytes=size)


def test_a_month_shows_every_header(bucket: Bucket) -> None:
    assert {path.read_text().splitlines()[0] for path in bucket.files} == {
        "timestamp;sensor_uuid;sensor_value",
        ";timestamp;sensor_uuid;sensor_value",
        "timestamp;sensor_uuid;sensor_value;unit;status",
        "sensor_value;timestamp;sensor_uuid",
    }


def test_a_month_shows_every_spelling_of_time(bucket: Bucket) -> None:
    stamps = [row["timestamp"] for path in bucket.files for row in read(path)]
    spellings = {re.sub(r"\d+-\d+-\d+(.)\d\d:\d\d:00", r"\1", stamp) for stamp in stamps}

    assert spellings == {" ", " +01:00", " +02:00", "T+01:00", "T+02:00", "TZ", " +00"}


def test_aware_and_naive_times_share_a_file(bucket: Bucket) -> None:
    aware_of = [{stamp["timestamp"][19:] != "" for stamp in read(path)} for path in bucket.files]

    assert {True, False} in aware_of


def test_rows_are_in_true_time_order(bucket: Bucket) -> None:
    for path in bucket.files:
        times = true_times(read(path))
        assert times == sorted(times)


def test_the_naive_wall_clock_steps_back_in_october(bucket: Bucket) -> None:
    stamps = [row["timestamp"] for path in bucket.files for row in read(path)]
    naive = [stamp for stamp in stamps if re.fullmatch(r"2013-10-27 0[123]:..:..", stamp)]
    backwards = [(one, two) for one, two in pairwise(naive) if two < one]

    assert [(one[:13], two[:13]) for one, two in backwards] == [("2013-10-27 02", "2013-10-27 02")]


def test_sensors_are_read_every_quarter_of_an_hour_on_average(bucket: Bucket) -> None:
    assert bucket.report.rows == pytest.approx(12 * 31 * 96, rel=0.02)


def test_readings_span_the_days_asked_for(bucket: Bucket) -> None:
    times = [time for path in bucket.files for time in true_times(read(path))]

    assert times[0] == START
    assert START + timedelta(days=30.9) < times[-1] < START + timedelta(days=31)


def test_every_sensor_is_mapped_and_measured(bucket: Bucket) -> None:
    measured = {row["sensor_uuid"] for path in bucket.files for row in read(path)}

    assert measured == set(bucket.names)
    assert sorted(bucket.names.values()) == [f"sensor_{number:05d}" for number in range(12)]


def test_values_are_written_as_python_writes_a_float(bucket: Bucket) -> None:
    values = [row["sensor_value"] for row in read(bucket.files[0])]

    assert values == [repr(float(value)) for value in values]


def test_some_sensors_lie_far_below_the_others(bucket: Bucket) -> None:
    values = [float(row["sensor_value"]) for row in read(bucket.files[0])]

    assert min(values) < -1000


def test_labels_match_readings_that_exist(bucket: Bucket) -> None:
    names = bucket.names
    readings = {
        (names[row["sensor_uuid"]], time)
        for rows in map(read, bucket.files)
        for row, time in zip(rows, true_times(rows), strict=True)
    }
    labelled = {(row["sensor_name"], datetime.fromisoformat(row["timestamp"])) for row in bucket.labels}

    assert labelled
    assert labelled <= readings


def test_a_dozen_sensors_show_every_kind_of_anomaly(bucket: Bucket) -> None:
    assert {row["kind"] for row in bucket.labels} == set(ANOMALIES)


def test_a_third_of_the_sensors_is_clean(bucket: Bucket) -> None:
    assert len({row["sensor_name"] for row in bucket.labels}) == 8


def test_a_directory_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()

    with pytest.raises(FileExistsError, match="not empty"):
        write_sample_bucket(tmp_path, sensors=1, days=1, seed=1)


@pytest.mark.parametrize(("sensors", "days", "rows"), [(0, 1, None), (1, 0, None), (1, 1, 0)])
def test_nothing_to_write_is_an_error(tmp_path: Path, sensors: int, days: float, rows: int | None) -> None:
    with pytest.raises(ValueError, match="positive"):
        write_sample_bucket(tmp_path, sensors=sensors, days=days, seed=1, rows_per_file=rows)
