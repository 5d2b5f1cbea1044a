"""The shell: ``iot-pipeline query | sql | plot | status | sample-data | upload``.

Errors are one line on stderr and exit code 1; wrong usage is exit code 2.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from iot_pipeline.errors import IotPipelineError

if TYPE_CHECKING:
    import pandas as pd

TABLE_ROWS = 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read has seen enough
    except KeyboardInterrupt:
        return 130  # as a shell says it
    except (IotPipelineError, ValueError, OverflowError, OSError) as error:
        print(f"iot-pipeline: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="iot-pipeline", description="Query and picture sensor measurements."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    query = commands.add_parser("query", help="a sensor's readings in a range of time, both ends included")
    query.add_argument("sensor", metavar="SENSOR", help="like sensor_00000")
    query.add_argument("start", metavar="START", help="like 2013-01-01; without a zone: Europe/Berlin")
    query.add_argument("end", metavar="END")
    query.add_argument("--format", choices=["table", "csv", "parquet", "json"], default="table")
    query.add_argument("-o", "--output", type=Path, metavar="FILE", help="instead of the screen")
    query.set_defaults(run=_query)

    sql = commands.add_parser(
        "sql",
        help="a query over sensors, measurements, source_files, rejected_rows, anomalies, sensor_models",
    )
    sql.add_argument("statement", metavar="STATEMENT")
    sql.set_defaults(run=_sql)

    plot = commands.add_parser("plot", help="a picture of a sensor's readings, model and anomalies")
    plot.add_argument("sensor", metavar="SENSOR")
    plot.add_argument("start", metavar="START", nargs="?")
    plot.add_argument("end", metavar="END", nargs="?")
    plot.add_argument("-o", "--output", type=Path, metavar="FILE", help="by default SENSOR.png")
    plot.set_defaults(run=_plot)

    status = commands.add_parser("status", help="what has been loaded and found")
    status.set_defaults(run=_status)

    explore = commands.add_parser("explore", help="a web page on which to look at any sensor, at any time")
    explore.add_argument("--host", default="127.0.0.1", help="by default only this machine reaches the page")
    explore.add_argument("--port", type=int, default=8080)
    explore.set_defaults(run=_explore)

    sample = commands.add_parser("sample-data", help="write a bucket of challenge-like CSV files")
    sample.add_argument("--sensors", type=_at_least(1), default=10, metavar="N")
    sample.add_argument("--days", type=_at_least(1), default=30, metavar="D")
    sample.add_argument("--seed", type=_at_least(0), default=0, metavar="S")
    sample.add_argument(
        "--start",
        type=_time,
        metavar="TIME",
        help="of the first readings, by default 2012-12-31T23:53; without a zone: Europe/Berlin",
    )
    sample.add_argument("directory", type=Path, metavar="DIR")
    sample.set_defaults(run=_sample_data)

    upload = commands.add_parser("upload", help="put a directory's files into an S3 bucket")
    upload.add_argument("directory", type=Path, metavar="DIR")
    upload.add_argument("bucket", metavar="s3://BUCKET[/PREFIX]")
    upload.set_defaults(run=_upload)
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text!r}")
        return int(text)

    return read


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"write it like 2013-01-31T12:00, not {text!r}") from None


def _query(options: argparse.Namespace) -> None:
    from iot_pipeline.query import get_measurements

    if options.format == "parquet" and options.output is None:
        raise ValueError("a Parquet file needs a name: add -o FILE")
    rows = get_measurements(options.sensor, options.start, options.end)
    if options.format == "parquet":
        rows.to_parquet(options.output)
        return
    text = {"table": _table, "csv": _csv, "json": _json}[options.format](rows)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


def _csv(rows: "pd.DataFrame") -> str:
    return rows.to_csv(index=False).rstrip("\n")


def _json(rows: "pd.DataFrame") -> str:
    moments = [moment.isoformat() for moment in rows["timestamp"]]
    return json.dumps(
        [
            {"timestamp": moment, "sensor_value": value}
            for moment, value in zip(moments, rows["sensor_value"].tolist(), strict=True)
        ]
    )


def _table(rows: "pd.DataFrame") -> str:
    if rows.empty:
        return "no readings in that range of time"
    text = rows.to_string(index=False, max_rows=TABLE_ROWS)
    return f"{text}\n({len(rows):,} rows)"


def _sql(options: argparse.Namespace) -> None:
    import duckdb

    from iot_pipeline.query import connect

    with connect() as connection:
        try:
            result = connection.sql(options.statement)
            if result is not None:
                print(result)  # only now it is computed
        except duckdb.Error as error:
            raise ValueError(error) from error


def _plot(options: argparse.Namespace) -> None:
    from iot_pipeline.drawing import draw_sensor

    picture = draw_sensor(options.sensor, options.start, options.end)
    path = options.output or Path(f"{options.sensor}.png")
    path.write_bytes(picture)
    print(path)


def _status(_options: argparse.Namespace) -> None:
    from iot_pipeline.status import describe, read_status

    print(describe(read_status()))


def _explore(options: argparse.Namespace) -> None:
    from iot_pipeline.explore import serve

    serve(options.host, options.port)


def _sample_data(options: argparse.Namespace) -> None:
    from iot_pipeline.sample_data import FIRST_READING, write_sample_bucket

    report = write_sample_bucket(
        options.directory,
        sensors=options.sensors,
        days=options.days,
        seed=options.seed,
        start=options.start or FIRST_READING,
    )
    size = f"{report.bytes / 1e6:,.1f} MB"
    print(f"{options.directory}: {report.rows:,} readings in {report.files:,} files, {size}")


def _upload(options: argparse.Namespace) -> None:
    from iot_pipeline.upload import upload

    report = upload(options.directory, options.bucket)
    print(f"{options.bucket}: {report.uploaded:,} files uploaded, {report.unchanged:,} there already")


if __name__ == "__main__":
    sys.exit(main())
