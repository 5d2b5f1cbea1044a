"""What people say about sensors: that nothing of it is lost, what is refused, and what it changes."""

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from iot_pipeline.anomalies import annotate, annotate_from, list_annotations, withdraw
from iot_pipeline.errors import DamagedTableError, UnknownSensorError, WarehouseNotReadyError
from iot_pipeline.warehouse.status import read_status
from iot_pipeline_tests.conftest import SENSOR, Bucket, row
from iot_pipeline_tests.test_anomalies import Rows, Sensors, sensors, without_ids  # noqa: F401 - a fixture

FOR_EVER = ("2013-01-01", "2014-01-01")


def of(name: str, tables: tuple[list[dict[str, object]], ...]) -> list[list[dict[str, object]]]:
    return [[row for row in rows if row["sensor_name"] == name] for rows in tables]


def first_event(sensors: Sensors, sensor: str = "a", kind: str = "%") -> dict[str, Any]:  # noqa: F811
    sql = """
        SELECT event_id, kind, epoch_us(start), epoch_us("end"), n_readings, annotation FROM events
        WHERE sensor_name = $sensor AND kind LIKE $kind ORDER BY start
    """
    found = sensors.bucket.sql(sql, sensor=sensor, kind=kind)[0]
    return dict(zip(("event_id", "kind", "start", "end", "n_readings", "annotation"), found, strict=True))


def around(event: dict[str, Any]) -> tuple[str, str]:
    start, end = (np.datetime64(event[name], "us") for name in ("start", "end"))
    return f"{start}+00:00", f"{end}+00:00"


@pytest.fixture
def mapped(bucket: Bucket) -> Bucket:
    """Return a bucket with one reading of one sensor."""
    return make_mapped(bucket)


def make_mapped(bucket: Bucket) -> Bucket:
    from iot_pipeline.ingest import load_mapping  # noqa: PLC0415

    (bucket.source / "mapping.csv").write_text(f"sensor_name;sensor_uuid\nhall[1]\u00e4;{SENSOR}\n")
    load_mapping(source=str(bucket.source), warehouse=bucket.warehouse)
    bucket.write("a.csv", row())
    bucket.load()
    return bucket


# ------------------------------------------------------------------------- what is said


def test_an_annotation_is_listed_as_it_was_said(mapped: Bucket) -> None:
    annotation_id = annotate(
        "hall*", "2013-01-01", "2013-01-02T12:00+00:00", "confirmed", note="rats", author="Ada",
        warehouse=mapped.warehouse,
    )  # fmt: skip
    (said,) = list_annotations(warehouse=mapped.warehouse).to_pylist()
    moments = [said.pop(name).isoformat() for name in ("start", "end")]
    assert moments == ["2013-01-01T00:00:00+01:00", "2013-01-02T13:00:00+01:00"]
    assert said.pop("created_at") is not None
    assert said == {
        "annotation_id": annotation_id,
        "sensor": "hall*",
        "kind": "confirmed",
        "note": "rats",
        "author": "Ada",
    }


def test_a_sensor_whose_name_looks_like_a_pattern_is_found_by_its_name(mapped: Bucket) -> None:
    assert annotate("hall[1]\u00e4", *FOR_EVER, "maintenance", warehouse=mapped.warehouse)


def test_what_is_withdrawn_is_listed_no_more_and_nothing_is_overwritten(mapped: Bucket) -> None:
    said = [annotate("hall*", *FOR_EVER, "confirmed", warehouse=mapped.warehouse) for _ in range(2)]
    withdraw(said[0], author="Bob", warehouse=mapped.warehouse)
    assert list_annotations(warehouse=mapped.warehouse)["annotation_id"].to_pylist() == said[1:]
    written = mapped.sql(
        "SELECT withdraws, author FROM read_parquet($files) ORDER BY created_at",
        files=f"{mapped.warehouse}/annotations/*.parquet",
    )
    assert len(written) == 3
    assert written[-1] == (said[0], "Bob")
    with pytest.raises(ValueError, match=f"no annotation '{said[0]}', or it was withdrawn: `iot-pipeline"):
        withdraw(said[0], warehouse=mapped.warehouse)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (("basement*", *FOR_EVER, "confirmed"), r"there is no sensor 'basement\*' among the 1 of"),
        (("hall*", *FOR_EVER[::-1], "confirmed"), r"end 2013-01-01 is before start 2014-01-01"),
        (("hall*", "soon", "2014-01-01", "confirmed"), "can't read the time 'soon': write it like"),
        (
            ("hall*", *FOR_EVER, "holiday"),
            "unknown kind 'holiday': write one of false_alarm, confirmed, main",
        ),
    ],
)
def test_what_can_not_be_taken_is_one_line_that_says_what_to_do(
    mapped: Bucket, said: tuple[str, str, str, str], error: str
) -> None:
    with pytest.raises((ValueError, UnknownSensorError), match=error) as caught:
        annotate(*said, warehouse=mapped.warehouse)
    assert "\n" not in str(caught.value)
    assert list_annotations(warehouse=mapped.warehouse).num_rows == 0


