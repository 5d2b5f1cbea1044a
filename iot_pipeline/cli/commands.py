"""The shell, ``iot-pipeline``: each command with its options and what it prints.

Errors are one line on stderr and exit code 1; wrong usage is exit code 2, an interrupt 130.
"""

import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from iot_pipeline.errors import IotPipelineError

if TYPE_CHECKING:
    from iot_pipeline.cli.output import Output
    from iot_pipeline.warehouse.buckets import Every

STAGES = ("mapping", "timeseries", "anomalies", "report")
"""What a load consists of."""


class _Commands(click.Group):
    """Turns the errors of all commands into a line and an exit code."""

    def invoke(self, ctx: click.Context) -> None:
        try:
            super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read has seen enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except KeyboardInterrupt:
            ctx.exit(130)  # as a shell says it
        except (IotPipelineError, ValueError, OverflowError, OSError) as error:
            text = str(error)
            if isinstance(error, OSError) and error.filename:
                text = f"{error.filename}: {error.strerror}"
            click.echo(f"iot-pipeline: {' '.join(text.split())}", err=True)
            ctx.exit(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    try:
        return cli.main(arguments, prog_name="iot-pipeline", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code


@click.group(
    cls=_Commands,
    epilog="""\b
Shell completion, here of bash (or zsh_source, fish_source):
  eval "$(_IOT_PIPELINE_COMPLETE=bash_source iot-pipeline)"
""",
)
@click.version_option(package_name="iot-pipeline", message="%(prog)s %(version)s")
def cli() -> None:
    """Load, query and picture sensor measurements.

    IOT_SOURCE says where the CSV files are, IOT_WAREHOUSE where the tables are.
    """


def command(
    *examples: str, cls: type[click.Command] = click.Command
) -> Callable[[Callable[..., None]], click.Command]:
    """Add a command, called like its function, whose help ends in examples."""
    lines = ["\b", "Examples:" if len(examples) > 1 else "Example:", *(f"  {text}" for text in examples)]
    return cli.command(cls=cls, epilog="\n".join(lines))


def gives_rows(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a command that gives rows, which it gets as one ``output``."""

    @click.option(
        "--format",
        "format_",
        type=click.Choice(["table", "csv", "json", "parquet"]),
        help="By default the file's suffix says it; a table on the screen.",
    )
    @click.option(
        "-o",
        "--output",
        "path",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A .csv, .json, .parquet or .txt file, which gets every row.",
    )
    @wraps(command)
    def run(*, format_: str | None, path: Path | None, **others: Any) -> None:
        from iot_pipeline.cli.output import Output

        command(output=Output.choose(format_, path), **others)

    return run


def _read_stages(_context: click.Context, _option: click.Parameter, text: str | None) -> list[str]:
    stages = [stage.strip() for stage in text.split(",")] if text is not None else list(STAGES)
    if unknown := [stage for stage in stages if stage not in STAGES]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {','.join(STAGES)}")
    return stages


@command(
    "iot-pipeline query sensor_00000 2013-10-05 2013-10-06",
    "iot-pipeline query sensor_00000 sensor_00007 2013-10-01 2013-11-01 --every 1d -o days.csv",
)
@click.argument("sensors", nargs=-1, required=True, metavar="SENSOR...")
@click.argument("start")
@click.argument("end")
@click.option(
    "--every",
    type=click.Choice(["15min", "1h", "1d", "1w", "1mo"]),
    help="Sum up by Berlin's clock: n, mean, min, max, first and last.",
)
@gives_rows
def query(*, sensors: tuple[str, ...], start: str, end: str, every: "Every | None", output: "Output") -> None:
    """Give the readings of each SENSOR from START to END, both included.

    Times without a zone mean Europe/Berlin. A date, also as yesterday or '7 days ago', means its midnight.
    """
    from iot_pipeline.warehouse.query import get_measurements

    asked = sensors[0] if len(sensors) == 1 else sensors
    rows = get_measurements(asked, start, end, every=every, as_="arrow")
    output.write(rows.to_reader())
    if not rows.num_rows:
        from iot_pipeline.report import explain_no_readings

        for sensor in sensors:
            click.echo(explain_no_readings(sensor, get_measurements(sensor)), err=True)


@command(
    'iot-pipeline sql "SELECT sensor_name, model, n_anomalies FROM sensor_models"',
    'iot-pipeline sql "FROM measurements" -o everything.parquet',
)
@click.argument("statement")
@gives_rows
def sql(*, statement: str, output: "Output") -> None:
    """Run a SQL STATEMENT (DuckDB's dialect).

    There are sensors, measurements, last_readings, events, incidents, anomalies, sensor_models, annotations,
    source_files and rejected_rows; "DESCRIBE measurements" names the columns of one.
    """
    import duckdb

    from iot_pipeline.cli.output import BATCH_ROWS
    from iot_pipeline.warehouse.query import connect

    with connect() as connection:
        try:
            result = connection.sql(statement)
            if result is None:
                raise ValueError('there is no statement: write one like "SELECT count(*) FROM measurements"')
            output.write(result.to_arrow_reader(BATCH_ROWS))
        except duckdb.Error as error:
            raise ValueError(error) from error


@command(
    "iot-pipeline plot sensor_00000",
    "iot-pipeline plot sensor_00000 2013-10-05 2013-10-12 -o week.svg",
)
@click.argument("sensor")
@click.argument("start", required=False)
@click.argument("end", required=False)
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A .png, .svg or .pdf file; by default SENSOR.png.",
)
def plot(*, sensor: str, start: str | None, end: str | None, path: Path | None) -> None:
    """Draw the readings of SENSOR, its model and its anomalies.

    The model is fitted to all readings; START and END say which part is shown.
    """
    from iot_pipeline.cli.output import check_file, writing
    from iot_pipeline.report import draw_sensor

    path = path or Path(f"{sensor.replace('/', '_')}.png")
    picture_format = check_file(path, {".png": "png", ".svg": "svg", ".pdf": "pdf"})
    picture = draw_sensor(sensor, start, end, picture_format=picture_format)
    with writing(path) as file:
        file.write(picture)
    click.echo(path)


@command("iot-pipeline status")
def status() -> None:
    """Say what has been loaded and found, and when people were told of it."""
    from iot_pipeline.alerts import describe_outbox
    from iot_pipeline.warehouse.status import describe, read_status

    click.echo(describe(read_status()))
    click.echo(f"{'alerts:':<15}{describe_outbox()}")


@command("iot-pipeline alerts --test")
@click.option("--test", is_flag=True, required=True, help="Send everybody a message that says it is a test.")
def alerts(*, test: bool) -> None:
    """Send a message to everybody in IOT_ALERT_URLS."""
    from iot_pipeline.alerts import send_test
    from iot_pipeline.report import draw_sensor

    assert test  # noqa: S101 - required
    announcement = send_test(draw=draw_sensor)
    for label in announcement.sent:
        click.echo(f"sent to {label}")
    if announcement.waiting:
        raise ValueError(f"{', '.join(announcement.waiting.values())} did not take it: check that URL")


@command("iot-pipeline load", "iot-pipeline load --only mapping,timeseries --full-reload")
@click.option(
    "--only",
    "stages",
    callback=_read_stages,
    metavar="STAGES",
    help="Some of mapping,timeseries,anomalies,report; by default all of them.",
)
@click.option("--full-reload", is_flag=True, help="Start from nothing: hold only what the source holds now.")
@click.option(
    "--allow-empty", is_flag=True, help="Let a full reload empty the table if the source has no files."
)
def load(*, stages: list[str], full_reload: bool, allow_empty: bool) -> None:
    """Load all new and changed files of the source, judge the sensors and write the report.

    It does what Dagster's assets do, without Dagster, as for a cron job. Rows and files that can't be read
    are put into quarantine; the rest is loaded. Where a check of Dagster would fail as an error, it is named
    and the exit code is 1.
    """
    from iot_pipeline.cli.loading import load_stages

    if not load_stages(stages, full_reload=full_reload, allow_empty=allow_empty):
        click.get_current_context().exit(1)


@command("iot-pipeline sample-data --sensors 500 --days 1096 --seed 1 ~/bucket")
@click.option("--sensors", "n_sensors", type=click.IntRange(1), default=10, show_default=True, metavar="N")
@click.option("--days", type=click.IntRange(1), default=30, show_default=True, metavar="D")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="S")
@click.option(
    "--start",
    type=datetime.fromisoformat,
    metavar="TIME",
    help="Of the first readings, like 2013-01-31T12:00 (Europe/Berlin); by default 2012-12-31T23:53.",
)
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
def sample_data(*, n_sensors: int, days: int, seed: int, start: datetime | None, directory: Path) -> None:
    """Write a bucket of made-up sensors into the directory DIR."""
    from iot_pipeline.samples.bucket import FIRST_READING, write_sample_bucket

    report = write_sample_bucket(
        directory, sensors=n_sensors, days=days, seed=seed, start=start or FIRST_READING
    )
    size = f"{report.bytes / 1e6:,.1f} MB"
    click.echo(f"{directory}: {report.rows:,} readings in {report.files:,} files, {size}")


@command("iot-pipeline upload data/sample s3://bucket/prefix")
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.argument("bucket", metavar="s3://BUCKET[/PREFIX]")
def upload(*, directory: Path, bucket: str) -> None:
    """Put the files of the directory DIR into an S3 bucket."""
    from iot_pipeline.store import upload as upload_directory

    report = upload_directory(directory, bucket)
    click.echo(f"{bucket}: {report.uploaded:,} files uploaded, {report.unchanged:,} there already")


@command("iot-pipeline explore", "iot-pipeline explore --port 8081")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Others reach the page if it is 0.0.0.0."
)
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True)
def explore(*, host: str, port: int) -> None:
    """Serve a web page on which to look at any sensor, at any time, and to annotate events."""
    from iot_pipeline.explore import serve

    serve(host, port)
