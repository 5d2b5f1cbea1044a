"""What a CSV file may look like, and what makes it none."""

import gzip
import io
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iot_pipeline.ingest import fragment, pieces
from iot_pipeline.ingest.fragment import FragmentInfo
from iot_pipeline.ingest.pieces import Piece, read_pieces, unpack
from iot_pipeline.store import DirectoryStore
from iot_pipeline.warehouse import open_folder, readings_file, rejects_file
from iot_pipeline_tests.conftest import HEADER, OTHER_SENSOR, SENSOR, Bucket, berlin, csv_of, row

ROWS = [
    row("2013-01-01 12:00:00+01:00", value=1.5),
    row("2013-01-01 12:10:00+01:00", OTHER_SENSOR, -2.0),
    row("2013-01-01 12:20:00+01:00", value=3.25),
]
BEFORE_REPEATED_HOUR = 1_382_830_200  # 2013-10-27 01:30 in Berlin
VALUES = [1.5, -2.0, 3.25]
PLAIN = csv_of(*ROWS)


@dataclass(frozen=True)
class Fragment:
    """What one file was converted to."""

    times: list[str]
    values: list[float]
    rejects: list[tuple[int, str]]


def read_fragment(bronze: Path, info: FragmentInfo) -> Fragment:
    rows = pq.read_table(bronze / readings_file(info.fragment)).to_pylist()
    refused = pq.read_table(bronze / rejects_file(info.fragment)).to_pylist() if info.rows_rejected else []
    return Fragment(
        [berlin(int(row["timestamp"].timestamp()) * 1_000_000) for row in rows],
        [row["sensor_value"] for row in rows],
        [(row["line_number"], row["reason"]) for row in refused],
    )


def with_columns(header: str, line: Callable[[int, str, str, str], str]) -> bytes:
    return csv_of(*(line(i, *text.split(";")) for i, text in enumerate(ROWS)), header=header)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(PLAIN, id="plain"),
        pytest.param(b"\xef\xbb\xbf" + PLAIN, id="BOM"),
        pytest.param(PLAIN.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(PLAIN.replace(b"\n", b"\r\n").removesuffix(b"\r\n"), id="CRLF, no final newline"),
        pytest.param(PLAIN.replace(b"\n", b"\r\n").removesuffix(b"\n"), id="half a final CRLF"),
        pytest.param(PLAIN.replace(b"\n", b"\r\n", 2), id="mixed line ends"),
        pytest.param(PLAIN.removesuffix(b"\n"), id="no final newline"),
        pytest.param(PLAIN.replace(b"\n", b"\n\n \n\t\n"), id="blank lines"),
        pytest.param(PLAIN.replace(b"\n", b"\r\n\r\n"), id="blank CRLF lines"),
        pytest.param(b"\n\n" + PLAIN, id="blank lines before the header"),
        pytest.param(PLAIN.replace(b";", b" ; "), id="blanks around fields"),
        pytest.param(
            with_columns('"timestamp";"sensor_uuid";"sensor_value"', lambda _, t, u, v: f'"{t}";"{u}";"{v}"'),
            id="all fields quoted",
        ),
        pytest.param(with_columns(HEADER, lambda _, t, u, v: f'"{t}";{u};{v}'), id="one field quoted"),
        pytest.param(
            with_columns("sensor_value;timestamp;sensor_uuid", lambda _, t, u, v: f"{v};{t};{u}"),
            id="other column order",
        ),
        pytest.param(with_columns(f";{HEADER}", lambda i, *row: f"{i};{';'.join(row)}"), id="index column"),
        pytest.param(
            with_columns(f"{HEADER};unit;timestamp_2", lambda i, *row: f"{';'.join(row)};V;{i}"),
            id="extra columns",
        ),
        pytest.param(
            with_columns(f"note;{HEADER}", lambda _, *row: f'"one; ""two""";{";".join(row)}'),
            id="a quoted delimiter in another column",
        ),
        pytest.param(
            with_columns(f'{HEADER};"unit; ""SI"""', lambda _, *row: f"{';'.join(row)};V"),
            id="a quoted delimiter in the header",
        ),
        pytest.param(
            with_columns(f";{HEADER};", lambda i, *row: f"{i};{';'.join(row)};"), id="nameless columns"
        ),
    ],
)
def test_rows_are_read_by_column_name_however_the_file_is_written(bucket: Bucket, content: bytes) -> None:
    bucket.write("data_0.csv", content)
    report = bucket.load()
    assert bucket.errors() == {}
    assert bucket.rejects() == []
    assert bucket.values() == VALUES
    assert (report.rows_read, report.rows_loaded) == (3, 3)