def test_before_anything_is_loaded_the_error_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(WarehouseNotReadyError, match="run: iot-pipeline load"):
        annotate("a", *FOR_EVER, "confirmed", warehouse=tmp_path)


def test_a_file_is_taken_as_a_whole_in_one_commit(mapped: Bucket, tmp_path: Path) -> None:
    path = tmp_path / "said.csv"
    path.write_text(
        "\ufeffstart;end;kind;sensor;note;who\n2013-01-01;2013-01-02;maintenance;hall*;'new;\nlamp';x\n\n"
        "2013-01-03;2013-01-04;confirmed;hall*\n".replace("'", '"')
    )
    ids = annotate_from(path, author="Ada", warehouse=mapped.warehouse)
    rows = list_annotations(warehouse=mapped.warehouse).to_pylist()
    assert {row["annotation_id"]: (row["kind"], row["note"], row["author"]) for row in rows} == {
        ids[0]: ("maintenance", "new;\nlamp", "Ada"),
        ids[1]: ("confirmed", "", "Ada"),
    }
    assert len(list((mapped.warehouse / "annotations").glob("part-*"))) == 1


def test_what_is_listed_as_csv_can_be_taken_again(mapped: Bucket, tmp_path: Path) -> None:
    annotate("hall*", *FOR_EVER, "confirmed", note="a, b", author="Ada", warehouse=mapped.warehouse)
    listed = list_annotations(warehouse=mapped.warehouse)
    listed.to_pandas().to_csv(tmp_path / "said.csv", index=False)
    annotate_from(tmp_path / "said.csv", warehouse=mapped.warehouse)
    first, second = list_annotations(warehouse=mapped.warehouse).drop_columns(
        ["annotation_id", "created_at"]
    ).to_pylist()  # fmt: skip
    assert first == second


def test_a_file_with_errors_is_not_taken_at_all_and_every_line_is_named(
    mapped: Bucket, tmp_path: Path
) -> None:
    path = tmp_path / "said.csv"
    path.write_text(
        "sensor,start,end,kind\nhall*,2013-01-01,2013-01-02,confirmed\nx,2013-01-01,2013-01-02,confirmed\n"
        "hall*,2013-01-02,2013-01-01,confirmed\nhall*,2013-01-01\n"
    )
    with pytest.raises(ValueError, match="nothing was taken") as caught:
        annotate_from(path, warehouse=mapped.warehouse)
    text = str(caught.value)
    assert "\n" not in text
    assert "line 3: there is no sensor 'x'" in text
    assert "line 4: end 2013-01-01 is before start 2013-01-02" in text
    assert "line 5: unknown kind ''" in text
    assert list_annotations(warehouse=mapped.warehouse).num_rows == 0


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "it lacks sensor, start, end, kind"),
        (b"sensor,start,end\n", "needs the header sensor,start,end,kind.*: it lacks kind"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"sensor,start,end,kind\n" + b"x" * 200_000, "field larger than"),
    ],
    ids=["empty", "a column is missing", "not UTF-8", "a huge field"],
)
def test_a_file_that_is_none_of_annotations_is_one_line(
    mapped: Bucket, tmp_path: Path, content: bytes, error: str
) -> None:
    (tmp_path / "said.csv").write_bytes(content)
    with pytest.raises(ValueError, match=error) as caught:
        annotate_from(tmp_path / "said.csv", warehouse=mapped.warehouse)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------ nothing is lost


@pytest.mark.system
@pytest.mark.parametrize("place", ["a directory", pytest.param("S3", marks=pytest.mark.system)])
def test_many_who_write_at_once_lose_nothing(
    bucket: Bucket, request: pytest.FixtureRequest, place: str
) -> None:
    if place == "S3":
        bucket = replace(bucket, warehouse=request.getfixturevalue("s3_folder"))
    make_mapped(bucket)

    def say(number: int) -> str:
        return annotate("hall*", *FOR_EVER, "confirmed", note=str(number), warehouse=bucket.warehouse)

    with ThreadPoolExecutor(4) as threads:
        ids = list(threads.map(say, range(10)))
    rows = list_annotations(warehouse=bucket.warehouse).to_pylist()
    assert {row["annotation_id"]: row["note"] for row in rows} == {
        said: str(number) for number, said in enumerate(ids)
    }


