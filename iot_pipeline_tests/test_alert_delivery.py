"""That every digest arrives, and arrives once: the outbox, the services and Dagster's sensor, on a sink."""

import inspect
import logging
import shutil
import zlib
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from iot_pipeline.alerts import FailedCheck, Run, announce, delivery, describe_outbox, send_test
from iot_pipeline.alerts.events import Event, Findings
from iot_pipeline.alerts.outbox import change_outbox, read_outbox
from iot_pipeline.cli import main
from iot_pipeline.definitions import defs
from iot_pipeline.defs import assets, checks
from iot_pipeline.defs.alerts import COUNTS, alerts
from iot_pipeline.errors import (
    ConfigurationError,
    DamagedTableError,
    WarehouseBusyError,
    WarehouseUnreachableError,
)
from iot_pipeline.settings import get_settings
from iot_pipeline.warehouse import open_warehouse
from iot_pipeline.warehouse.delta import commit
from iot_pipeline.warehouse.tables import Version
from iot_pipeline_tests.alert_sink import CANARY, Sink, running_sink
from iot_pipeline_tests.conftest import BERLIN, OTHER_SENSOR, SENSOR, Bucket, row
from iot_pipeline_tests.runs import definitions_on, measurements_in
from iot_pipeline_tests.test_alerts import CLOCK, event, shift
from iot_pipeline_tests.test_checks import NOW, load_at

pytestmark = pytest.mark.system

PICTURE = b"\x89PNG\r\n\x1a\n, as it were"
SILENT = FailedCheck("no_sensor_fell_silent", is_error=False, found="silent sensors 3", count=3)


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    """Run a sink that all alerts go to."""
    with running_sink() as sink:
        monkeypatch.setenv("IOT_ALERT_URLS", sink.url)
        yield sink


class Found:
    """What the warehouse is made to have found."""

    def __init__(self) -> None:
        self.events: tuple[Event, ...] = ()

    def __call__(self, _warehouse: object, *, required: bool) -> Findings:
        return Findings(CLOCK, self.events, {each.sensor_name: "Because. " * 9 for each in self.events})


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Found:
    """Stand in for the events of the warehouse."""
    found = Found()
    monkeypatch.setattr(delivery, "_read_findings", found)
    return found


@pytest.fixture
def warehouse(tmp_path: Path, found: Found) -> Path:
    """Return a warehouse whose first, silent run is over."""
    warehouse = tmp_path / "warehouse"
    announce(Run("first", succeeded=True), warehouse=warehouse)
    return warehouse


def draw(_sensor_name: str, _start: datetime, _end: datetime) -> bytes:
    return PICTURE


# -------------------------------------------------------------------------- once, to everybody


