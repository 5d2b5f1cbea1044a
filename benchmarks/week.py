"""Play a week of nights on a bucket that grows and goes wrong; print what an engineer is told each morning.

    python benchmarks/week.py

A building of 24 sensors, two months of readings, then seven nights with a fault each. The source is an S3
bucket on loopback, the nights are runs of the job `reload`, and the messages arrive at a web service on
loopback. Only the waiting between Dagster's retries is left out. The week ends with the last Sunday of
October, which has 25 hours. Needs what tests need (`pip install -r requirements-dev.txt`).
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import NAMESPACE_DNS, uuid5

import boto3
import dagster as dg
import numpy as np

from iot_pipeline.berlin import BERLIN
from iot_pipeline.defs.alerts import alerts
from iot_pipeline.defs.orphans import fail_orphaned_runs
from iot_pipeline_tests.alert_sink import Sink, running_sink
from iot_pipeline_tests.runs import definitions_on, measurements_in
from iot_pipeline_tests.s3_server import FaultyProxy, running_proxy, running_s3_server

MONDAY = date(2013, 10, 21)
HISTORY = timedelta(days=60)
ROOMS = [f"{floor}{room:02}" for floor in (1, 2, 3) for room in range(1, 9)]
SENSORS = {f"room_{room}": str(uuid5(NAMESPACE_DNS, room)) for room in ROOMS}
STEP = timedelta(minutes=10)
SHIFTED = "room_205"
BUCKET = "building"
ERROR_PAGE = "<html><body><h1>502 Bad Gateway</h1></body></html>"
HOME = Path(__file__).parents[1] / "dagster_home" / "dagster.yaml"


class Building:
    """The readings of all rooms: a rhythm of the day, a memory of the last minutes, and what goes wrong."""

    def __init__(self) -> None:
        """Draw the readings of the whole time."""
        start = datetime.combine(MONDAY - HISTORY, time(), BERLIN).timestamp()
        end = datetime.combine(MONDAY + timedelta(days=7), time(), BERLIN).timestamp()
        self.seconds = np.arange(start, end, STEP.total_seconds())
        draw = np.random.default_rng(20131021)
        self.values = {}
        for room in SENSORS:
            noise = draw.normal(0, 0.08, len(self.seconds))
            for position in range(1, len(noise)):
                noise[position] += 0.85 * noise[position - 1]
            rhythm = 1.5 * np.sin(2 * np.pi * (self.seconds / 86400 - draw.uniform(0.3, 0.4)))
            self.values[room] = draw.uniform(19, 23) + rhythm + noise
        shifted = self.seconds >= datetime.combine(MONDAY + timedelta(days=1), time(10), BERLIN).timestamp()
        self.values[SHIFTED][shifted] += 2.5

    def csv_of(self, start: datetime, end: datetime, *, dark: tuple[datetime, datetime] | None = None) -> str:
        """Return the readings of a range as the backend writes them, by Berlin's clock without an offset."""
        chosen = (self.seconds >= start.timestamp()) & (self.seconds < end.timestamp())
        if dark:
            chosen &= (self.seconds < dark[0].timestamp()) | (self.seconds >= dark[1].timestamp())
        lines = ["timestamp;sensor_uuid;sensor_value"]
        for position in np.flatnonzero(chosen):
            clock = f"{datetime.fromtimestamp(self.seconds[position], BERLIN):%Y-%m-%d %H:%M:%S}"
            lines += [f"{clock};{uuid};{self.values[room][position]:.3f}" for room, uuid in SENSORS.items()]
        return "\n".join(lines) + "\n"

    def day(self, day: date) -> str:
        """Return the readings of a whole day."""
        return self.csv_of(_at(day, 0), _at(day + timedelta(days=1), 0))