@pytest.mark.parametrize(
    "stray", [row(value='"1.0'), f'"{row()}', row(value='1"0'), row(value='"1.0""'), '"', '""";;;']
)
def test_a_stray_quote_costs_its_own_row_and_never_the_rows_after_it(bucket: Bucket, stray: str) -> None:
    bucket.write("data_0.csv", ROWS[0], stray, *ROWS[1:])
    report = bucket.load()
    assert bucket.values() == VALUES
    assert [(line, raw) for line, _, raw in bucket.rejects()] == [(3, stray)]
    assert (report.rows_read, report.rows_rejected) == (4, 1)


def test_rows_may_stand_in_any_order(bucket: Bucket) -> None:
    bucket.write("data_0.csv", *reversed(ROWS))
    bucket.load()
    assert bucket.values() == VALUES


def test_a_file_may_span_many_months(bucket: Bucket) -> None:
    times = [f"20{year}-{month:02}-01 00:00:00" for year in (15, 13, 14) for month in range(12, 0, -1)]
    bucket.write("data_0.csv", *map(row, times))
    report = bucket.load()
    assert report.months == tuple(sorted(time[:7] for time in times))
    assert [time[:16] for time in bucket.times()] == sorted(time[:16] for time in times)


def test_the_rows_of_a_month_lie_sorted_by_sensor_and_time(bucket: Bucket) -> None:
    bucket.write("data_1.csv", *(row(f"2013-01-02 00:{m:02}:00", value=m) for m in range(60)))
    bucket.write("data_0.csv", *(row(f"2013-01-01 00:{m:02}:00", OTHER_SENSOR, m) for m in range(60)))
    bucket.write("data_2.csv", *(row(f"2013-01-01 00:{m:02}:00", value=m) for m in range(59, -1, -1)))
    bucket.load()
    stored = bucket.sql("SELECT sensor_uuid, epoch_us(timestamp) FROM measurements")
    assert len(stored) == 180
    assert all(before < after for before, after in pairwise(stored))


@pytest.mark.parametrize("pass_rows", [1, 2, 3, 7])
def test_a_month_larger_than_memory_allows_is_sorted_in_passes_with_the_same_result(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, pass_rows: int
) -> None:
    uuids = [f"{i:08x}-0000-4000-8000-000000000000" for i in (3, 1, 2)]
    rows = [row(f"2013-01-01 00:{m:02}:00", uuid, m % 3) for m in range(5) for uuid in uuids]
    bucket.write("data_0.csv", *rows)
    bucket.write("data_1.csv", *rows[::2], row("2013-01-01 00:00:00", uuids[0], 9))
    expected = bucket.load()
    content = bucket.content()
    monkeypatch.setattr("iot_pipeline.ingest.month.PASS_ROWS", pass_rows)
    report = bucket.load(full_reload=True)
    assert bucket.content() == content
    assert (report.rows_duplicate, report.rows_conflicting) == (8, 1)
    assert report.rows_loaded == expected.rows_loaded


@pytest.mark.parametrize("content", [b"", b"\n", b"\n \r\n\n", PLAIN[:34], csv_of(), b"\xef\xbb\xbf"])
def test_a_file_without_rows_is_no_error(bucket: Bucket, content: bytes) -> None:
    bucket.write("data_0.csv", content)
    report = bucket.load()
    assert (report.files_new, report.files_rejected, report.rows_read) == (1, 0, 0)
    assert bucket.content() == []
    assert bucket.load().files_unchanged == 1


