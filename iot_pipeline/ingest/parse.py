"""From bytes to readings: the header, the lines, and the reason why a line is refused.

A file is parsed in pieces of whole lines. pyarrow splits and converts a piece at full speed; each *distinct*
timestamp and uuid is then judged once in Python, so the rules can be exact without costing a row anything.
Lines that pyarrow would misread (quotes, control characters, invalid UTF-8) are mended or refused before.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from iot_pipeline.clock import Timestamp, read_timestamp

COLUMNS = ("timestamp", "sensor_uuid", "sensor_value")
PIECE_BYTES = 16 * 2**20
RAW_BYTES = 1_000

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_VALUE = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_BOM = b"\xef\xbb\xbf"
_QUOTED_LINE = re.compile(rb'(?:"(?:[^"]|"")*"|[^";]*)(?:;(?:"(?:[^"]|"")*"|[^";]*))*')
_TEXT = pa.dictionary(pa.int32(), pa.string())
_NO_ROWS = pa.table({name: pa.array([], pa.null()) for name in COLUMNS})


class UnreadableFileError(ValueError):
    """The file as a whole is not a CSV of measurements; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A refused line.

    Attributes:
        line_number: Counted from 1, the header included.
        reason: One of few, so that they can be counted.
        raw: The line, cut to 1,000 bytes, with what is not UTF-8 escaped.
    """

    line_number: int
    reason: str
    raw: str


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole lines of a file without the header, and where they stand.

    Attributes:
        body: The lines.
        first_line: The number of the first one.
        n_lines: How many they are, blank ones included.
        too_long: The body is the start of one line that is longer than a piece.
    """

    body: bytes
    first_line: int
    n_lines: int
    too_long: bool = False


@dataclass(frozen=True, slots=True)
class Readings:
    """The accepted rows of a piece in the file's order.

    Attributes:
        sensor_uuid: Lower-case uuids, dictionary<int32, string>[n].
        instants: int64[n], microseconds since the epoch; the first pass where the clock repeats an hour.
        values: float64[n], finite.
        clock_codes: int32[n], the position of each row's timestamp in ``clock``.
        clock: What each distinct timestamp means.
    """

    sensor_uuid: pa.DictionaryArray
    instants: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    clock_codes: npt.NDArray[np.int32]
    clock: list[Timestamp | None]


@dataclass(slots=True)
class _Lines:
    """The lines of a piece while they are sorted into good and refused ones."""

    body: bytes
    first_line: int
    rejected: list[Rejected] = field(default_factory=list)

    def reject(self, position: int, reason: str, raw: bytes) -> None:
        self.rejected.append(Rejected(self.first_line + position, reason, readable(raw)))


def readable(raw: bytes) -> str:
    """Return raw bytes as a text that any tool can show, cut to 1,000 bytes."""
    return raw[:RAW_BYTES].decode("utf-8", errors="backslashreplace").replace("\0", "\\x00")


def read_header(stream: IO[bytes]) -> tuple[list[str], int]:
    """Read the header line.

    Args:
        stream: A binary file at its start; stands after the header afterwards.

    Returns:
        The columns' names and the number of the header line. No names when the file holds nothing.

    Raises:
        UnreadableFileError: The needed columns are not there, each once.
    """
    line_number = 1
    line = stream.readline(PIECE_BYTES)
    if line.startswith(b"\x1f\x8b"):
        raise UnreadableFileError("gzip data instead of text")
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableFileError("UTF-16 instead of UTF-8")
    line = line.removeprefix(_BOM)
    while line.isspace():
        line_number += 1
        line = stream.readline(PIECE_BYTES)
    if not line:
        return [], line_number
    text = line.decode("utf-8", errors="backslashreplace")
    names = [name.strip().strip('"').strip() for name in text.split(";")]
    missing = [name for name in COLUMNS if name not in names]
    if missing and any(name in text for name in COLUMNS) and len(names) == 1:
        raise UnreadableFileError("the delimiter is not ';'")
    if missing:
        raise UnreadableFileError(f"no column {', '.join(missing)} in the header {text.strip()[:100]!r}")
    twice = [name for name in COLUMNS if names.count(name) > 1]
    if twice:
        raise UnreadableFileError(f"column {', '.join(twice)} stands twice in the header")
    return names, line_number


