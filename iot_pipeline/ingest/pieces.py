"""Reads a file's header and cuts the rest into pieces of whole lines, one piece in memory at a time.

This module handles compression, the header and line ends; it does not interpret lines.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa

COLUMNS = ("timestamp", "sensor_uuid", "sensor_value")
PIECE_BYTES = 16 * 2**20
PIECE_LINES = 250_000
"""Pieces with more lines than this are cut: every line costs memory, however short it is."""
LINE_BYTES = 2**20
HEADER_BYTES = 2**16
RAW_BYTES = 1_000
NEWLINE = ord("\n")
BOM = b"\xef\xbb\xbf"
COMPRESSIONS = {".csv.gz": "gzip", ".csv.zst": "zstd"}


class UnreadableFileError(ValueError):
    """The file as a whole is not a CSV of measurements; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive whole lines of a file, without the header.

    Attributes:
        body: The lines.
        first_line: The line number of the first.
        n_lines: The number of lines, including blank ones.
        too_long: Whether the body is the start of a single line that is too long to be a row.
    """

    body: bytes
    first_line: int
    n_lines: int
    too_long: bool = False


class _Unpacked(io.RawIOBase):
    """The decompressed stream; reading it raises UnreadableFileError if the data are damaged."""

    def __init__(self, stream: IO[bytes], compression: str) -> None:
        self._compression = compression
        self._stream = pa.CompressedInputStream(stream, compression)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            return int(self._stream.readinto(buffer))
        except OSError as error:
            if error.errno is not None:  # the disk's fault, not the file's
                raise
            raise UnreadableFileError(f"cut or broken {self._compression} data: {error}") from error


def unpack(stream: IO[bytes], key: str) -> IO[bytes]:
    """Return a stream of the file's text, decompressed if its name says that it is compressed.

    Args:
        stream: A binary file at its start.
        key: Its name, which ends in ``.csv``, ``.csv.gz`` or ``.csv.zst``.
    """
    for suffix, compression in COMPRESSIONS.items():
        if key.lower().endswith(suffix):
            return io.BufferedReader(_Unpacked(stream, compression))
    return stream


def read_header(stream: IO[bytes]) -> tuple[list[str], int]:
    """Read the header line.

    Args:
        stream: A binary file at its start; left at the first line after the header.

    Returns:
        The column names and the line number of the header. No names if the file is empty.

    Raises:
        UnreadableFileError: A required column is missing or occurs more than once, or this is not a CSV file.
    """
    line_number = 1
    line = stream.readline(PIECE_BYTES)
    if line.startswith(b"\x1f\x8b"):
        raise UnreadableFileError("gzip data instead of text: name the file .csv.gz")
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableFileError("UTF-16 instead of UTF-8")
    line = line.removeprefix(BOM)
    while line.isspace():
        line_number += 1
        line = stream.readline(PIECE_BYTES)
    if not line:
        return [], line_number
    text = line[:HEADER_BYTES].decode("utf-8", errors="backslashreplace").strip("\r\n")
    shown = repr(text[:100].strip())
    if "\r" in text:
        raise UnreadableFileError(f"lines end in a carriage return alone (old Mac), not a newline: {shown}")
    if len(line) > HEADER_BYTES:
        raise UnreadableFileError(f"no header: the first line is longer than {HEADER_BYTES} bytes: {shown}")
    names = [name.strip() for name in next(csv.reader([text], delimiter=";", skipinitialspace=True))]
    missing = [name for name in COLUMNS if name not in names]
    if missing and ";" not in text and any(name in text for name in COLUMNS):
        raise UnreadableFileError("the delimiter is not ';'")
    if missing:
        raise UnreadableFileError(f"no column {', '.join(missing)} in the header {shown}")
    repeated = [name for name in COLUMNS if names.count(name) > 1]
    if repeated:
        raise UnreadableFileError(f"column {', '.join(repeated)} occurs twice in the header")
    return names, line_number


def read_pieces(stream: IO[bytes], first_line: int, *, piece_bytes: int = PIECE_BYTES) -> Iterator[Piece]:
    """Cut the rest of a file into pieces of whole lines, holding one piece in memory at a time."""
    longest = min(piece_bytes, LINE_BYTES)
    rest = b""
    is_skipping = False
    while block := stream.read(piece_bytes):
        if is_skipping:
            _, newline, block = block.partition(b"\n")
            is_skipping = not newline
        body = rest + block
        end = body.rfind(b"\n") + 1
        rest = body[end:]
        for piece in _cut(body[:end], first_line, longest):
            yield piece
            first_line += piece.n_lines
        if len(rest) > longest:
            yield Piece(rest[:RAW_BYTES], first_line, 1, too_long=True)
            first_line += 1
            rest = b""
            is_skipping = True
    yield from _cut(rest, first_line, longest)


def _cut(body: bytes, first_line: int, longest: int) -> Iterator[Piece]:
    """Cut whole lines into pieces of limited size; a line that is too long becomes its own piece."""
    n_lines = _count_lines(body)
    most_bytes = max(len(body) * PIECE_LINES // max(n_lines, PIECE_LINES), longest + 1)
    start = end = 0
    while end < len(body):
        further = body.rfind(b"\n", end, end + longest + 1) + 1
        if not further and len(body) - end <= longest:
            further = len(body)  # the file's last line has no newline
        if further and further - start <= most_bytes:
            end = further
            continue
        if end > start:
            n_lines = _count_lines(body[start:end])
            yield Piece(body[start:end], first_line, n_lines)
            first_line += n_lines
        if not further:
            yield Piece(body[end : end + RAW_BYTES], first_line, 1, too_long=True)
            first_line += 1
            end = body.index(b"\n", end) + 1
        start = end
    if end > start:
        yield Piece(body[start:end], first_line, _count_lines(body[start:end]) if start else n_lines)


def _count_lines(body: bytes) -> int:
    n_newlines = int(np.count_nonzero(np.frombuffer(body, np.uint8) == NEWLINE))
    return n_newlines + (not body.endswith(b"\n")) if body else 0
