"""Which rows are good, what becomes of the others, and that every row is accounted for."""

import io
import os
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iot_pipeline.ingest import fragment, parse
from iot_pipeline.ingest.parse import KEPT_ROWS, parse_piece, readable
from iot_pipeline.ingest.pieces import RAW_BYTES, Piece, UnreadableFileError, read_header, read_pieces
from iot_pipeline.ingest.quotes import without_quotes
from iot_pipeline_tests.conftest import HEADER, OTHER_SENSOR, SENSOR, Bucket, csv_of, row

GOOD = [row("2013-01-01 12:00:00+01:00", value=1), row("2013-01-01 12:10:00+01:00", value=2)]
IN_AN_HOUR, IN_TWO_DAYS = (
    f"{datetime.now(UTC) + ahead:%Y-%m-%d %H:%M:%SZ}" for ahead in (timedelta(hours=1), timedelta(days=2))
)
LATEST = 2**52

Writer = Callable[[object], str]


def parse_text(content: bytes) -> tuple[list[float], list[tuple[int | None, str]], int]:
    """Return the values, line and reason of each refused row, and how many rows there are."""
    readings, rejected, n_rows = parse_piece(
        Piece(content, 2, content.count(b"\n") + (not content.endswith(b"\n"))),
        HEADER.split(";"),
        latest=LATEST,
    )
    values = [] if readings is None else readings.values.tolist()
    return values, [(refused.line_number, refused.reason) for refused in rejected], n_rows


# --------------------------------------------------------------------------- bad rows