NO_CSV = [
    pytest.param(csv_of(*ROWS, header="timestamp;sensor_uuid;value"), "sensor_value", id="a missing column"),
    pytest.param(csv_of(*ROWS, header="time;sensor;value"), "timestamp, sensor_uuid, sensor_value", id="all"),
    pytest.param(b"\n".join(text.encode() for text in ROWS), "timestamp", id="no header"),
    pytest.param(PLAIN.replace(b";", b","), "delimiter", id="comma"),
    pytest.param(PLAIN.replace(b";", b"\t"), "delimiter", id="tab"),
    pytest.param(gzip.compress(PLAIN), "gzip", id="gzip"),
    pytest.param(b"<!DOCTYPE html>\n<html><body>502 Bad Gateway</body></html>\n", "html", id="HTML"),
    pytest.param(PLAIN.decode().encode("utf-16"), "UTF-16", id="UTF-16"),
    pytest.param(PLAIN.decode().encode("utf-16-be"), "timestamp", id="UTF-16 without a BOM"),
    pytest.param(csv_of(*ROWS, header=f"{HEADER};timestamp"), "twice", id="a column occurs twice"),
    pytest.param(PLAIN.replace(b"\n", b"\r"), "carriage return", id="only carriage returns"),
    pytest.param(
        with_columns(f"{HEADER};unit", lambda _, *row: f"{';'.join(row)};V").replace(b"\n", b"\r"),
        "carriage return",
        id="only carriage returns and a column after the needed ones",
    ),
    pytest.param(b'"timestamp;sensor_uuid;sensor_value\n', "no column", id="a quote that never ends"),
    pytest.param(csv_of(*ROWS, header=HEADER + ";x" * 40_000), "longer than", id="an endless header"),
    pytest.param(bytes(range(256)) * 40, "timestamp", id="binary"),
]


@pytest.mark.parametrize(("content", "reason"), NO_CSV)
def test_what_is_no_csv_of_measurements_is_quarantined_whole_with_the_reason_and_the_others_load(
    bucket: Bucket, content: bytes, reason: str
) -> None:
    bucket.write("data_0.csv", content)
    bucket.write("data_1.csv", *ROWS)
    report = bucket.load()
    assert bucket.values() == VALUES
    assert list(bucket.errors()) == ["Timeseries/data_0.csv"]
    assert reason in bucket.errors()["Timeseries/data_0.csv"]
    assert (report.files_new, report.files_rejected, report.rows_read) == (2, 1, 3)


@pytest.mark.parametrize(("content", "reason"), NO_CSV)
def test_the_reason_of_a_quarantine_is_one_short_line(bucket: Bucket, content: bytes, reason: str) -> None:
    bucket.write("data_0.csv", content)
    bucket.load()
    (text,) = bucket.errors().values()
    assert reason in text
    assert text.isprintable()
    assert len(text) < 300


def test_a_quarantined_file_is_not_read_again_until_it_changes(bucket: Bucket) -> None:
    bucket.write("data_0.csv", b"<html></html>")
    bucket.load()
    assert bucket.load().files_unchanged == 1
    bucket.write("data_0.csv", *ROWS)
    report = bucket.load()
    assert (report.files_changed, report.files_rejected) == (1, 0)
    assert bucket.errors() == {}
    assert bucket.values() == VALUES


ACCOUNTED = "SELECT error IS NULL, rows_read, rows_loaded, rows_rejected, rows_duplicate FROM source_files"


def test_a_file_that_became_unreadable_keeps_the_rows_of_its_last_readable_version_until_it_is_mended(
    bucket: Bucket,
) -> None:
    bucket.write("data_0.csv", *ROWS[:2], "refused")
    bucket.load()
    for broken in (b"<html></html>", b"PK\x03\x04"):
        bucket.write("data_0.csv", broken)
        report = bucket.load()
        assert (report.files_changed, report.files_rejected, report.months) == (1, 1, ())
        assert (report.rows_read, report.rows_loaded) == (0, 0)
        assert bucket.values() == VALUES[:2]
        assert list(bucket.errors()) == ["Timeseries/data_0.csv"]
        assert bucket.sql(ACCOUNTED) == [(False, 3, 2, 1, 0)]
        assert bucket.load().files_unchanged == 1
    bucket.write("data_0.csv", *ROWS[2:])
    report = bucket.load()
    assert (report.files_changed, report.files_rejected, report.rows_loaded) == (1, 0, 1)
    assert bucket.values() == VALUES[2:]
    assert bucket.errors() == {}
    assert bucket.sql(ACCOUNTED) == [(True, 1, 1, 0, 0)]


def test_the_rows_that_a_broken_file_keeps_share_readings_with_other_files_as_before(bucket: Bucket) -> None:
    bucket.write("data_0.csv", *ROWS[:2])
    bucket.load()
    bucket.write("data_0.csv", b"<html></html>")
    bucket.write("data_1.csv", *ROWS[1:])
    report = bucket.load()
    assert bucket.values() == VALUES
    assert (report.rows_read, report.rows_loaded, report.rows_duplicate) == (2, 1, 1)