def read_pieces(stream: IO[bytes], first_line: int, *, piece_bytes: int = PIECE_BYTES) -> Iterator[Piece]:
    """Cut the rest of a file into pieces of whole lines; needs memory for one piece only."""
    rest = b""
    while block := stream.read(piece_bytes):
        body = rest + block
        end = body.rfind(b"\n") + 1
        if end:
            n_lines = int(np.count_nonzero(np.frombuffer(body, np.uint8) == ord("\n")))
            yield Piece(body[:end], first_line, n_lines)
            first_line += n_lines
            rest = body[end:]
        elif len(body) < piece_bytes:
            rest = body
        else:
            yield Piece(body[:RAW_BYTES], first_line, 1, too_long=True)
            rest = _skip_line(stream, piece_bytes)
            first_line += 1
    if rest:
        yield Piece(rest, first_line, rest.count(b"\n") + (not rest.endswith(b"\n")))


def _skip_line(stream: IO[bytes], piece_bytes: int) -> bytes:
    while block := stream.read(piece_bytes):
        _, newline, rest = block.partition(b"\n")
        if newline:
            return rest
    return b""


def parse_piece(
    piece: Piece, names: list[str], *, latest: int
) -> tuple[Readings | None, list[Rejected], int]:
    """Parse the lines of a piece.

    Args:
        piece: Whole lines.
        names: The header's columns.
        latest: The last instant (microseconds since the epoch) at which a reading can have been taken.

    Returns:
        The accepted rows in the file's order (None when there are none), the refused ones, and how many
        rows there are. Blank lines are no rows.
    """
    lines = _Lines(piece.body, piece.first_line)
    if piece.too_long:
        lines.reject(0, "line too long", piece.body)
        return None, lines.rejected, 1
    _mend_lines(lines)
    n_set_aside = len(lines.rejected)
    table, misfits, n_blank = _split_columns(lines.body, names)
    n_rows = table.num_rows + len(misfits) - n_blank + n_set_aside
    if n_rows + n_blank != piece.n_lines:
        n_blank = sum(not line.strip() for line in piece.body.split(b"\n")) - piece.body.endswith(b"\n")
        if n_rows + n_blank != piece.n_lines:
            raise AssertionError(f"{n_rows} rows and {n_blank} blank lines in {piece.n_lines} lines")
    readings, reasons = _judge_rows(table, latest)
    if misfits or reasons:
        texts = lines.body.split(b"\n")
        raw = [text.removesuffix(b"\r") for text in piece.body.split(b"\n")]
        positions = np.flatnonzero([bool(text) for text in texts])
        for number in misfits:
            position = positions[number]
            if texts[position].strip():
                lines.reject(int(position), "wrong number of fields", raw[position])
        row_positions = np.delete(positions, misfits)
        for row, reason in reasons.items():
            position = row_positions[row]
            lines.reject(int(position), reason, raw[position])
    return readings, sorted(lines.rejected, key=lambda row: row.line_number), n_rows


def _mend_lines(lines: _Lines) -> None:
    """Unquote what is quoted; blank and refuse the lines that pyarrow would misread."""
    body = lines.body
    if b"\r" in body:
        body = lines.body = body.replace(b"\r\n", b"\n").removesuffix(b"\r")
    if not (b'"' in body or b"\r" in body or b"\0" in body or not _is_utf8(body)):
        return
    texts = body.split(b"\n")
    for position, text in enumerate(texts):
        texts[position], reason = _mend(text)
        if reason:
            lines.reject(position, reason, text)
    lines.body = b"\n".join(texts)


def _mend(text: bytes) -> tuple[bytes, str]:
    """Return a line without quotes, or nothing and the reason why it is refused."""
    if not text.strip():
        return b"", ""
    if b"\0" in text or b"\r" in text:
        return b"", "control character"
    if not _is_utf8(text):
        return b"", "invalid UTF-8"
    unquoted = _unquote(text) if b'"' in text else text
    if unquoted is None:
        return b"", "stray quote"
    return unquoted, "" if unquoted.strip() else "wrong number of fields"


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unquote(text: bytes) -> bytes | None:
    if not _QUOTED_LINE.fullmatch(text):
        return None
    try:
        (fields,) = csv.reader([text.decode()], delimiter=";", strict=True)
    except (csv.Error, ValueError):
        return None
    return ";".join(name.replace(";", "'").replace('"', "'") for name in fields).encode()