def test_a_new_event_is_one_message_with_a_picture_and_asking_again_sends_none(
    warehouse: Path, found: Found, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IOT_EXPLORE_URL", "https://example.org/")
    assert sink.messages == []
    found.events = (event(),)
    run = Run("second", succeeded=True, checks=(SILENT,))
    for _ in range(2):
        announce(run, warehouse=warehouse, draw=draw)
    announce(Run("third", succeeded=True, checks=(SILENT,)), warehouse=warehouse, draw=draw)
    assert sink.titles == ["Sensors: 1 new event on sensor_00003, 1 check warns"]
    assert (
        "sensor_00003: spike, 2013-11-01 07:00: 1 reading too high, as rare as a reading at 20.0 sd"
        in sink.text
    )
    assert "https://example.org/?sensor=sensor_00003&start=2013-10-31T07%3A00%2B01%3A00&end=" in sink.text
    assert "Because." in sink.text
    assert "no_sensor_fell_silent warns: silent sensors 3" in sink.text
    (attachment,) = sink.messages[0]["attachments"]
    assert (attachment["filename"], attachment["mimetype"]) == ("sensor.png", "image/png")
    assert b64decode(attachment["base64"]) == PICTURE


def test_a_digest_that_could_not_be_sent_waits_and_arrives_once_when_the_service_is_up_again(
    warehouse: Path, found: Found, sink: Sink
) -> None:
    found.events = (event(),)
    sink.is_up = False
    run = Run("second", succeeded=True)
    for _ in range(3):
        assert announce(run, warehouse=warehouse).waiting
    assert sink.messages == []
    assert "1 waiting since" in describe_outbox(warehouse)
    sink.is_up = True
    for _ in range(3):
        assert not announce(run, warehouse=warehouse).waiting
    assert len(sink.messages) == 1
    assert "waiting" not in describe_outbox(warehouse)
    assert "the last one was sent at 20" in describe_outbox(warehouse)


def test_of_two_services_only_the_one_that_was_down_is_tried_again(
    warehouse: Path, found: Found, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    found.events = (event(),)
    run = Run("second", succeeded=True)
    with running_sink() as other:
        monkeypatch.setenv("IOT_ALERT_URLS", f"{sink.url}, {other.url}")
        other.is_up = False
        (label,) = announce(run, warehouse=warehouse).waiting.values()
        assert label == "JSON (number 2 of IOT_ALERT_URLS)"
        other.is_up = True
        announce(run, warehouse=warehouse)
        assert (len(sink.messages), len(other.messages)) == (1, 1)


@pytest.mark.parametrize("n_faults", [1, 2, 3, 8])
def test_a_warehouse_that_is_away_after_the_sending_makes_nobody_hear_of_it_twice(
    warehouse: Path, found: Found, sink: Sink, monkeypatch: pytest.MonkeyPatch, n_faults: int
) -> None:
    found.events = (event(),)
    waits: list[float] = []
    monkeypatch.setattr("iot_pipeline.alerts.delivery.time.sleep", waits.append)
    faults = iter(range(n_faults))

    def fail_after_the_sending(*args: Any, **options: Any) -> Version:
        if sink.messages and next(faults, None) is not None:
            raise WarehouseUnreachableError("can't write: no answer")
        return commit(*args, **options)

    monkeypatch.setattr("iot_pipeline.alerts.outbox.commit", fail_after_the_sending)
    for _ in range(4):
        with suppress(WarehouseUnreachableError):
            announce(Run("second", succeeded=True), warehouse=warehouse)
    assert len(sink.messages) == 1
    (message,) = [message for message in read_outbox(open_warehouse(warehouse)) if message.title]
    assert message.sent_at
    assert len(message.delivered) == 1
    assert sum(waits) < 30
    assert not delivery._unrecorded


def test_what_waits_is_what_was_composed_though_the_event_has_vanished_since(
    warehouse: Path, found: Found, sink: Sink
) -> None:
    found.events = (event(),)
    sink.is_up = False
    announce(Run("second", succeeded=True), warehouse=warehouse)
    found.events = ()
    announce(Run("third", succeeded=True), warehouse=warehouse)
    sink.is_up = True
    for run_id in ("second", "third"):
        announce(Run(run_id, succeeded=True), warehouse=warehouse)
    assert sink.titles == ["Sensors: 1 new event on sensor_00003"]


def test_who_is_added_later_does_not_get_old_messages(
    warehouse: Path, found: Found, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    found.events = (event(),)
    run = Run("second", succeeded=True)
    announce(run, warehouse=warehouse)
    with running_sink() as other:
        monkeypatch.setenv("IOT_ALERT_URLS", f"{sink.url} {other.url}")
        announce(run, warehouse=warehouse)
        assert (len(sink.messages), len(other.messages)) == (1, 0)


def test_a_run_that_failed_is_told_though_its_tables_can_not_be_read_and_a_good_one_is_an_error(
    tmp_path: Path, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_warehouse: object) -> None:
        raise DamagedTableError("can't read events")

    monkeypatch.setattr(delivery, "connect", fail)
    announce(Run("bad", succeeded=False, error="files are gone"), warehouse=tmp_path)
    assert "files are gone" in sink.text
    with pytest.raises(DamagedTableError, match="can't read events"):
        announce(Run("good", succeeded=True), warehouse=tmp_path)


def test_a_process_that_dies_between_sending_and_recording_sends_twice_and_not_more(
    warehouse: Path, found: Found, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    found.events = (event(),)
    run = Run("second", succeeded=True)
    with monkeypatch.context() as killed:
        killed.setattr(delivery, "_record", _die)
        with pytest.raises(KeyboardInterrupt):
            announce(run, warehouse=warehouse)
    delivery._unrecorded.clear()  # a new process knows nothing of it
    for _ in range(3):
        announce(run, warehouse=warehouse)
    assert len(sink.messages) == 2


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_picture_that_can_not_be_drawn_does_not_keep_the_message_back(
    warehouse: Path, found: Found, sink: Sink
) -> None:
    def fail(*_: object) -> bytes:
        raise ValueError("no readings")

    found.events = (event(),)
    announce(Run("second", succeeded=True), warehouse=warehouse, draw=fail)
    assert len(sink.messages) == 1


def test_what_is_no_longer_anomalous_is_told_with_its_time_in_berlin(
    warehouse: Path, found: Found, sink: Sink
) -> None:
    found.events = (shift(),)
    announce(Run("second", succeeded=True), warehouse=warehouse)
    found.events = ()
    announce(Run("third", succeeded=True), warehouse=warehouse)
    assert sink.titles[1:] == ["Sensors: 1 event is no longer anomalous"]
    assert (
        "the readings since 2013-11-01 03:00 are no longer taken as anomalous" in sink.messages[-1]["message"]
    )


def test_a_chat_that_takes_short_messages_only_gets_one_that_is_cut(
    warehouse: Path, found: Found, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apprise.plugins.custom_json.NotifyJSON.body_maxlen", 600)
    found.events = tuple(event(f"e{n}", f"sensor_{n:05}") for n in range(8))
    announce(Run("second", succeeded=True), warehouse=warehouse)
    assert "sensor_00000: spike" in sink.text
    assert len(sink.text) <= 600
    assert "<" not in sink.text


def test_400_sensors_that_fall_silent_at_once_are_one_message(
    warehouse: Path, found: Found, sink: Sink
) -> None:
    found.events = tuple(
        event(f"e{n}", f"sensor_{n:05}", kind="gap", start=CLOCK - timedelta(days=1), incident_id="e0")
        for n in range(400)
    )
    for run_id in ("second", "third"):
        announce(Run(run_id, succeeded=True), warehouse=warehouse)
    assert sink.titles == ["Sensors: 400 new events on 400 sensors"]
    assert "400 sensors at once" in sink.text


def test_the_heartbeat_is_called_once_after_every_good_night_and_after_no_bad_one(
    warehouse: Path, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IOT_HEARTBEAT_URL", sink.heartbeat_url)
    for run in (Run("good", succeeded=True), Run("bad", succeeded=False), Run("better", succeeded=True)):
        for _ in range(2):
            announce(run, warehouse=warehouse)
    assert sink.heartbeats == 2
    assert sink.titles == ["Sensors: the run failed"]


def test_the_heartbeat_needs_nobody_to_be_told(
    tmp_path: Path, found: Found, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IOT_ALERT_URLS")
    monkeypatch.setenv("IOT_HEARTBEAT_URL", sink.heartbeat_url)
    announce(Run("good", succeeded=True), warehouse=tmp_path)
    assert sink.heartbeats == 1
    assert describe_outbox(tmp_path) == "none sent"


# ---------------------------------------------------------------------------------- the outbox


def test_two_deployments_on_one_bucket_keep_each_others_messages(
    s3_folder: str, found: Found, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(Run("first", succeeded=True), warehouse=s3_folder)
    found.events = (event(),)
    read_findings = delivery._read_findings

    def be_overtaken(warehouse: str, *, required: bool) -> Findings:
        """Let the other deployment announce a run between this one's reading and its commit."""
        monkeypatch.setattr(delivery, "_read_findings", read_findings)
        announce(Run("theirs", succeeded=True), warehouse=s3_folder)
        return read_findings(warehouse, required=required)

    monkeypatch.setattr(delivery, "_read_findings", be_overtaken)
    announce(Run("ours", succeeded=True), warehouse=s3_folder)
    assert [message.run_id for message in read_outbox(open_warehouse(s3_folder))] == [
        "first",
        "theirs",
        "ours",
    ]
    assert len(sink.messages) == 1


def test_a_commit_that_is_overtaken_is_made_again_on_what_is_there_then(
    warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_warehouse(warehouse)
    overtakers = ["a", "b"]

    def add(run_id: str) -> None:
        def change(messages: Any) -> Any:
            if run_id == "last" and overtakers:
                add(overtakers.pop())
            return (*messages, replace(messages[-1], run_id=run_id))

        change_outbox(opened, change)

    add("last")
    assert [message.run_id for message in read_outbox(opened)] == ["first", "b", "a", "last"]


def test_who_announces_at_the_same_time_in_a_directory_waits(warehouse: Path, sink: Sink) -> None:
    with (
        open_warehouse(warehouse).writing("alerts"),
        pytest.raises(WarehouseBusyError, match="try again when it is done"),
    ):
        announce(Run("second", succeeded=False), warehouse=warehouse)


def test_the_outbox_forgets_old_messages_and_not_what_people_know(
    warehouse: Path, found: Found, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iot_pipeline.alerts.outbox.KEPT", 3)
    found.events = (event(),)
    for number in range(6):
        announce(Run(f"run {number}", succeeded=True), warehouse=warehouse)
    assert len(read_outbox(open_warehouse(warehouse))) <= 4
    assert len(sink.messages) == 1


def test_an_outbox_that_can_not_be_read_is_one_line_that_says_what_to_do(warehouse: Path) -> None:
    for file in (warehouse / "alerts").glob("*.parquet"):
        file.write_bytes(b"broken")
    with pytest.raises(DamagedTableError, match=r"alerts \(.*\): delete it, then") as error:
        describe_outbox(warehouse)
    assert "\n" not in str(error.value)


# -------------------------------------------------------------------------------------- tokens


def test_no_url_shows_in_logs_errors_files_or_settings(  # noqa: PLR0917
    warehouse: Path,
    found: Found,
    sink: Sink,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("IOT_HEARTBEAT_URL", sink.heartbeat_url)
    monkeypatch.setenv("IOT_WAREHOUSE", str(warehouse))
    found.events = (event(),)
    said = [repr(get_settings())]
    for is_up in (False, True):
        sink.is_up = is_up
        said.append(repr(announce(Run("second", succeeded=True), warehouse=warehouse)))
        main(["alerts", "--test"])
    for url in (f"nonsense-{CANARY}", f"unknown://{CANARY}", f"slack://{CANARY}"):
        monkeypatch.setenv("IOT_ALERT_URLS", f"{sink.url} {url}")
        with pytest.raises(ConfigurationError, match="the URL number 2 of 2") as error:
            send_test(warehouse=warehouse)
        said.append(str(error.value))
    monkeypatch.setenv("IOT_ALERT_URLS", sink.url)
    monkeypatch.setenv("IOT_HEARTBEAT_URL", f"ftp://{CANARY}")
    with pytest.raises(ConfigurationError, match="IOT_HEARTBEAT_URL must") as error:
        announce(Run("third", succeeded=True), warehouse=warehouse)
    said += [str(error.value), caplog.text, *capfd.readouterr()]
    said += [path.read_bytes().decode(errors="replace") for path in warehouse.rglob("*") if path.is_file()]
    said += [repr(read_outbox(open_warehouse(warehouse)))]
    assert len(sink.messages) == 2
    assert not [text for text in said if CANARY in text or "127.0.0.1" in text]


def test_without_apprise_the_error_says_what_to_install(
    warehouse: Path, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "apprise", None)
    with pytest.raises(ConfigurationError, match=r"run: pip install 'iot-pipeline\[alerts\]'"):
        announce(Run("second", succeeded=False), warehouse=warehouse)


def test_a_url_that_apprise_does_not_know_fails_the_sensors_tick_and_nothing_is_lost(
    nights: "Nights", sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights.bucket.write("new.csv", *day_of(10, spike=True))
    nights.reload()
    with monkeypatch.context() as wrong:
        wrong.setenv("IOT_ALERT_URLS", f"{sink.url} unknown://{CANARY}")
        with pytest.raises(ConfigurationError, match="the URL number 2 of 2"):
            nights.look()
    nights.look()
    assert sink.titles == ["Sensors: 1 new event on sensor_00000"]


# ----------------------------------------------------------------------------------- the shell


def test_a_test_message_goes_to_everybody_and_is_recorded_nowhere(
    warehouse: Path,
    found: Found,
    sink: Sink,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("IOT_WAREHOUSE", str(warehouse))
    found.events = (event(),)
    before = read_outbox(open_warehouse(warehouse))
    assert main(["alerts", "--test"]) == 0
    assert capsys.readouterr().out == "sent to JSON (number 1 of IOT_ALERT_URLS)\n"
    assert sink.titles == ["Sensors: a test"]
    assert "sensor_00003: spike" in sink.text
    assert read_outbox(open_warehouse(warehouse)) == before


def test_a_test_message_that_does_not_arrive_is_one_line_that_names_the_service(
    warehouse: Path, sink: Sink, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IOT_WAREHOUSE", str(warehouse))
    sink.is_up = False
    assert main(["alerts", "--test"]) == 1
    said = capsys.readouterr().err
    assert said == "iot-pipeline: JSON (number 1 of IOT_ALERT_URLS) did not take it: check that URL\n"


def test_a_test_message_to_nobody_says_which_variable_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("IOT_ALERT_URLS", raising=False)
    assert main(["alerts", "--test"]) == 1
    assert capsys.readouterr().err.startswith("iot-pipeline: IOT_ALERT_URLS is not set: set it to URLs")


# ---------------------------------------------------------------------------- Dagster's sensor

START = datetime(2013, 10, 1, tzinfo=UTC)
UNMAPPED = "99999999-9999-4999-8999-999999999999"
TEN_MINUTES = timedelta(minutes=10)


def day_of(number: int, *, spike: bool = False, uuid: str = SENSOR) -> list[str]:
    """Return the readings of a day: noise around 20, and a spike at noon if there is one."""
    noise = np.random.default_rng((number, zlib.crc32(uuid.encode()))).normal(20, 1, 144)
    noise[72] += 60 * spike
    times = (START + timedelta(days=number) + position * TEN_MINUTES for position in range(len(noise)))
    return [
        row(f"{time:%Y-%m-%d %H:%M:%S+00:00}", uuid, value) for time, value in zip(times, noise, strict=True)
    ]


class Nights:
    """A bucket that is reloaded at night, and the sensor that looks every minute."""

    def __init__(self, bucket: Bucket, instance: dg.DagsterInstance) -> None:
        self.bucket, self.instance = bucket, instance
        self.cursor: str | None = None

    def prepare(self) -> None:
        """Write ten days of two sensors."""
        bucket = self.bucket
        (bucket.source / "Timeseries").mkdir(parents=True)
        mapping = f"sensor_name;sensor_uuid\nsensor_00000;{SENSOR}\nsensor_00001;{OTHER_SENSOR}\n"
        (bucket.source / "mapping.csv").write_text(mapping)
        for uuid in (SENSOR, OTHER_SENSOR):
            bucket.write(f"{uuid}.csv", *(line for number in range(10) for line in day_of(number, uuid=uuid)))

    def reload(self, **options: Any) -> dg.ExecuteInProcessResult:
        job = definitions_on(self.bucket.source, self.bucket.warehouse).resolve_job_def("reload")
        return job.execute_in_process(instance=self.instance, raise_on_error=False, **options)

    def look(self) -> str:
        """Let the sensor look, and return what it says."""
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            resources={"measurements": measurements_in(self.bucket.warehouse)},
        ) as context:
            answer = alerts(context)
            self.cursor = context.cursor
        assert isinstance(answer, dg.SkipReason)
        return answer.skip_message or ""


@pytest.fixture(scope="module")
def first_night(tmp_path_factory: pytest.TempPathFactory) -> Bucket:
    """Return a bucket whose first night is over. Not to be written to."""
    bucket = Bucket(*(tmp_path_factory.mktemp("first") / name for name in ("source", "warehouse")))
    with dg.instance_for_test() as instance, running_sink() as sink, pytest.MonkeyPatch.context() as patch:
        patch.setenv("IOT_ALERT_URLS", sink.url)
        nights = Nights(bucket, instance)
        nights.prepare()
        assert nights.reload().success
        assert nights.look()
        assert sink.messages == []
    return bucket


@pytest.fixture
def nights(
    first_night: Bucket, tmp_path: Path, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Nights]:
    """Return a bucket whose first night is over."""
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda *_: 0)
    copy = Bucket(
        shutil.copytree(first_night.source, tmp_path / "source"),
        shutil.copytree(first_night.warehouse, tmp_path / "warehouse"),
    )
    with dg.instance_for_test() as instance:
        nights = Nights(copy, instance)
        nights.cursor = datetime.now(UTC).isoformat()
        yield nights


def test_the_sensor_looks_every_minute_unless_somebody_switches_it_off() -> None:
    sensor = defs.resolve_sensor_def("alerts")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 60


def test_one_new_spike_is_one_message_and_the_next_nights_none(nights: Nights, sink: Sink) -> None:
    nights.bucket.write("new.csv", *day_of(10, spike=True))
    nights.bucket.write("other.csv", *day_of(10, uuid=OTHER_SENSOR))
    assert nights.reload().success
    assert nights.look() == ("Sensors: 1 new event on sensor_00000: told JSON (number 1 of IOT_ALERT_URLS).")
    assert "sensor_00000: spike, 2013-10-11 14:00: 1 reading too high" in sink.text
    (attachment,) = sink.messages[0]["attachments"]
    assert b64decode(attachment["base64"]).startswith(b"\x89PNG")
    assert nights.look() == "Everybody has been told of everything."
    assert nights.reload().success
    assert nights.look() == "Everybody has been told of everything."
    assert len(sink.messages) == 1


def test_a_sink_that_is_down_and_then_up_gets_the_message_once(nights: Nights, sink: Sink) -> None:
    nights.bucket.write("new.csv", *day_of(10, spike=True))
    nights.reload()
    sink.is_up = False
    for _ in range(2):
        assert "did not answer. It is tried again in a minute." in nights.look()
    nights.reload()
    nights.look()
    sink.is_up = True
    for _ in range(3):
        nights.look()
    assert [title for title in sink.titles if "new event" in title] == [
        "Sensors: 1 new event on sensor_00000"
    ]


def test_a_service_that_does_not_answer_is_tried_once_a_minute_however_much_waits(
    nights: Nights, sink: Sink
) -> None:
    sink.is_up = False
    for number in range(3):
        nights.bucket.write(f"{number}.csv", *day_of(10 + number, spike=True))
        nights.reload()
        nights.look()
    refused = sink.refused
    nights.look()
    assert sink.refused == refused + 1
    sink.is_up = True
    nights.look()
    assert sum("1 new event" in title for title in sink.titles) == 3


def test_what_counts_the_findings_of_a_check_is_named_as_the_check_shows_it() -> None:
    names = {key.name for key in defs.resolve_asset_graph().asset_check_keys}
    assert COUNTS.keys() <= names
    source = "".join(inspect.getsource(module) for module in (assets, checks))
    assert not [shown for shown in COUNTS.values() if shown not in source]


def test_a_check_that_warns_is_named_and_named_again_when_it_finds_another_sensor(
    nights: Nights, sink: Sink
) -> None:
    nights.bucket.write("unmapped.csv", row("2013-10-10 12:00:00+02:00", UNMAPPED))
    assert nights.reload().success
    nights.look()
    assert sink.titles == ["Sensors: 1 check warns"]
    assert "every_sensor_is_mapped warns: unknown sensors 1" in sink.text
    assert UNMAPPED in sink.text
    nights.bucket.write("more.csv", row("2013-10-10 13:00:00+02:00", UNMAPPED))
    nights.reload()
    nights.look()
    assert len(sink.messages) == 1
    nights.bucket.write("another.csv", row("2013-10-10 13:00:00+02:00", UNMAPPED.replace("9", "8")))
    nights.reload()
    nights.look()
    assert sink.titles == ["Sensors: 1 check warns"] * 2


def test_a_check_that_fails_a_run_is_named_and_is_not_taken_for_the_error(nights: Nights, sink: Sink) -> None:
    nights.bucket.write("broken.csv", b"no;such;columns\n1;2;3\n")
    assert not nights.reload().success
    nights.look()
    assert sink.titles == ["Sensors: the run failed, 1 check failed"]
    assert "Checks of the data failed, see below." in sink.text
    assert "no_file_is_quarantined failed: files quarantined 1" in sink.text


def test_a_feed_that_stopped_is_told_with_the_time_of_its_last_reading(
    nights: Nights, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = NOW - timedelta(days=3)
    load_at(nights.bucket, monkeypatch, stopped, NOW - timedelta(days=2))
    assert not nights.reload().success
    nights.look()
    assert f"last reading {stopped.astimezone(BERLIN):%Y-%m-%d %H:%M}" in sink.text


def test_a_failed_run_is_told_with_its_first_error(
    nights: Nights, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        try:
            int("the first one")
        except ValueError as error:
            raise RuntimeError("a later one") from error

    monkeypatch.setattr("iot_pipeline.defs.assets.load_timeseries", fail)
    nights.reload()
    nights.look()
    nights.look()
    assert sink.titles == ["Sensors: the run failed"]
    assert "ValueError: invalid literal for int() with base 10: 'the first one'" in sink.text
    assert "Traceback" not in sink.text


def test_a_run_that_was_killed_says_so(nights: Nights, sink: Sink) -> None:
    run = nights.instance.create_run_for_job(definitions_on("", Path()).resolve_job_def("reload"))
    nights.instance.report_run_failed(run, "The run's process was killed. What it had committed is kept.")
    nights.look()
    assert "The run's process was killed." in sink.text


def test_a_run_that_dagster_starts_once_more_says_nothing(nights: Nights, sink: Sink) -> None:
    job = definitions_on("", Path()).resolve_job_def("reload")
    retried = nights.instance.create_run_for_job(job, tags={"dagster/will_retry": "true"})
    nights.instance.report_run_failed(retried, "killed")
    assert nights.look() == "Everybody has been told of everything."
    # Dagster gives up on it after all.
    nights.instance.add_run_tags(retried.run_id, {"dagster/will_retry": "false"})
    nights.look()
    assert sink.titles == ["Sensors: the run failed"]


def test_what_the_checks_of_a_killed_run_said_is_told_with_the_run_that_goes_on_from_it(
    nights: Nights, sink: Sink
) -> None:
    nights.bucket.write("unmapped.csv", row("2013-10-10 12:00:00+02:00", UNMAPPED))
    killed = nights.reload().run_id
    nights.instance.add_run_tags(killed, {"dagster/will_retry": "true"})
    job = definitions_on("", Path()).resolve_job_def("reload")
    going_on = nights.instance.create_run_for_job(job, parent_run_id=killed, root_run_id=killed)
    nights.instance.report_run_failed(going_on, "killed again")
    nights.look()
    assert sink.titles == ["Sensors: the run failed, 1 check warns"]
    assert "every_sensor_is_mapped warns" in sink.text


def test_runs_on_another_warehouse_and_of_other_jobs_say_nothing(nights: Nights, sink: Sink) -> None:
    locations = definitions_on("", Path())
    elsewhere = {"iot_pipeline/warehouse": "/another/one"}
    for job, tags in (("reload", elsewhere), ("tidy_up", {})):
        run = nights.instance.create_run_for_job(locations.resolve_job_def(job), tags=tags)
        nights.instance.report_run_failed(run, "killed")
    assert nights.look() == "Everybody has been told of everything."
    assert sink.messages == []


def test_without_urls_nobody_is_told_then_or_later(
    nights: Nights, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as unset:
        unset.delenv("IOT_ALERT_URLS")
        nights.bucket.write("broken.csv", b"no;such;columns\n1;2;3\n")
        nights.reload()
        assert nights.look() == "Nobody is to be told: IOT_ALERT_URLS is not set."
    assert nights.look() == "Everybody has been told of everything."
    assert sink.messages == []


def test_where_the_warehouse_is_written_to_the_sensor_tries_again_in_a_minute(
    nights: Nights, sink: Sink
) -> None:
    nights.bucket.write("new.csv", *day_of(10, spike=True))
    nights.reload()
    with open_warehouse(nights.bucket.warehouse).writing("alerts"):
        assert nights.look().endswith("try again when it is done. It is tried again in a minute.")
    nights.look()
    assert len(sink.messages) == 1


def test_status_says_when_people_were_told_and_what_waits(
    nights: Nights, sink: Sink, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IOT_WAREHOUSE", str(nights.bucket.warehouse))
    sink.is_up = False
    nights.bucket.write("new.csv", *day_of(10, spike=True))
    nights.reload()
    nights.look()
    assert main(["status"]) == 0
    assert "alerts:        none sent, 1 waiting since 20" in capsys.readouterr().out
    sink.is_up = True
    nights.look()
    assert main(["status"]) == 0
    assert "alerts:        the last one was sent at 20" in capsys.readouterr().out
