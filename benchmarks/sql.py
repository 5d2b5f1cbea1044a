"""SQL over the views of connect(), by sensor_name, beside plain DuckDB connections; print medians and ratios.

    python benchmarks/sql.py --warehouse DIR    # loaded with mapping and timeseries

The plain connection is told the uuids: once it reads all files of the table, once those that hold the answer.
"""

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from iot_pipeline import connect
from iot_pipeline.warehouse import Warehouse, open_warehouse
from iot_pipeline.warehouse.state import State, read_state
from iot_pipeline.warehouse.views import read_parquet_sql

WARMING = 3
"""Rounds that don't count."""


@dataclass(frozen=True)
class SqlQuestion:
    """A question in SQL.

    Attributes:
        ours: As people ask the views of connect().
        plain: As one asks files, which stand for ``{rows}``, by uuid.
        paths: The files that hold the answer; None for all.
    """

    ours: str
    plain: str
    paths: list[str] | None = None


def sql_questions(state: State, number: int) -> dict[str, SqlQuestion]:
    """Return questions in SQL about sensors and a month that a number draws."""
    draw = random.Random(number)  # noqa: S311 - repeatable
    sensors = list(state.sensors)
    first = draw.randrange(len(sensors) - 9)
    names = sensors[first : first + 10]
    uuids = [state.sensors[name] for name in names]
    month = draw.choice(list(state.months)[1:-1])
    day = f"timestamp BETWEEN '{month}-05' AND '{month}-06'"
    weeks = f"timestamp BETWEEN '{month}-01' AND '{month}-28'"

    def rows_of(count: int, when: str, start: str, end: str) -> SqlQuestion:
        by_name = "IN ('" + "', '".join(names[:count]) + "')" if count > 1 else f"= '{names[0]}'"
        by_uuid = "IN ('" + "', '".join(uuids[:count]) + "')" if count > 1 else f"= '{uuids[0]}'"
        return SqlQuestion(
            f"SELECT timestamp, sensor_value FROM measurements WHERE sensor_name {by_name} AND {when}",
            f"SELECT timestamp, sensor_value FROM {{rows}} WHERE sensor_uuid {by_uuid} AND {when}",
            state.paths(uuids[:count], start, end),
        )

    hourly = "date_trunc('hour', timestamp) AS hour, avg(sensor_value)"
    last = "max(timestamp), arg_max(sensor_value, timestamp)"
    return {
        "a sensor's day": rows_of(1, day, month, month),
        "a sensor's month": rows_of(1, weeks, month, month),
        "ten sensors' month": rows_of(10, weeks, month, month),
        "three years of a sensor": rows_of(1, "true", "", "9999-12"),
        "count(*)": SqlQuestion("SELECT count(*) FROM measurements", "SELECT count(*) FROM {rows}"),
        "hourly means of all, a month": SqlQuestion(
            f"SELECT sensor_name, {hourly} FROM measurements WHERE {weeks} GROUP BY ALL",
            f"SELECT sensor_uuid, {hourly} FROM {{rows}} WHERE {weeks} GROUP BY ALL",
            [file.url for file in state.months[month]],
        ),
        "last reading of each sensor": SqlQuestion(
            "SELECT sensor_uuid, timestamp, sensor_value FROM last_readings",
            f"SELECT sensor_uuid, {last} FROM {{rows}} GROUP BY sensor_uuid",
        ),
    }


def report_sql(warehouse: Warehouse, count: int) -> None:
    """Time SQL over the views beside a plain connection, in turns; print medians (minima) and ratios."""
    state = read_state(warehouse)
    plain = duckdb.connect(":memory:")
    plain.execute("SET GLOBAL TimeZone = 'Europe/Berlin'")
    plain.execute("SET parquet_metadata_cache = true")
    every_row = read_parquet_sql([file.url for file in state.timeseries.files])
    times = {
        "connecting": [
            [_opening(lambda: connect(warehouse.url)), _opening(lambda: duckdb.connect(":memory:"))]
            for _ in range(count + WARMING)
        ]
    }
    print("\n| SQL | connect(), ms (min) | DuckDB, all files | ratio | DuckDB, needed files | ratio |")
    print("|---|---|---|---|---|---|")
    with connect(warehouse.url) as connection:
        for number in range(count + WARMING):
            for name, question in sql_questions(state, number).items():
                needed = read_parquet_sql(question.paths) if question.paths else ""
                ways = [(connection, question.ours), (plain, question.plain.format(rows=every_row))]
                ways += [(plain, question.plain.format(rows=needed))] if needed else []
                answers = [_milliseconds(partial(_count_rows, *way)) for way in ways]
                lengths = {length for _, length in answers}
                assert len(lengths) == 1, f"the ways disagree on {name}: {lengths}"
                times.setdefault(name, []).append([milliseconds for milliseconds, _ in answers])
    for name, found in times.items():
        medians, least = np.median(found[WARMING:], axis=0), np.min(found[WARMING:], axis=0)
        cells = [f"{median:.1f} ({low:.1f})" for median, low in zip(medians, least, strict=True)]
        ratios = [f"{medians[0] / median:.2f}" for median in medians]
        row = [cells[0], *(text for pair in zip(cells[1:], ratios[1:], strict=True) for text in pair)]
        print(f"| {name} | {' | '.join([*row, '', ''][:5])} |")


def _opening(connect_to: Callable[[], duckdb.DuckDBPyConnection]) -> float:
    milliseconds, connection = _milliseconds(connect_to)
    connection.close()
    return milliseconds


def _milliseconds(act: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    answer = act()
    return (time.perf_counter() - start) * 1000, answer


def _count_rows(connection: duckdb.DuckDBPyConnection, statement: str) -> int:
    return int(connection.sql(statement).to_arrow_table().num_rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--warehouse", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=20)
    options = parser.parse_args()
    report_sql(open_warehouse(options.warehouse), options.questions)


if __name__ == "__main__":
    main()