def _split_columns(body: bytes, names: list[str]) -> tuple[pa.Table, list[int], int]:
    """Split lines into the three columns.

    Returns:
        The table, the positions (among the lines that are not empty) of lines with another number of
        fields, and how many of those are blank.
    """
    misfits: list[int] = []
    n_blank = 0

    def skip(row: pcsv.InvalidRow) -> str:
        nonlocal n_blank
        misfits.append(row.number - 1)
        n_blank += not row.text.encode().strip()  # as bytes: a blank of Unicode's makes no line blank
        return "skip"

    def read(value_type: pa.DataType) -> pa.Table:
        nonlocal n_blank
        misfits.clear()
        n_blank = 0
        return pcsv.read_csv(
            pa.BufferReader(body),
            read_options=pcsv.ReadOptions(
                use_threads=False,
                column_names=[name if name in COLUMNS else f"other_{i}" for i, name in enumerate(names)],
                block_size=len(body),
            ),
            parse_options=pcsv.ParseOptions(delimiter=";", quote_char=False, invalid_row_handler=skip),
            convert_options=pcsv.ConvertOptions(
                include_columns=COLUMNS,
                null_values=[""],
                column_types={"timestamp": _TEXT, "sensor_uuid": _TEXT, "sensor_value": value_type},
            ),
        )

    if body.isspace() or not body:
        return _NO_ROWS, [], 0
    if body.startswith(_BOM):
        body = b"\n" + body  # within a file it is a part of its line, but pyarrow would skip it
    try:
        table = read(pa.float64())
    except pa.ArrowInvalid:
        table = read(pa.string())
        texts = pc.utf8_trim_whitespace(table["sensor_value"])
        numbers = pc.if_else(pc.match_substring_regex(texts, _VALUE), texts, None)
        table = table.set_column(2, "sensor_value", numbers.cast(pa.float64()))
    return table.combine_chunks(), misfits, n_blank


def _judge_rows(table: pa.Table, latest: int) -> tuple[Readings | None, dict[int, str]]:
    """Judge each distinct timestamp and uuid once, and all values; return the good rows and the bad ones."""
    if table.num_rows == 0:
        return None, {}
    times, uuids, values = (column.chunk(0) for column in table.columns)
    clock = [read_timestamp(text.strip()) for text in times.dictionary.to_pylist()]
    names = [read_uuid(text) for text in uuids.dictionary.to_pylist()]
    clock_codes = times.indices.to_numpy()
    name_codes = uuids.indices.to_numpy()
    numbers = values.to_numpy(zero_copy_only=False) + 0.0  # -0.0 and 0.0 are the same reading
    instants = np.array([moment.instant if moment else 0 for moment in clock], dtype=np.int64)[clock_codes]

    bad_by_reason = {
        "bad timestamp": np.array([moment is None for moment in clock])[clock_codes],
        "timestamp out of range": (instants < 0) | (instants > latest),
        "bad sensor_uuid": np.array([name is None for name in names])[name_codes],
        "bad sensor_value": ~np.isfinite(numbers),
    }
    reasons: dict[int, str] = {}
    for reason, bad in bad_by_reason.items():
        for row in np.flatnonzero(bad):
            reasons.setdefault(int(row), reason)
    if reasons:
        good = np.ones(len(numbers), dtype=bool)
        good[list(reasons)] = False
        clock_codes, name_codes = clock_codes[good], name_codes[good]
        instants, numbers = instants[good], numbers[good]
    distinct = sorted({name for name in names if name})
    rank = {name: position for position, name in enumerate(distinct)}
    ranks = np.array([rank.get(name or "", 0) for name in names], dtype=np.int32)[name_codes]
    sensors = pa.DictionaryArray.from_arrays(pa.array(ranks), pa.array(distinct, pa.string()))
    return Readings(sensors, instants, numbers, clock_codes, clock), reasons


@lru_cache(maxsize=100_000)
def read_uuid(text: str) -> str | None:
    """Return a uuid in lower case, None when it is not one."""
    text = text.strip().lower()
    return text if _UUID.fullmatch(text) else None