BAD_ROWS = [
    pytest.param(f"2013-01-01 12:05:00;{SENSOR}", "wrong number of fields", id="short"),
    pytest.param("x", "wrong number of fields", id="one field"),
    pytest.param(row() + ";1", "wrong number of fields", id="long"),
    pytest.param(row().replace(";", ","), "wrong number of fields", id="commas"),
    pytest.param(row("yesterday"), "bad timestamp", id="bad timestamp"),
    pytest.param(row(""), "bad timestamp", id="empty timestamp"),
    pytest.param(row("2013-02-29 00:00:00"), "bad timestamp", id="a day that never was"),
    pytest.param(row("2013-01-01 24:30:00"), "bad timestamp", id="an hour that never was"),
    pytest.param(row("2013-01-01 12:00:60"), "bad timestamp", id="a second that never was"),
    pytest.param(row("2013-01-01"), "bad timestamp", id="only a date"),
    pytest.param(row("01.02.2013 12:00:00"), "bad timestamp", id="German date"),
    pytest.param(row("1357041600"), "bad timestamp", id="seconds since 1970"),
    pytest.param(row("2013-01-01 12:00:00 Europe/Berlin"), "bad timestamp", id="name of a time zone"),
    pytest.param(row("2013-01-01 12:00:00+25:00"), "bad timestamp", id="an offset that is nowhere"),
    pytest.param(row("\u0662\u0660\u0661\u0663-01-01 12:00:00"), "bad timestamp", id="Arabic digits"),
    pytest.param(row("1969-12-31 12:00:00"), "timestamp out of range", id="before 1970"),
    pytest.param(row("0001-01-01 00:00:00"), "timestamp out of range", id="year 1"),
    pytest.param(row("9999-12-31 23:59:59"), "timestamp out of range", id="year 9999"),
    pytest.param(row(IN_TWO_DAYS), "timestamp out of range", id="in two days"),
    pytest.param(row(uuid="sensor_00000"), "bad sensor_uuid", id="bad uuid"),
    pytest.param(row(uuid=""), "bad sensor_uuid", id="empty uuid"),
    pytest.param(row(uuid=SENSOR[:-1]), "bad sensor_uuid", id="short uuid"),
    pytest.param(row(uuid=SENSOR.replace("-", "")), "bad sensor_uuid", id="uuid without hyphens"),
    pytest.param(row(uuid="g" + SENSOR[1:]), "bad sensor_uuid", id="uuid with a g"),
    *(
        pytest.param(row(value=value), "bad sensor_value", id=value or "empty value")
        for value in [
            "",
            "abc",
            "1,5",
            "1_000",
            "1 000",
            "1.000.000",
            "NaN",
            "nan",
            "inf",
            "-inf",
            "+Infinity",
            "1e999",
            "-1e999",
            "0x10",
            "1e",
            "e5",
            ".",
            "--1",
            "None",
            "NULL",
            "true",
            "\u0661",
            "1.5V",
        ]
    ),
    pytest.param(row(value="1\0"), "control character", id="NUL"),
    pytest.param("\0", "control character", id="only a NUL"),
    pytest.param(row(value="1\r2"), "control character", id="carriage return"),
    pytest.param("\u00a0", "wrong number of fields", id="a blank of unicode's"),
    pytest.param(row(value='"x;"'), "bad sensor_value", id="a quoted field"),
    pytest.param('""', "wrong number of fields", id="only quotes"),
    pytest.param('" "', "wrong number of fields", id="a quoted blank"),
    pytest.param(";;", "bad timestamp", id="three empty fields"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD_ROWS)
def test_a_bad_row_is_quarantined_with_file_line_reason_and_raw_text_and_the_good_ones_load(
    bucket: Bucket, bad: str, reason: str
) -> None:
    bucket.write("data_0.csv", GOOD[0], bad, GOOD[1])
    report = bucket.load()
    assert bucket.values() == [1, 2]
    assert bucket.sql("SELECT * FROM rejected_rows") == [
        ("Timeseries/data_0.csv", 3, reason, bad.replace("\0", "\\x00"), 1)
    ]
    assert (report.rows_read, report.rows_loaded, report.rows_rejected) == (3, 2, 1)


def test_a_row_that_is_not_utf8_is_quarantined_with_its_bytes_escaped(bucket: Bucket) -> None:
    bucket.write("data_0.csv", csv_of(*GOOD).replace(b"\n", b"\nM\xfcnchen;;\n", 1))
    bucket.load()
    assert bucket.values() == [1, 2]
    assert bucket.rejects() == [(2, "invalid UTF-8", "M\\xfcnchen;;")]


def test_the_raw_text_of_a_long_row_is_cut(bucket: Bucket) -> None:
    bucket.write("data_0.csv", "ä" * 100_000, GOOD[0])
    bucket.load()
    ((_, _, raw),) = bucket.rejects()
    assert raw == "ä" * (RAW_BYTES // 2)


def test_all_kinds_of_bad_rows_in_one_file_leave_the_good_ones(bucket: Bucket) -> None:
    bad = [(str(param.values[0]), param.values[1]) for param in BAD_ROWS]
    bucket.write("data_0.csv", GOOD[0], *(text for text, _ in bad), GOOD[1])
    report = bucket.load()
    assert bucket.values() == [1, 2]
    assert [reason for _, reason, _ in bucket.rejects()] == [reason for _, reason in bad]
    assert [line for line, _, _ in bucket.rejects()] == list(range(3, 3 + len(bad)))
    assert report.rows_read == 2 + report.rows_rejected


def test_a_file_of_bad_rows_only_loads_nothing_and_is_no_error(bucket: Bucket) -> None:
    bucket.write("data_0.csv", "x", row(value="y"))
    report = bucket.load()
    assert (report.rows_read, report.rows_rejected, report.files_rejected) == (2, 2, 0)
    assert bucket.content() == []


def test_the_refused_rows_of_a_changed_file_replace_its_old_ones(bucket: Bucket) -> None:
    bucket.write("data_0.csv", "old", GOOD[0])
    bucket.load()
    bucket.write("data_0.csv", GOOD[0], "new")
    bucket.load()
    assert [raw for _, _, raw in bucket.rejects()] == ["new"]
    bucket.write("data_0.csv", GOOD[0])
    bucket.load()
    assert bucket.rejects() == []


FLOODS = [
    pytest.param("x", "wrong number of fields", id="one field"),
    pytest.param(";;", "bad timestamp", id="empty fields"),
    pytest.param("\0", "control character", id="NULs"),
    pytest.param('"";;', "bad timestamp", id="quoted fields"),
    pytest.param('";;', "stray quote", id="stray quotes"),
    pytest.param(row(value="x"), "bad sensor_value", id="bad values"),
]


@pytest.mark.parametrize(("bad", "reason"), FLOODS)
def test_of_a_flood_of_bad_rows_some_are_kept_in_full_and_the_rest_is_summed_up(
    bucket: Bucket, bad: str, reason: str
) -> None:
    bucket.write("data_0.csv", GOOD[0], *[bad] * 2_500, GOOD[1], "one;more")
    report = bucket.load()
    assert bucket.values() == [1, 2]
    assert (report.rows_read, report.rows_loaded, report.rows_rejected) == (2_503, 2, 2_501)
    (summed_up,) = bucket.sql("SELECT reason, raw, n FROM rejected_rows WHERE line_number IS NULL")
    n_more = 1_501 if reason == "wrong number of fields" else 1_500
    assert summed_up == (reason, f"{n_more} more rows", n_more)
    assert bucket.sql(
        "SELECT sum(n)::BIGINT, max(line_number) FILTER (raw <> 'one;more') FROM rejected_rows"
    ) == [(2_501, 1_002)]


def test_rows_are_kept_up_to_a_number_for_the_whole_file_and_not_for_each_piece(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fragment, "read_pieces", partial(read_pieces, piece_bytes=1_000))
    bucket.write("data_0.csv", *["x"] * 3_000, GOOD[0])
    bucket.load()
    assert bucket.sql("SELECT count(line_number), count(*), sum(n)::BIGINT FROM rejected_rows") == [
        (1_000, 1_001, 3_000)
    ]


def peak_of(content: bytes) -> int:
    """Return how many bytes of memory Python and Arrow need at most to parse a file's lines."""
    pieces = read_pieces(io.BytesIO(content), 2)
    before, largest = pa.total_allocated_bytes(), 0
    tracemalloc.start()
    try:
        for piece in pieces:
            _, rejected, _ = parse_piece(piece, HEADER.split(";"), latest=LATEST)
            assert len(rejected) <= 2 * KEPT_ROWS
            largest = max(largest, pa.total_allocated_bytes() - before)
        return tracemalloc.get_traced_memory()[1] + largest
    finally:
        tracemalloc.stop()


def test_of_lines_that_are_alike_one_is_examined_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    examined: list[bytes] = []

    def examine(line: bytes) -> bytes:
        examined.append(line)
        return without_quotes(line)

    monkeypatch.setattr(parse, "without_quotes", examine)
    lines = [row(value=f'"{value}"').encode() for value in range(1_500)]
    values, rejected, n_rows = parse_text(b"\n".join([*lines, b'"";;'] * 2) + b"\n")
    assert sorted(examined) == sorted({*lines, b'"";;'})
    assert values == [*range(1_500)] * 2
    assert (len(rejected), n_rows) == (2, 3_002)


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(b"x\n", id="short lines"),
        pytest.param(b";;\n", id="empty fields"),
        pytest.param(b'"";;\n', id="quoted fields"),
        pytest.param(b"\xff;;\n", id="invalid UTF-8"),
        pytest.param(b";" * 2**21 + b"\n", id="lines of millions of fields"),
        pytest.param(b'"' + b"a" * 2**21 + b'";;\n', id="long quoted lines"),
        pytest.param(b'"' + b"a" * (2**20 - 10) + b'";;\n', id="quoted lines just short of too long"),
    ],
)
def test_a_flood_of_bad_lines_needs_memory_of_the_order_of_as_many_good_ones(flood: bytes) -> None:
    n_bytes = 4 * 2**20
    good = peak_of((row(value=1.5).encode() + b"\n") * (n_bytes // 62))
    assert peak_of(flood * (n_bytes // len(flood))) < 6 * good


# -------------------------------------------------------------------------- good rows


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0),
        ("-1.5", -1.5),
        ("+2", 2.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1E-3", 0.001),
        (" 7 ", 7.0),
        ("-0.0", 0.0),
        ("-297000.123456789", -297000.123456789),
        ("1e-999", 0.0),
        ("0.1", 0.1),
        ("1.7976931348623157e308", 1.7976931348623157e308),
    ],
)
def test_a_number_means_the_same_whatever_stands_in_the_rows_around_it(text: str, value: float) -> None:
    alone = parse_text(row(value=text).encode())
    beside_a_bad_one = parse_text("\n".join([row(value=text), row(value="x")]).encode())
    assert alone == ([value], [], 1)
    assert beside_a_bad_one == ([value], [(3, "bad sensor_value")], 2)


@pytest.mark.parametrize(
    "time", [pytest.param(IN_AN_HOUR, id="in an hour"), "1970-01-02 00:00:00", "2013-01-01T00:00"]
)
def test_a_time_from_1970_to_a_day_after_the_file_was_written_is_good(bucket: Bucket, time: str) -> None:
    bucket.write("data_0.csv", row(time))
    assert bucket.load().rows_loaded == 1


@pytest.mark.parametrize(("time", "n_loaded"), [("2013-01-06 12:00:00Z", 1), ("2013-01-06 12:00:01Z", 0)])
def test_a_time_more_than_a_day_after_the_file_was_last_written_is_refused_whenever_it_is_loaded(
    bucket: Bucket, time: str, n_loaded: int
) -> None:
    bucket.write("data_0.csv", row(time))
    written = datetime(2013, 1, 5, 12, tzinfo=UTC).timestamp()
    os.utime(bucket.source / "Timeseries" / "data_0.csv", (written, written))
    assert bucket.load().rows_loaded == n_loaded


def test_a_file_that_is_written_again_later_may_hold_later_times(bucket: Bucket) -> None:
    path = bucket.source / "Timeseries" / "data_0.csv"
    bucket.write("data_0.csv", row("2013-01-08 12:00:00Z"))
    for day, n_loaded in ((5, 0), (8, 1)):
        written = datetime(2013, 1, day, tzinfo=UTC).timestamp()
        os.utime(path, (written, written))
        report = bucket.load()
        assert (report.rows_read, report.rows_loaded) == (1, n_loaded)


def test_an_upper_case_uuid_is_the_same_sensor(bucket: Bucket) -> None:
    sensor = "abcdefab-cdef-4abc-8def-abcdefabcdef"
    bucket.write("data_0.csv", row(uuid=sensor.upper()), row(uuid=sensor), row(uuid=sensor.title()))
    report = bucket.load()
    assert bucket.sql("SELECT sensor_uuid FROM measurements") == [(sensor,)]
    assert report.rows_duplicate == 2


def test_a_uuid_that_the_mapping_does_not_know_is_loaded_and_visible_without_a_name(bucket: Bucket) -> None:
    bucket.write("data_0.csv", row(uuid=OTHER_SENSOR))
    bucket.load()
    assert bucket.sql("SELECT sensor_name, sensor_uuid FROM measurements") == [(None, OTHER_SENSOR)]


# ------------------------------------------------------------------------- duplicates


def test_the_same_reading_twice_in_a_file_is_one_reading(bucket: Bucket) -> None:
    bucket.write("data_0.csv", row(value=1), row(value=2, uuid=OTHER_SENSOR), row(value=1))
    report = bucket.load()
    assert bucket.values() == [1, 2]
    assert (report.rows_read, report.rows_loaded, report.rows_duplicate) == (3, 2, 1)


def test_the_same_reading_in_two_files_is_one_reading_of_the_file_loaded_first(bucket: Bucket) -> None:
    bucket.write("data_9.csv", *GOOD)
    bucket.load()
    bucket.write("data_0.csv", *GOOD, row(value=3))
    report = bucket.load()
    assert (report.rows_loaded, report.rows_duplicate) == (1, 2)
    assert bucket.sql("SELECT key, rows_loaded, rows_duplicate FROM source_files ORDER BY key") == [
        ("Timeseries/data_0.csv", 1, 2),
        ("Timeseries/data_9.csv", 2, 0),
    ]


def test_a_reading_spelt_in_different_ways_is_one_reading(bucket: Bucket) -> None:
    times = [
        "2013-01-01 12:00:00",
        "2013-01-01T11:00:00Z",
        "2013-01-01 12:00+01",
        "2013-01-01 06:00:00.000-0500",
    ]
    bucket.write(
        "data_0.csv",
        *(row(time, value=v) for time, v in zip(times, ["10", "1e1", "+10.0", "010"], strict=True)),
    )
    report = bucket.load()
    assert bucket.values() == [10]
    assert report.rows_duplicate == 3


def test_two_values_of_a_sensor_at_the_same_time_both_stay_and_are_counted(bucket: Bucket) -> None:
    bucket.write("data_0.csv", row(value=1), row(value=2))
    bucket.write("data_1.csv", row(value=3), row(value=2))
    report = bucket.load()
    assert bucket.values() == [1, 2, 3]
    assert (report.rows_conflicting, report.rows_duplicate) == (2, 1)


def test_a_reading_of_two_files_stays_when_one_of_them_no_longer_holds_it(bucket: Bucket) -> None:
    bucket.write("data_0.csv", *GOOD)
    bucket.write("data_1.csv", *GOOD)
    bucket.load()
    bucket.write("data_0.csv", row(value=9))
    bucket.load()
    assert bucket.values() == [1, 9, 2]
    assert bucket.sql("SELECT key, rows_loaded, rows_duplicate FROM source_files ORDER BY key") == [
        ("Timeseries/data_0.csv", 1, 0),
        ("Timeseries/data_1.csv", 2, 0),
    ]


# ------------------------------------------------------------------------- accounting

SUMS = "SELECT sum(rows_rejected)::BIGINT, sum(rows_loaded)::BIGINT FROM source_files"

instants = st.sampled_from(
    ["2013-01-31 23:00", "2013-01-31 23:59:59Z", "2013-02-01 00:00", "2013-02-01 01:00"]
)
row_texts = st.one_of(
    st.builds(row, instants, st.sampled_from([SENSOR, OTHER_SENSOR]), st.integers(0, 2)),
    st.sampled_from(["", " ", "x", '"', row("?"), row(value="inf"), row("2013-02-01 00:00:00")]),
)
files = st.lists(st.lists(row_texts, max_size=8), min_size=1, max_size=3)


@pytest.mark.system
@settings(max_examples=10, deadline=None)
@given(files, files)
def test_every_row_is_loaded_refused_or_a_duplicate_whatever_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, before: list[list[str]], after: list[list[str]]
) -> None:
    directory = tmp_path_factory.mktemp("bucket")
    directory.joinpath("source").mkdir()
    bucket = Bucket(directory / "source", directory / "warehouse")
    for contents in (before, after):
        for number, lines in enumerate(contents):
            bucket.write(f"data_{number}.csv", *lines)
        report = bucket.load()
        n_rows = sum(bool(line.strip()) for lines in contents for line in lines)
        assert report.rows_read == report.rows_loaded + report.rows_rejected + report.rows_duplicate == n_rows
        content = bucket.content()
        assert len(set(content)) == len(content)
        assert bucket.sql(SUMS) == [(len(bucket.rejects()), len(content))]


# ------------------------------------------------------------------- what hypothesis finds


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 60))
def test_no_bytes_make_the_parser_fail_and_all_of_its_rows_add_up(body: bytes, piece_bytes: int) -> None:
    pieces = list(read_pieces(io.BytesIO(body), 2, piece_bytes=piece_bytes))
    for piece in pieces:
        readings, rejected, n_rows = parse_piece(piece, HEADER.split(";"), latest=LATEST)
        assert n_rows == len(rejected) + (len(readings.values) if readings else 0)
    if all(not piece.too_long for piece in pieces):
        assert b"".join(piece.body for piece in pieces) == body
    n_newlines = body.count(b"\n")
    assert sum(piece.n_lines for piece in pieces) == n_newlines + bool(body) - body.endswith(b"\n")


