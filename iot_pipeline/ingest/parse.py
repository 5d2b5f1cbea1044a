"""Parses lines into readings, and gives a reason for every rejected line.

pyarrow splits and converts a piece at full speed. Python then checks each *distinct* timestamp and uuid once,
so the rules can be exact at no cost per row. The lines of a piece are examined separately only if one of them
would be misread by pyarrow (quotes, control characters, invalid UTF-8, a wrong number of fields). Even then
checks are vectorised or done once for each distinct line, so many bad lines cost no more than good ones.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from iot_pipeline.berlin import Timestamp, read_timestamp
from iot_pipeline.ingest.pieces import BOM, COLUMNS, NEWLINE, RAW_BYTES, Piece
from iot_pipeline.ingest.quotes import without_quotes

KEPT_ROWS = 1_000
"""How many rejected rows are kept for each reason; the rest are only counted."""
REASONS = (
    "",
    "control character",
    "wrong number of fields",
    "invalid UTF-8",
    "stray quote",
    "bad timestamp",
    "timestamp out of range",
    "bad sensor_uuid",
    "bad sensor_value",
)
(
    _GOOD,
    _CONTROL_CHARACTER,
    _WRONG_NUMBER_OF_FIELDS,
    _INVALID_UTF8,
    _STRAY_QUOTE,
    _BAD_TIMESTAMP,
    _TIMESTAMP_OUT_OF_RANGE,
    _BAD_UUID,
    _BAD_VALUE,
    _BLANK,
) = range(len(REASONS) + 1)

_DELIMITER = ord(";")
_LAST_OF_ASCII = 127
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_VALUE = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_TEXT = pa.dictionary(pa.int32(), pa.string())
_NO_ROWS = pa.table({name: pa.array([], pa.null()) for name in COLUMNS})
_IS_NOT_SPACE = np.array([bool(bytes([byte]).strip()) for byte in range(256)])


@dataclass(frozen=True, slots=True)
class Rejected:
    """A rejected line, or a summary of several.

    Attributes:
        line_number: Counted from 1, including the header; None for a summary.
        reason: One of a small set, so that rejected rows can be counted by reason.
        raw: The line, cut to 1,000 bytes and with invalid UTF-8 escaped; in a summary, the number of lines.
        n_rows: The number of lines.
    """

    line_number: int | None
    reason: str
    raw: str
    n_rows: int = 1

    @classmethod
    def sum_up(cls, reason: str, n_rows: int) -> "Rejected":
        """Return the summary of lines that are not kept."""
        return cls(None, reason, f"{n_rows} more rows", n_rows)


@dataclass(frozen=True, slots=True)
class Readings:
    """The accepted rows of a piece, in file order.

    Attributes:
        sensor_uuid: Lower-case uuids, dictionary<int32, string>[n].
        instants: int64[n], microseconds since the epoch; naive times in a repeated hour mean its first pass.
        values: float64[n], finite.
        clock_codes: int32[n], the index of each row's timestamp in ``clock``.
        clock: The meaning of each distinct timestamp.
    """

    sensor_uuid: pa.DictionaryArray
    instants: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    clock_codes: npt.NDArray[np.int32]
    clock: list[Timestamp | None]


class _Lines:
    """The lines of a piece, each good or rejected for a reason.

    Attributes:
        body: The lines, at least one, separated by newlines only.
        starts: int64[n], where each line starts.
        ends: int64[n], where its newline is.
        verdicts: uint8[n], indices into ``REASONS``.
    """

    def __init__(self, body: bytes) -> None:
        self.body = body
        self._bytes = np.frombuffer(body, np.uint8)
        newlines = np.flatnonzero(self._bytes == NEWLINE)
        self.ends = newlines if body.endswith(b"\n") else np.append(newlines, len(body))
        self.starts = np.append(0, self.ends[:-1] + 1)
        self.verdicts = np.zeros(len(self.ends), np.uint8)

    def extract_good_lines(self, n_fields: int) -> bytes:
        """Check the bytes of the lines and return the good lines, without quotes."""
        verdicts = self.verdicts
        n_delimiters = np.add.reduceat(self._bytes == _DELIMITER, self.starts, dtype=np.int32)
        verdicts[n_delimiters < n_fields - 1] = _WRONG_NUMBER_OF_FIELDS
        verdicts[self._lines_with((self._bytes == 0) | (self._bytes == ord("\r")))] = _CONTROL_CHARACTER
        self.mark_blank_lines()
        offsets = np.append(self.starts, len(self.body)).astype(np.int32)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(self.body)]
        texts = pa.BinaryArray.from_buffers(pa.binary(), len(self.starts), buffers)
        if b'"' in self.body or not _is_utf8(self.body):
            is_special = self._lines_with((self._bytes == ord('"')) | (self._bytes > _LAST_OF_ASCII))
            is_special &= verdicts == _GOOD
            special = texts.filter(pa.array(is_special)).dictionary_encode()
            answers = [_unquote(text) for text in special.dictionary.to_pylist()]
            unquoted = pa.array([text for text, _, _ in answers], pa.binary()).take(special.indices)
            texts = pc.replace_with_mask(texts, pa.array(is_special), unquoted)
            codes = special.indices.to_numpy()
            verdicts[is_special] = np.array([verdict for _, verdict, _ in answers], np.uint8)[codes]
            n_delimiters[is_special] = np.array([count for *_, count in answers], np.int32)[codes]
        verdicts[(verdicts == _GOOD) & (n_delimiters != n_fields - 1)] = _WRONG_NUMBER_OF_FIELDS
        good = texts.filter(pa.array(verdicts == _GOOD))
        text: bytes = pc.binary_join(pa.ListArray.from_arrays([0, len(good)], good), b"")[0].as_py()
        return text

    def mark_blank_lines(self) -> None:
        """Mark blank lines, which are not rows."""
        self.verdicts[~np.logical_or.reduceat(_IS_NOT_SPACE[self._bytes], self.starts)] = _BLANK

    def judge(self, verdicts: npt.NDArray[np.uint8]) -> None:
        """Set the verdicts of the lines that have been good so far."""
        is_row = self.verdicts == _GOOD
        if is_row.sum() != len(verdicts):
            raise AssertionError(f"{len(verdicts)} rows in {is_row.sum()} lines")
        self.verdicts[is_row] = verdicts

    def rejected(self, first_line: int) -> list[Rejected]:
        """Return the rejected lines in file order, followed by the summaries."""
        kept: list[Rejected] = []
        more: list[Rejected] = []
        for verdict, reason in enumerate(REASONS[_GOOD + 1 :], start=_GOOD + 1):
            positions = np.flatnonzero(self.verdicts == verdict)
            kept.extend(
                Rejected(first_line + int(at), reason, readable(self.body[self.starts[at] : self.ends[at]]))
                for at in positions[:KEPT_ROWS]
            )
            if len(positions) > KEPT_ROWS:
                more.append(Rejected.sum_up(reason, len(positions) - KEPT_ROWS))
        return sorted(kept, key=lambda row: row.line_number or 0) + more

    def _lines_with(self, is_hit: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        has_hit = np.zeros(len(self.ends), bool)
        has_hit[np.searchsorted(self.ends, np.flatnonzero(is_hit))] = True
        return has_hit


def readable(raw: bytes) -> str:
    """Decode raw bytes, cut to 1,000, to text that any tool can show."""
    return raw[:RAW_BYTES].decode("utf-8", errors="backslashreplace").replace("\0", "\\x00")


def parse_piece(
    piece: Piece, names: list[str], *, latest: int
) -> tuple[Readings | None, list[Rejected], int]:
    """Parse the lines of a piece.

    Args:
        piece: Whole lines.
        names: The header's columns.
        latest: The latest plausible instant of a reading, in microseconds since the epoch.

    Returns:
        The accepted rows in file order (None if there are none), the rejected rows, and the total number of
        rows. Blank lines are not rows.
    """
    if piece.too_long:
        return None, [Rejected(piece.first_line, "line too long", readable(piece.body))], 1
    body = piece.body
    if b"\r" in body:
        body = body.replace(b"\r\n", b"\n").removesuffix(b"\r")
    if not body:
        return None, [], 0
    lines = None
    table = None
    if not (b'"' in body or b"\r" in body or b"\0" in body) and _is_utf8(body):
        table = _split_columns(body, names)
    if table is None:
        lines = _Lines(body)
        table = _split_columns(lines.extract_good_lines(len(names)), names)
        if table is None:
            raise AssertionError(f"pyarrow counts fields differently from line {piece.first_line} on")
    readings, verdicts = _judge_rows(table, latest)
    if lines is None:
        if not verdicts.any() and len(verdicts) == piece.n_lines:
            return readings, [], piece.n_lines
        lines = _Lines(body)
        lines.mark_blank_lines()
    lines.judge(verdicts)
    return readings, lines.rejected(piece.first_line), int((lines.verdicts != _BLANK).sum())


def _unquote(line: bytes) -> tuple[bytes, int, int]:
    """Return a line without quotes, its verdict and its number of delimiters."""
    text = line.removesuffix(b"\n")
    verdict = _GOOD
    if not _is_utf8(text):
        verdict = _INVALID_UTF8
    elif b'"' in text:
        text = without_quotes(text)
        if not text:
            verdict = _STRAY_QUOTE
    return text + b"\n", verdict, text.count(b";")


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _split_columns(body: bytes, names: list[str]) -> pa.Table | None:
    """Split lines into the three columns; return None if a line has a wrong number of fields."""
    has_misfits = False

    def stop(_: pcsv.InvalidRow) -> str:
        nonlocal has_misfits
        has_misfits = True
        return "error"

    def read(value_type: pa.DataType) -> pa.Table:
        return pcsv.read_csv(
            pa.BufferReader(body),
            read_options=pcsv.ReadOptions(
                use_threads=False,
                column_names=[name if name in COLUMNS else f"other_{i}" for i, name in enumerate(names)],
                block_size=len(body),
            ),
            parse_options=pcsv.ParseOptions(delimiter=";", quote_char=False, invalid_row_handler=stop),
            convert_options=pcsv.ConvertOptions(
                include_columns=COLUMNS,
                null_values=[""],
                column_types={"timestamp": _TEXT, "sensor_uuid": _TEXT, "sensor_value": value_type},
            ),
        )

    if not body or body.isspace():
        return _NO_ROWS
    if body.startswith(BOM):
        body = b"\n" + body  # pyarrow would skip it, but within a file it is part of the line
    try:
        table = read(pa.float64())
    except pa.ArrowInvalid:
        if has_misfits:
            return None
        table = read(pa.string())
        texts = pc.utf8_trim_whitespace(table["sensor_value"])
        numbers = pc.if_else(pc.match_substring_regex(texts, _VALUE), texts, None)
        table = table.set_column(2, "sensor_value", numbers.cast(pa.float64()))
    return table.combine_chunks()


def _judge_rows(table: pa.Table, latest: int) -> tuple[Readings | None, npt.NDArray[np.uint8]]:
    """Check distinct timestamps, distinct uuids and all values; return the good rows and all verdicts."""
    verdicts = np.zeros(table.num_rows, np.uint8)
    if table.num_rows == 0:
        return None, verdicts
    times, uuids, values = (column.chunk(0) for column in table.columns)
    clock = [read_timestamp(text.strip()) for text in times.dictionary.to_pylist()]
    names = [read_uuid(text) for text in uuids.dictionary.to_pylist()]
    clock_codes = times.indices.to_numpy()
    name_codes = uuids.indices.to_numpy()
    numbers = values.to_numpy(zero_copy_only=False) + 0.0  # -0.0 and 0.0 are the same reading
    instants = np.array([moment.instant if moment else 0 for moment in clock], dtype=np.int64)[clock_codes]

    verdicts[~np.isfinite(numbers)] = _BAD_VALUE  # a later reason takes precedence
    verdicts[np.array([name is None for name in names])[name_codes]] = _BAD_UUID
    verdicts[(instants < 0) | (instants > latest)] = _TIMESTAMP_OUT_OF_RANGE
    verdicts[np.array([moment is None for moment in clock])[clock_codes]] = _BAD_TIMESTAMP
    if verdicts.any():
        good = verdicts == _GOOD
        clock_codes, name_codes = clock_codes[good], name_codes[good]
        instants, numbers = instants[good], numbers[good]
    distinct = sorted({name for name in names if name})
    rank = {name: position for position, name in enumerate(distinct)}
    ranks = np.array([rank.get(name or "", 0) for name in names], dtype=np.int32)[name_codes]
    sensors = pa.DictionaryArray.from_arrays(pa.array(ranks), pa.array(distinct, pa.string()))
    return Readings(sensors, instants, numbers, clock_codes, clock), verdicts


@lru_cache(maxsize=100_000)
def read_uuid(text: str) -> str | None:
    """Return a uuid in lower case; None if the text is not one."""
    text = text.strip().lower()
    return text if _UUID.fullmatch(text) else None
