"""What must hold of the readings and the files they come from, read from a connection's views."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import duckdb

from iot_pipeline.errors import DamagedTableError
from iot_pipeline.warehouse.state import HOW_TO_RELOAD

MOST_REJECTED = 0.01
"""The share of rows that may be rejected before a file counts as damaged."""
ROTTEN = 0.1
"""Above this share, the file itself is at fault and not just some rows."""

NEWS = timedelta(hours=12)
"""What a load before that has brought is known: a night that brings nothing doesn't tell of it again."""

SILENCE = timedelta(days=2)
"""Files cover about a day and are loaded at night: one day late is normal, two mean that the feed stopped."""


@dataclass(frozen=True, slots=True)
class RowAccount:
    """Accounts for the rows of all source files.

    Attributes:
        files: The number of loaded files.
        rows_read: The number of their rows.
        rows_loaded: Rows that became readings.
        rows_rejected: Rows that were quarantined.
        rows_duplicate: Rows that the table already had.
        rows_in_the_table: Readings in the table.
        rows_in_quarantine: Rows in quarantine.
        files_that_do_not_add_up: Files whose loaded, rejected and duplicate rows are not all that were read.
    """

    files: int
    rows_read: int
    rows_loaded: int
    rows_rejected: int
    rows_duplicate: int
    rows_in_the_table: int
    rows_in_quarantine: int
    files_that_do_not_add_up: int

    @property
    def adds_up(self) -> bool:
        """Whether the tables hold exactly the rows of the files."""
        return (
            self.files_that_do_not_add_up == 0
            and self.rows_loaded == self.rows_in_the_table
            and self.rows_rejected == self.rows_in_quarantine
        )

    def check(self) -> None:
        """Raise ``DamagedTableError`` unless the rows add up."""
        if not self.adds_up:
            raise DamagedTableError(
                f"{self.rows_loaded:,} rows were loaded and {self.rows_rejected:,} rejected, but the table"
                f" has {self.rows_in_the_table:,} and the quarantine {self.rows_in_quarantine:,}:"
                f" {HOW_TO_RELOAD}"
            )


@dataclass(frozen=True, slots=True)
class Feed:
    """How fresh the readings are.

    Attributes:
        last: The last reading's time in Europe/Berlin.
        loaded: When the last file was loaded, in Europe/Berlin.
        is_live: Whether any file was loaded while its readings were recent; otherwise this is an archive.
    """

    last: datetime | None
    loaded: datetime | None
    is_live: bool

    @property
    def age(self) -> timedelta | None:
        """The age of the last reading."""
        return datetime.now(UTC) - self.last if self.last else None

    @property
    def has_stopped(self) -> bool:
        """Whether a live feed has no recent readings."""
        return self.is_live and (self.age is None or self.age > SILENCE)


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A source file that lost more than one per cent of its rows.

    Attributes:
        key: Its key in the source.
        error: Why it was quarantined as a whole; empty if it was not.
        rows_read: The number of its rows.
        rows_rejected: The number of quarantined rows.
        is_new: Whether it belongs to the last load that loaded any files, in the last twelve hours.
    """

    key: str
    error: str
    rows_read: int
    rows_rejected: int
    is_new: bool

    @property
    def is_rotten(self) -> bool:
        """Whether so much is lost that the day's anomalies can't be trusted."""
        return bool(self.error) or self.rows_rejected > ROTTEN * self.rows_read

    def __str__(self) -> str:
        """Return the key and the reason or the number of rejected rows."""
        lost = self.error or f"{self.rows_rejected:,} of {self.rows_read:,} rows rejected"
        return f"{self.key}: {lost}"


def find_damaged_files(connection: duckdb.DuckDBPyConnection) -> list[DamagedFile]:
    """Return the damaged files, those of the last load first and then the worst first.

    Args:
        connection: A connection with the views of ``connect``.
    """
    rows = connection.execute(
        """
        SELECT
            key, coalesce(error, ''), rows_read, rows_rejected,
            loaded_at = max(loaded_at) OVER () AND loaded_at > $since AS is_new
        FROM source_files
        QUALIFY error IS NOT NULL OR rows_rejected > $most * rows_read
        ORDER BY is_new DESC, error IS NULL, rows_rejected DESC, key
        """,
        {"most": MOST_REJECTED, "since": datetime.now(UTC) - NEWS},
    ).fetchall()
    return [DamagedFile(*row) for row in rows]


def account_for_rows(connection: duckdb.DuckDBPyConnection) -> RowAccount:
    """Account for the rows of all source files.

    Args:
        connection: A connection with the views of ``connect``.
    """
    (row,) = connection.execute("""
        SELECT
            count(*),
            coalesce(sum(rows_read), 0)::BIGINT,
            coalesce(sum(rows_loaded), 0)::BIGINT,
            coalesce(sum(rows_rejected), 0)::BIGINT,
            coalesce(sum(rows_duplicate), 0)::BIGINT,
            (SELECT count(*) FROM measurements),
            (SELECT coalesce(sum(n), 0)::BIGINT FROM rejected_rows),
            count(*) FILTER (
                rows_read <> rows_loaded + rows_rejected + rows_duplicate OR rows_duplicate < 0
            )
        FROM source_files
    """).fetchall()
    return RowAccount(*row)


def read_feed(connection: duckdb.DuckDBPyConnection) -> Feed:
    """Return how fresh the readings are.

    Args:
        connection: A connection with the views of ``connect``.
    """
    feed = connection.sql(
        """
        SELECT
            (SELECT max(timestamp) FROM measurements) AS last,
            max(loaded_at) AS loaded,
            coalesce(
                bool_or(strftime(loaded_at - to_days($days), '%Y-%m') <= list_max(months)), false
            ) AS is_live
        FROM source_files
        """,
        params={"days": SILENCE.days},
    )
    return Feed(**feed.to_arrow_table().to_pylist()[0])


def find_errors(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Return a line for each new file that lost over a tenth of its rows, and one for a stopped feed.

    Args:
        connection: A connection with the views of ``connect``.
    """
    files = [str(file) for file in find_damaged_files(connection) if file.is_new and file.is_rotten]
    feed = read_feed(connection)
    stopped = f"the feed has stopped: its last reading is of {feed.last:%Y-%m-%d %H:%M}" if feed.last else ""
    return [*files, *([stopped or "the feed has brought no reading"] if feed.has_stopped else [])]