lines_of_bytes = st.one_of(
    st.just(GOOD[0].encode()),
    st.text(st.sampled_from('1;" \t\r\0é\u00a0\u2028x'), max_size=12).map(str.encode),
    st.binary(max_size=6).map(lambda line: line.replace(b"\n", b"")),
    st.lists(st.sampled_from(['"', "1", ";", "2013-01-01 00:00", SENSOR, " "]), max_size=7).map(
        lambda parts: "".join(parts).encode()
    ),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(lines_of_bytes, max_size=12), st.sampled_from([b"\n", b"\r\n"]))
def test_a_line_is_judged_alone_as_it_is_among_others(lines: list[bytes], newline: bytes) -> None:
    alone = [parse_text(line + newline) for line in lines]
    values, rejected, n_rows = parse_text(newline.join(lines) + newline)
    assert values == [value for result in alone for value in result[0]]
    assert rejected == [
        (line, reason) for line, result in enumerate(alone, start=2) for _, reason in result[1]
    ]
    assert n_rows == sum(result[2] for result in alone)


@settings(max_examples=200, deadline=None)
@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([repr, "{:.17g}".format, "{:+.17e}".format]),
)
def test_every_finite_number_is_read_exactly_as_python_reads_it(value: float, write: Writer) -> None:
    text = write(value)
    assert parse_text(row(value=text).encode())[0] == [float(text)]
    assert parse_text(f"{row(value=text)}\n{row(value='x')}".encode())[0] == [float(text)]


@settings(max_examples=100, deadline=None)
@given(st.uuids(), st.sampled_from([str.lower, str.upper, " {} ".format]))
def test_every_uuid_is_read_whatever_its_case(uuid: object, write: Writer) -> None:
    readings, _, _ = parse_piece(
        Piece(row(uuid=write(str(uuid))).encode(), 2, 1), HEADER.split(";"), latest=LATEST
    )
    assert readings is not None
    assert readings.sensor_uuid.to_pylist() == [str(uuid)]


@given(st.binary(max_size=80), st.sampled_from([b"", b"\xef\xbb\xbf", HEADER.encode(), b"\n"]))
def test_a_header_has_all_columns_or_is_refused(body: bytes, start: bytes) -> None:
    with suppress(UnreadableFileError):
        names, line = read_header(io.BytesIO(start + body))
        assert not names or set(HEADER.split(";")) <= set(names)
        assert line >= 1


@given(st.binary(max_size=20))
def test_a_raw_line_becomes_a_text_that_can_be_stored(raw: bytes) -> None:
    text = readable(raw)
    assert "\0" not in text
    assert text.encode().decode() == text