def test_a_full_reload_keeps_what_was_said(mapped: Bucket) -> None:
    annotate("hall*", *FOR_EVER, "confirmed", warehouse=mapped.warehouse)
    before = list_annotations(warehouse=mapped.warehouse)
    mapped.load(full_reload=True)
    assert list_annotations(warehouse=mapped.warehouse) == before


def test_damaged_annotations_are_one_line_that_says_what_to_do_and_nobody_judges_without_them(
    sensors: Sensors,  # noqa: F811
) -> None:
    warehouse = sensors.bucket.warehouse
    annotate("a", *FOR_EVER, "maintenance", warehouse=warehouse)
    (warehouse / "annotations" / "_delta_log" / f"{1:020}.json").write_text("{")
    for action in (
        sensors.judge,
        lambda: list_annotations(warehouse=warehouse),
        lambda: annotate("a", *FOR_EVER, "confirmed", warehouse=warehouse),
    ):
        with pytest.raises(DamagedTableError, match=r"^can't read .*/annotations .*: restore") as caught:
            action()
        assert "\n" not in str(caught.value)
    assert sensors.bucket.sql("SELECT count(*) FROM measurements") > [(1_000,)]


# ------------------------------------------------------------------------ what it changes


def test_readings_within_maintenance_are_neither_flagged_nor_learnt_from(
    sensors: Sensors,  # noqa: F811
) -> None:
    before = sensors.verdicts()
    event = first_event(sensors)
    annotation_id = annotate("a", *around(event), "maintenance", warehouse=sensors.bucket.warehouse)
    assert sensors.judge().sensors_refitted == 1
    after = sensors.verdicts()
    (model,) = of("a", after)[2]
    (old_model,) = of("a", before)[2]
    assert model["n_points"] < old_model["n_points"]  # type: ignore[operator]
    assert "Left out for maintenance" in str(model["reasoning"])
    assert event["event_id"] not in [row["event_id"] for row in after[0]]
    for name in "bc":
        assert of(name, after) == of(name, before)
    withdraw(annotation_id, warehouse=sensors.bucket.warehouse)
    assert sensors.judge().sensors_refitted == 1
    assert sensors.verdicts() == before


def test_an_event_that_had_grown_before_its_maintenance_comes_back_with_its_id(
    sensors: Sensors,  # noqa: F811
) -> None:
    sql = "SELECT event_id FROM anomalies WHERE sensor_value = 1e6"
    for second in (2, 1):  # the earlier reading comes later
        sensors.add("a", [np.datetime64("2013-01-05T00:00:00") + second], [1e6])
        sensors.judge()
    ids = sensors.bucket.sql(sql)
    assert len(set(ids)) == 1
    before = sensors.verdicts()
    day = ("2013-01-05", "2013-01-06")
    annotation_id = annotate("a", *day, "maintenance", warehouse=sensors.bucket.warehouse)
    sensors.judge()
    assert sensors.bucket.sql(sql) == []
    withdraw(annotation_id, warehouse=sensors.bucket.warehouse)
    sensors.judge()
    assert sensors.bucket.sql(sql) == ids
    assert sensors.verdicts() == before


def test_maintenance_outside_a_sensors_readings_changes_nothing(sensors: Sensors) -> None:  # noqa: F811
    annotate("*", "2020-01-01", "2020-01-02", "maintenance", warehouse=sensors.bucket.warehouse)
    assert sensors.judge().sensors_refitted == 0


def test_maintenance_that_is_said_twice_changes_nothing_the_second_time(
    sensors: Sensors,  # noqa: F811
) -> None:
    for sensor, refitted in (("b", 1), ("[b]", 0)):
        annotate(sensor, "2013-01-05", "2013-01-06", "maintenance", warehouse=sensors.bucket.warehouse)
        assert sensors.judge().sensors_refitted == refitted


def test_a_sensor_that_is_always_in_maintenance_has_a_model_of_nothing(sensors: Sensors) -> None:  # noqa: F811
    annotate("a", *FOR_EVER, "maintenance", warehouse=sensors.bucket.warehouse)
    assert not sensors.judge().failed
    sql = "SELECT n_points, n_anomalies, n_events FROM sensor_models WHERE sensor_name = 'a'"
    assert sensors.bucket.sql(sql) == [(0, 0, 0)]


def test_an_event_in_a_false_alarm_stays_marked_and_is_not_counted(sensors: Sensors) -> None:  # noqa: F811
    event = first_event(sensors, kind="spike")
    before = read_status(sensors.bucket.warehouse).anomalies
    incidents = sensors.bucket.sql("SELECT count(*) FROM incidents")
    annotate("?", *around(event), "false_alarm", warehouse=sensors.bucket.warehouse)
    annotate("a", *around(event), "confirmed", warehouse=sensors.bucket.warehouse)
    marked = sensors.bucket.sql("SELECT event_id FROM events WHERE annotation = 'false_alarm'")
    assert (event["event_id"],) in marked
    after = read_status(sensors.bucket.warehouse).anomalies
    assert sum(after.values()) < sum(before.values())
    assert sensors.bucket.sql("SELECT count(*) FROM incidents") < incidents
    assert sensors.judge().sensors_refitted == 0


