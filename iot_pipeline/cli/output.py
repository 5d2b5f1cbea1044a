"""Writes rows as a table on the terminal, or as CSV, JSON, Parquet or text to a file or a pipe.

A file or a pipe gets every row, in batches; a terminal gets only the first rows of a long table.
"""

import csv
import io
import json
import math
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from iot_pipeline.kinds import counted

SUFFIXES = {".csv": "csv", ".json": "json", ".parquet": "parquet", ".txt": "table"}
"""The format for each file suffix."""
SCREEN_ROWS = 40
BATCH_ROWS = 100_000
_MIN_WIDTH = 20  # in characters, of a column with wrapped text
_SEPARATOR = "  "


@dataclass(frozen=True, slots=True)
class Output:
    """The format and destination of rows.

    Attributes:
        format: ``table``, ``csv``, ``json`` or ``parquet``.
        path: The file; None for stdout.
    """

    format: str
    path: Path | None

    @classmethod
    def choose(cls, format_: str | None, path: Path | None) -> "Output":
        """Choose the requested format, else that of the file's suffix, else a table.

        Raises:
            ValueError: The suffix is unknown, the path can't be a file, or there is no file for Parquet.
        """
        if path:
            return cls(check_file(path, SUFFIXES, format_), path)
        if format_ == "parquet":
            raise ValueError("a Parquet file needs a name: add -o FILE")
        return cls(format_ or "table", None)

    def write(self, rows: pa.RecordBatchReader) -> None:
        """Write rows. A file appears under its name only once it is complete.

        Raises:
            ValueError: The format can't hold a column's type.
            OSError: The file can't be written.
        """
        if self.path is None and self.format == "table" and sys.stdout.isatty():
            _show(rows)
            return
        write = {"table": _write_table, "csv": _write_csv, "json": _write_json, "parquet": _write_parquet}
        try:
            with writing(self.path) as file:
                write[self.format](rows, file)
        except pa.ArrowNotImplementedError as error:
            raise ValueError(f"{self.format} can't hold these columns: {error}") from error


def check_file(path: Path, suffixes: dict[str, str], format_: str | None = None) -> str:
    """Return the format for a file to be written: the requested one, else that of its suffix.

    Raises:
        ValueError: The suffix is unknown, or the path can't be a file.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a directory: name a file in it")
    if not path.parent.is_dir():
        raise ValueError(f"there is no directory {path.parent}: create it first, or choose another file")
    format_ = format_ or suffixes.get(path.suffix.lower())
    if format_ is None:
        raise ValueError(f"can't tell the format of {path}: its name must end in {' or '.join(suffixes)}")
    return format_


@contextmanager
def writing(path: Path | None) -> Iterator[IO[bytes]]:
    """Open stdout, or a file that appears under its name only if the block succeeds.

    Raises:
        OSError: The file can't be written.
    """
    if path is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        return
    in_place = path.is_symlink() or (path.exists() and not path.is_file())  # like /dev/stdout
    part = path if in_place else path.with_name(f".{path.name}.part")
    try:
        file = part.open("wb")
    except OSError as error:
        raise OSError(f"can't write {path}: {error.strerror}") from error
    try:
        with file:
            yield file
        if not in_place:
            part.replace(path)
    finally:
        if not in_place:
            part.unlink(missing_ok=True)


def _write_parquet(rows: pa.RecordBatchReader, file: IO[bytes]) -> None:
    with pq.ParquetWriter(file, rows.schema, compression="zstd") as writer:
        for batch in rows:
            writer.write_batch(batch)


def _write_csv(rows: pa.RecordBatchReader, file: IO[bytes]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(rows.schema.names)
        for batch in rows:
            writer.writerows(zip(*map(_csv_values, batch.columns), strict=True))
    finally:
        text.detach()  # otherwise it would close the file


def _csv_values(column: pa.Array) -> list[Any]:
    """Return values that ``csv`` writes exactly: numbers and strings unchanged, the rest as text."""
    values = _values(column)
    if _is_number(column.type) or pa.types.is_string(column.type):
        return values
    return [_text(value) for value in values]


def _format_times(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Format times like ``2013-10-05 00:08:00+02:00``, with as many decimals as needed."""
    zone = column.type.tz
    with suppress(pa.ArrowInvalid):  # fractions of a second would be lost
        column = column.cast(pa.timestamp("s", zone))
    return pc.strftime(column, format=f"%Y-%m-%d %H:%M:%S{'%Ez' if zone else ''}")


def _write_json(rows: pa.RecordBatchReader, file: IO[bytes]) -> None:
    names = rows.schema.names
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"JSON can't hold two columns {twice[0]!r}: rename one of them with AS")
    before = "[\n"
    for batch in rows:
        for row in batch.to_pylist():
            file.write(f"{before}{json.dumps(_jsonable(row), ensure_ascii=False)}".encode())
            before = ",\n"
    file.write(b"\n]\n" if before == ",\n" else b"[]\n")


