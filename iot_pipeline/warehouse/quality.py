"""Which source files have lost rows on their way into the table, and how many."""

from dataclasses import dataclass

import duckdb

MOST_REJECTED = 0.01
"""The share of its rows that a healthy file may lose."""
ROTTEN = 0.1
"""The share from which on something is wrong with the file, not with some of its rows."""


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A source file that lost more than a hundredth of its rows.

    Attributes:
        key: Its key in the source.
        error: Why it was quarantined as a whole; empty when it was not.
        rows_read: Its rows.
        rows_rejected: Those that were quarantined.
        is_new: Whether it came with the last load that brought anything.
    """

    key: str
    error: str
    rows_read: int
    rows_rejected: int
    is_new: bool

    @property
    def is_rotten(self) -> bool:
        """Whether so much is lost that what is judged of its day can't be trusted."""
        return bool(self.error) or self.rows_rejected > ROTTEN * self.rows_read

    def __str__(self) -> str:
        """Return the key and what was lost."""
        lost = self.error or f"{self.rows_rejected:,} of {self.rows_read:,} rows rejected"
        return f"{self.key}: {lost}"


def find_damaged_files(connection: duckdb.DuckDBPyConnection) -> list[DamagedFile]:
    """Return the damaged files, those of the last load first and the worst of them first.

    Args:
        connection: With the views of ``connect``.
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