def test_an_annotation_of_one_sensor_of_an_incident_changes_no_row_of_the_others(bucket: Bucket) -> None:
    sensors = Sensors(bucket, points=600)  # noqa: F811
    for name in "abc":
        sensors.add(name, [np.datetime64("2013-06-01T00:00:00")], [0.0])
    sensors.judge()
    before = sensors.verdicts()
    common = "SELECT n_sensors, kinds FROM incidents WHERE n_sensors > 1"
    linked = bucket.sql(common)
    assert [n_sensors for n_sensors, _ in linked] == [3]
    incident_ids = bucket.sql("SELECT event_id, incident_id FROM events ORDER BY 1")

    annotation_id = annotate("a", "2013-06-01", "2013-06-02", "maintenance", warehouse=bucket.warehouse)
    sensors.judge()
    after = sensors.verdicts()
    assert of("a", after) != of("a", before)
    assert bucket.sql(common) == []
    for name in "bc":
        assert of(name, after) == of(name, before)

    withdraw(annotation_id, warehouse=bucket.warehouse)
    sensors.judge()
    assert sensors.verdicts() == before
    assert bucket.sql(common) == linked
    assert bucket.sql("SELECT event_id, incident_id FROM events ORDER BY 1") == incident_ids


class Said(RuleBasedStateMachine):
    """Loads, annotations, withdrawals and judgements, compared with judging from scratch."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        (self.folder / "source" / "Timeseries").mkdir(parents=True)
        self.sensors = Sensors(Bucket(self.folder / "source", self.folder / "warehouse"), points=300)
        self.sensors.judge()
        self.said: dict[str, tuple[str, str]] = {}
        self.loads = 0
        self.without_maintenance: tuple[Rows, Rows, Rows] | None = self.sensors.verdicts()

    @rule(sensor=st.sampled_from("abc"), value=st.sampled_from([0.0, 1e6]))
    def load(self, sensor: str, value: float) -> None:
        self.loads += 1
        self.without_maintenance = None
        self.sensors.add(sensor, [np.datetime64("2013-01-05T00:00:00") + self.loads], [value])

    @rule(
        sensor=st.sampled_from(["a", "b", "[ac]", "*"]),
        day=st.integers(1, 4),
        kind=st.sampled_from(["maintenance", "maintenance", "false_alarm", "confirmed"]),
    )
    def annotate(self, sensor: str, day: int, kind: str) -> None:
        start, end = f"2013-01-0{day}T06:00", f"2013-01-0{day}T18:00"
        with self.others_stay_as_they_are(sensor):
            annotation_id = annotate(sensor, start, end, kind, warehouse=self.sensors.bucket.warehouse)
        self.said[annotation_id] = (sensor, kind)

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        if self.said:
            annotation_id = data.draw(st.sampled_from(list(self.said)))
            with self.others_stay_as_they_are(self.said.pop(annotation_id)[0]):
                withdraw(annotation_id, warehouse=self.sensors.bucket.warehouse)

    @contextmanager
    def others_stay_as_they_are(self, sensor: str) -> Iterator[None]:
        """Judge after something was said of a sensor, and compare all that is known of the others."""
        others = [name for name in "abc" if not fnmatchcase(name, sensor)]
        before = [of(name, self.sensors.verdicts()) for name in others]
        yield
        self.sensors.judge()
        assert [of(name, self.sensors.verdicts()) for name in others] == before

    @invariant()
    def judging_gives_what_judging_from_scratch_gives(self) -> None:
        self.sensors.judge()
        found = self.sensors.verdicts()
        assert without_ids(found) == without_ids(self.sensors.verdicts_from_nothing())
        ids = [event["event_id"] for event in found[0]]
        assert len(set(ids)) == len(ids)

    @invariant()
    def withdrawing_all_maintenance_gives_the_first_state_back(self) -> None:
        if not any(kind == "maintenance" for _, kind in self.said.values()):
            self.without_maintenance = self.without_maintenance or self.sensors.verdicts()
            assert self.sensors.verdicts() == self.without_maintenance

    def teardown(self) -> None:
        shutil.rmtree(self.folder)


TestAnySequenceOfLoadsAndAnnotations = pytest.mark.system(Said.TestCase)
TestAnySequenceOfLoadsAndAnnotations.settings = settings(
    max_examples=6,
    stateful_step_count=6,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