def _jsonable(value: Any) -> Any:
    """Return a value that JSON supports: times as ISO 8601, numbers that aren't finite as null."""
    match value:
        case float() | Decimal() if not math.isfinite(value):
            return None
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case date() | time():
            return value.isoformat()
        case dict():
            return {key: _jsonable(part) for key, part in value.items()}
        case list() | tuple():  # a tuple is an entry of a map
            return [_jsonable(part) for part in value]
        case _:
            return value if isinstance(value, bool | int | float | str | None) else _text(value)


def _write_table(rows: pa.RecordBatchReader, file: IO[bytes]) -> None:
    """Write aligned columns; later batches may widen them."""
    widths = [len(name) for name in rows.schema.names]
    header = [rows.schema.names]
    total = 0
    for batch in chain(rows, [rows.schema.empty_table()]):
        total += batch.num_rows
        cells = _cells(batch)
        lines = [*header, *zip(*cells, strict=True)]
        header = []
        widths = [max(width, *map(len, column), 0) for width, column in zip(widths, cells, strict=True)]
        aligned = [
            f"{{:{'>' if _is_number(field.type) else '<'}{width}}}"
            for field, width in zip(rows.schema, widths, strict=True)
        ]
        pattern = _SEPARATOR.join(aligned)
        file.write("".join(f"{pattern.format(*line).rstrip()}\n" for line in lines).encode())
    file.write(f"({counted(total, 'row')})\n".encode())


def _show(rows: pa.RecordBatchReader) -> None:
    """Print the first rows on a terminal; wrap wide text, and list columns vertically if they don't fit."""
    from rich.console import Console  # noqa: PLC0415 - only needed for a terminal
    from rich.table import Table  # noqa: PLC0415

    first = _first_rows(rows, SCREEN_ROWS + 1)
    shown = first.slice(0, SCREEN_ROWS)
    cells = _cells(shown)
    names = rows.schema.names
    console = Console(markup=False, emoji=False, highlight=False, width=shutil.get_terminal_size().columns)
    widths = [
        min(max(len(word) for cell in [name, *column] for word in cell.split()), _MIN_WIDTH)
        for name, column in zip(names, cells, strict=True)
    ]
    least = sum(widths) + len(_SEPARATOR) * (len(names) - 1)
    if least <= console.width:
        table = Table(box=None, pad_edge=False, padding=(0, len(_SEPARATOR), 0, 0), header_style="bold")
        for field, width in zip(rows.schema, widths, strict=True):
            table.add_column(
                field.name,
                justify="right" if _is_number(field.type) else "left",
                min_width=width,
                overflow="fold",
            )
        for row in zip(*cells, strict=True):
            table.add_row(*row)
        console.print(table)
    else:
        for row in zip(*cells, strict=True):
            table = Table(box=None, pad_edge=False, show_header=False, padding=(0, len(_SEPARATOR), 0, 0))
            table.add_column(style="bold", no_wrap=True)
            table.add_column(overflow="fold")
            for name, cell in zip(names, row, strict=True):
                table.add_row(name, cell)
            console.print(table, "")
    console.print(
        f"(the first {SCREEN_ROWS} rows; all of them: -o FILE.csv, or a pipe)"
        if first.num_rows > SCREEN_ROWS
        else f"({counted(shown.num_rows, 'row')})"
    )


def _first_rows(rows: pa.RecordBatchReader, count: int) -> pa.Table:
    batches: list[pa.RecordBatch] = []
    for batch in rows:
        batches.append(batch)
        if sum(part.num_rows for part in batches) >= count:
            break
    return pa.Table.from_batches(batches, rows.schema).slice(0, count)


def _cells(rows: pa.Table | pa.RecordBatch) -> list[list[str]]:
    """Return each column as text."""
    return [[_text(value) for value in _values(column)] for column in rows.columns]


def _values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Return Python values, except times, which become text."""
    values: list[Any] = (_format_times(column) if pa.types.is_timestamp(column.type) else column).to_pylist()
    return values


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _text(value: Any) -> str:
    """Return a value as a single line of text, with control characters escaped and all others as they are."""
    match value:
        case None:
            text = ""
        case float():
            text = f"{value:.10g}"
        case bytes():
            text = value.hex()
        case pa.MonthDayNano():  # an interval
            rest = timedelta(days=value.days, microseconds=value.nanoseconds / 1000)
            text = f"{value.months} months {rest}" if value.months else str(rest)
        case dict() | list():
            text = json.dumps(_jsonable(value), ensure_ascii=False)
        case _:
            text = str(value)
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
