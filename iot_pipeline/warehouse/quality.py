"""Finds the source files that lost rows on their way into the table."""

from dataclasses import dataclass

import duckdb

MOST_REJECTED = 0.01
"""The share of rows that may be rejected before a file counts as damaged."""
ROTTEN = 0.1
"""Above this share, the file itself is at fault and not just some rows."""


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A source file that lost more than one per cent of its rows.

    Attributes:
        key: Its key in the source.
        error: Why it was quarantined as a whole; empty if it was not.
        rows_read: The number of its rows.
        rows_rejected: The number of quarantined rows.
        is_new: Whether it belongs to the last load that loaded any files.
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
            loaded_at = max(loaded_at) OVER () AS is_new
        FROM source_files
        QUALIFY error IS NOT NULL OR rows_rejected > $most * rows_read
        ORDER BY is_new DESC, error IS NULL, rows_rejected DESC, key
        """,
        {"most": MOST_REJECTED},
    ).fetchall()
    return [DamagedFile(*row) for row in rows]