class Week:
    """The bucket, the nights and the mornings."""

    def __init__(self, directory: Path, store: FaultyProxy, sink: Sink, instance: dg.DagsterInstance) -> None:
        """Start with an empty bucket."""
        self.directory, self.store, self.sink, self.instance = directory, store, sink, instance
        self.building = Building()
        self.cursor: str | None = None
        self.definitions = definitions_on(f"s3://{BUCKET}", directory / "warehouse")

    def put(self, name: str, text: str) -> None:
        """Let the backend write a file."""
        boto3.client("s3").put_object(Bucket=BUCKET, Key=f"Timeseries/{name}", Body=text.encode())

    def put_day(self, day: date) -> None:
        """Let the backend write the file of a day."""
        self.put(f"{day}.csv", self.building.day(day))

    def run(self) -> bool:
        """Run the job as the schedule does; return whether it succeeded."""
        job = self.definitions.resolve_job_def("reload")
        with patch.object(dg.RetryPolicy, "calculate_delay", lambda *_: 0):
            return job.execute_in_process(instance=self.instance, raise_on_error=False).success

    def run_and_cut_the_power(self) -> None:
        """Start the job in a process of its own, kill it while it loads, mark it as `orphaned_runs` does."""
        command = [sys.executable, "-m", "dagster", "job", "execute"]
        command += ["-m", "iot_pipeline.definitions", "-j", "reload"]
        fragments = self.directory / "warehouse" / "bronze"
        known = set(fragments.rglob("*"))
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and set(fragments.rglob("*")) <= known:
            pass
        assert process.poll() is None, "the run ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert fail_orphaned_runs(self.instance)

    def morning(self, title: str, what: str, *outcomes: str) -> None:
        """Let the sensor look twice, and print what has arrived."""
        messages, heartbeats = len(self.sink.messages), self.sink.heartbeats
        for _ in range(2):
            with dg.build_sensor_context(
                instance=self.instance,
                cursor=self.cursor,
                resources={"measurements": measurements_in(self.directory / "warehouse")},
            ) as context:
                alerts(context)
                self.cursor = context.cursor
        called = ", the heartbeat was called" if self.sink.heartbeats > heartbeats else ""
        print(f"\n## {title}: {what}\n\nThe night: {', then '.join(outcomes)}{called}.")
        for message in self.sink.messages[messages:]:
            pictures = f" (with {len(message['attachments'])} picture)" if message["attachments"] else ""
            print(f"\n> **{message['title']}**{pictures}")
            print(textwrap.indent(message["message"].strip(), "> ", lambda _: True))
        if len(self.sink.messages) == messages:
            print("\nNobody was told anything.")


def play(week: Week) -> None:
    """Play the nights."""
    building, days = week.building, [MONDAY + timedelta(days=number) for number in range(7)]

    def outcome() -> str:
        return "the run succeeded" if week.run() else "the run failed"

    client = boto3.client("s3")
    place: Any = {"LocationConstraint": os.environ["AWS_REGION"]}
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=place)
    rows = "".join(f"{room};{uuid};{room[5]}\n" for room, uuid in SENSORS.items())
    mapping = f"sensor_name;sensor_uuid;floor\n{rows}"
    client.put_object(Bucket=BUCKET, Key="mapping/mapping.csv", Body=mapping.encode())
    for number in range(HISTORY.days):
        week.put_day(MONDAY - HISTORY + timedelta(days=number))
    week.morning("Monday", "the first load, two months of readings", outcome())

    week.put_day(days[0])
    week.morning("Tuesday", "an ordinary day", outcome())

    week.put(f"{days[1]}.csv", building.csv_of(_at(days[1], 0), _at(days[1], 18)))
    week.morning("Wednesday", f"{SHIFTED} has shifted at 10:00, the evening's file is late", outcome())

    week.put(f"{days[1]}-evening.csv", building.csv_of(_at(days[1], 18), _at(days[2], 0)))
    week.put(f"{days[2]}.csv", ERROR_PAGE)
    week.morning("Thursday", "the late file has come, the new one is an error page", outcome())

    week.put_day(days[2])
    week.put_day(days[3])
    week.store.faults, week.store.listing_faults = ["503"] * 999, ["503"] * 999
    week.morning("Friday", "the file is mended, but the store was away all night", outcome())

    week.store.faults, week.store.listing_faults = [], []
    week.put_day(days[4])
    week.run_and_cut_the_power()
    week.morning(
        "Saturday",
        "the store is back, a power cut in the middle of the load",
        "the run was killed",
        outcome(),
    )

    dark = (_at(days[5], 14), _at(days[5], 17))
    week.put(f"{days[5]}.csv", building.csv_of(_at(days[5], 0), _at(days[6], 0), dark=dark))
    week.morning("Sunday", "the building was without power from 14:00 to 17:00", outcome())

    week.put_day(days[6])
    week.morning("Monday", "an ordinary day of 25 hours", outcome())


@contextmanager
def environment(directory: Path, store: FaultyProxy, sink: Sink) -> Iterator[None]:
    """Set what the project and S3's clients read, for this process and the ones it starts."""
    variables = {
        "AWS_ENDPOINT_URL_S3": store.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_MAX_ATTEMPTS": "1",
        "DAGSTER_HOME": str(directory),
        "IOT_SOURCE": f"s3://{BUCKET}",
        "IOT_WAREHOUSE": str(directory / "warehouse"),
        "IOT_ALERT_URLS": sink.url,
        "IOT_HEARTBEAT_URL": sink.heartbeat_url,
        "IOT_EXPLORE_URL": "http://127.0.0.1:8080",
    }
    with patch.dict(os.environ, variables):
        yield


def _at(day: date, hour: int) -> datetime:
    return datetime.combine(day, time(hour), BERLIN)


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        running_s3_server() as server,
        running_proxy(server) as store,
        running_sink() as sink,
        environment(Path(name), store, sink),
    ):
        shutil.copy(HOME, name)
        with dg.DagsterInstance.get() as instance:
            play(Week(Path(name), store, sink, instance))


if __name__ == "__main__":
    main()