def test_a_broken_file_that_is_put_back_as_it_was_is_mended(bucket: Bucket) -> None:
    bucket.write("data_0.csv", *ROWS)
    bucket.load()
    path = bucket.source / "Timeseries" / "data_0.csv"
    path.rename(path.with_suffix(".bak"))
    bucket.write("data_0.csv", b"<html></html>")
    bucket.load()
    path.with_suffix(".bak").rename(path)
    bucket.load()
    assert bucket.errors() == {}
    assert bucket.values() == VALUES


def test_a_full_reload_holds_only_what_can_be_read_now(bucket: Bucket) -> None:
    bucket.write("data_0.csv", *ROWS[:1])
    bucket.write("data_1.csv", *ROWS[1:])
    bucket.load()
    bucket.write("data_0.csv", b"<html></html>")
    bucket.load()
    report = bucket.load(full_reload=True)
    assert (report.files_new, report.files_rejected) == (2, 1)
    assert bucket.values() == VALUES[1:]
    assert list(bucket.errors()) == ["Timeseries/data_0.csv"]


# --------------------------------------------------------------------------- packed files

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".csv.gz": gzip.compress,
    ".CSV.GZ": gzip.compress,
    ".csv.zst": partial(pa.compress, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("suffix", PACK)
def test_a_packed_file_is_loaded_like_the_csv_in_it(bucket: Bucket, suffix: str) -> None:
    bucket.write(f"data_0{suffix}", PACK[suffix](csv_of(ROWS[0], "refused", *ROWS[1:])))
    report = bucket.load()
    assert bucket.errors() == {}
    assert bucket.values() == VALUES
    assert bucket.rejects() == [(3, "wrong number of fields", "refused")]
    assert (report.files_new, report.rows_read) == (1, 4)
    assert bucket.load().files_unchanged == 1


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv.zst"])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda packed: packed[:2] + b"?" + packed[3:], id="a changed byte"),
        pytest.param(lambda packed: packed[:-3], id="its end cut off"),
        pytest.param(lambda packed: packed[: len(packed) // 2], id="cut in the middle"),
        pytest.param(lambda packed: packed + b"garbage", id="garbage after it"),
        pytest.param(lambda _: PLAIN, id="not packed"),
    ],
)
def test_a_cut_or_broken_packed_file_is_quarantined_whole(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, suffix: str, damage: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(fragment, "read_pieces", partial(read_pieces, piece_bytes=200))
    many = csv_of("refused", *(row(f"2013-01-01 {i // 60:02}:{i % 60:02}", value=i) for i in range(600)))
    bucket.write(f"data_0{suffix}", damage(PACK[suffix](many)))
    bucket.write("data_1.csv", *ROWS)
    report = bucket.load()
    assert bucket.values() == VALUES
    assert bucket.rejects() == []
    (error,) = bucket.errors().values()
    assert error.startswith(f"cut or broken {'gzip' if suffix == '.csv.gz' else 'zstd'} data: ")
    assert error.isprintable()
    assert (report.files_rejected, report.rows_read) == (1, 3)


def test_a_changed_byte_within_a_packed_file_is_noticed_by_its_checksum(bucket: Bucket) -> None:
    packed = gzip.compress(PLAIN, compresslevel=0)
    bucket.write("data_0.csv.gz", packed.replace(b"12:10", b"12:11"))
    bucket.load()
    assert bucket.content() == []
    assert "incorrect data check" in bucket.errors()["Timeseries/data_0.csv.gz"]


def test_a_packed_file_needs_bounded_memory_whatever_it_unpacks_to(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
        file.write(csv_of(ROWS[0]))
        for _ in range(200):
            file.write(b"x" * 2**20)
        file.write(b"\n" + ROWS[1].encode())
    packed.seek(0)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        pieces = list(read_pieces(unpack(packed, "a.csv.gz"), 1, piece_bytes=2**20))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak + pa.total_allocated_bytes() - before < 16 * 2**20
    assert [(piece.n_lines, piece.too_long) for piece in pieces] == [(2, False), (1, True), (1, False)]


# ------------------------------------------------------------------------------- pieces

QUIRKS = (
    csv_of(row(value=1), "", row(value='"2"'), "short", " ", row(value="x"), row(value=3)).replace(
        b"\n", b"\r\n"
    )
    + row(value='4"').encode()
    + b"\n\xff;;\n"
    + row(value="5").encode()
)


def convert_in_pieces(directory: Path, content: bytes, piece_bytes: int) -> tuple[FragmentInfo, Fragment]:
    directory.joinpath("data_0.csv").write_bytes(content)
    source = DirectoryStore(directory)
    obj = next(obj for obj in source.list_objects() if obj.name == "data_0.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fragment, "read_pieces", partial(read_pieces, piece_bytes=piece_bytes))
        bronze = open_folder(directory)
        info = fragment.convert_object(source, obj, bronze, suffix=f"-{piece_bytes}")
    return info, read_fragment(directory, info)


@pytest.mark.system
def test_where_a_file_is_cut_into_pieces_changes_nothing(tmp_path: Path) -> None:
    for piece_bytes in range(75, 190):
        info, fragment = convert_in_pieces(tmp_path, QUIRKS, piece_bytes)
        assert fragment.values == [1, 2, 3, 5]
        assert fragment.rejects == [
            (5, "wrong number of fields"),
            (7, "bad sensor_value"),
            (9, "stray quote"),
            (10, "invalid UTF-8"),
        ]
        assert info.rows_read == 8


@pytest.mark.parametrize("with_offset", ["no row", "every third row"])
def test_the_repeated_hour_is_told_apart_across_pieces(tmp_path: Path, with_offset: str) -> None:
    instants = range(BEFORE_REPEATED_HOUR, BEFORE_REPEATED_HOUR + 4 * 3_600, 600)
    times = [berlin(instant * 1_000_000) for instant in instants]
    rows = [
        row(time if with_offset != "no row" and i % 3 == 0 else time[:16]) for i, time in enumerate(times)
    ]
    for piece_bytes in range(70, 400, 7):
        _, fragment = convert_in_pieces(tmp_path, csv_of(*rows), piece_bytes)
        assert len(fragment.times) == len(times)
        assert set(fragment.times) == set(times)


class EndlessLine(io.RawIOBase):
    """A header and a good row, then a line of a gigabyte, then another good row."""

    def __init__(self, n_bytes: int) -> None:
        self.parts: list[bytes | int] = [csv_of(row(value=1)), n_bytes, b"\n" + row(value=2).encode() + b"\n"]
        self.largest_read = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        assert size > 0, "read without a bound"
        self.largest_read = max(self.largest_read, size)
        out = b""
        while self.parts and len(out) < size:
            part = self.parts[0]
            wanted = size - len(out)
            rest: bytes | int
            if isinstance(part, int):
                out += b"x" * min(part, wanted)
                rest = max(part - wanted, 0)
            else:
                out += part[:wanted]
                rest = part[wanted:]
            self.parts[:1] = [rest] if rest else []
        return out


def test_a_line_of_a_gigabyte_needs_bounded_memory_and_is_refused() -> None:
    stream = EndlessLine(1_000_000_000)
    tracemalloc.start()
    try:
        pieces = list(read_pieces(stream, 1, piece_bytes=2**20))  # type: ignore[arg-type]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20
    assert stream.largest_read == 2**20
    assert [(piece.first_line, piece.n_lines, piece.too_long) for piece in pieces] == [
        (1, 2, False),
        (3, 1, True),
        (4, 1, False),
    ]


@pytest.mark.parametrize("n_bytes", [600, 3_000, 3_001, 3_100])
def test_a_line_longer_than_a_piece_costs_only_itself(tmp_path: Path, n_bytes: int) -> None:
    content = csv_of(ROWS[0], "x" * n_bytes, *ROWS[1:])
    info, fragment = convert_in_pieces(tmp_path, content, 256)
    assert fragment.values == VALUES
    assert fragment.rejects == [(3, "line too long")]
    assert info.rows_read == 4


def test_a_header_line_without_an_end_needs_bounded_memory() -> None:
    stream = io.BytesIO(b"x" * 3 * pieces.PIECE_BYTES)
    with pytest.raises(pieces.UnreadableFileError) as caught:
        pieces.read_header(stream)
    assert stream.tell() == pieces.PIECE_BYTES
    assert len(str(caught.value)) < 300


def test_a_body_without_the_final_newline_is_a_piece_of_its_own() -> None:
    assert list(read_pieces(io.BytesIO(b"a\nb"), 2)) == [Piece(b"a\n", 2, 1), Piece(b"b", 3, 1)]


def test_months_are_those_of_berlins_calendar(bucket: Bucket) -> None:
    bucket.write("data_0.csv", row("2013-01-31 22:59:59Z"), row("2013-01-31 23:00:00Z"))
    assert bucket.load().months == ("2013-01", "2013-02")
    assert bucket.sql("SELECT DISTINCT sensor_uuid FROM measurements") == [(SENSOR,)]
