"""Progress of long work: what is reported, and how it is shown in a terminal and in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tqdm import tqdm

LOG_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of one stage of long work.

    Attributes:
        stage: What is being done, like ``converting files``.
        done: The number of finished items.
        total: The number of all items.
        rows: The number of rows in the finished items.
        seconds: The time since the stage began.
    """

    stage: str
    done: int
    total: int
    rows: int
    seconds: float

    def __str__(self) -> str:
        """Return a line for the log."""
        rate = self.rows / max(self.seconds, 1e-9)
        left = self.seconds / max(self.done, 1) * (self.total - self.done)
        return f"{self.stage}: {self.done:,} of {self.total:,}, {rate:,.0f} rows/s, {left:,.0f} s left"


OnProgress = Callable[[Progress], None]


class Stage:
    """A stage of long work, which reports its progress.

    >>> stage = Stage("converting files", total=len(files), on_progress=on_progress)
    >>> for file in files:
    ...     stage.advance(rows=convert(file))
    """

    def __init__(self, name: str, *, total: int, on_progress: OnProgress) -> None:
        """Start the stage and its clock."""
        self._name, self._total, self._on_progress = name, total, on_progress
        self._started = time.monotonic()
        self.done = 0
        self._rows = 0

    def advance(self, done: int = 1, *, rows: int = 0) -> None:
        """Add finished items and their rows, and report."""
        self.done += done
        self._rows += rows
        seconds = time.monotonic() - self._started
        self._on_progress(Progress(self._name, self.done, self._total, self._rows, seconds))


def log_progress(log: Callable[[str], None], *, every_seconds: float = LOG_SECONDS) -> OnProgress:
    """Return a callback that logs a line every few seconds, so nothing for short work."""
    logged_at = time.monotonic()

    def on_progress(progress: Progress) -> None:
        nonlocal logged_at
        if time.monotonic() - logged_at >= every_seconds:
            logged_at = time.monotonic()
            log(str(progress))

    return on_progress


@contextmanager
def terminal_progress() -> Iterator[OnProgress]:
    """Yield a callback that shows a progress bar for each stage if stderr is a terminal, else nothing.

    Stages must follow one another: a new stage closes the previous bar.
    """
    bars: dict[str, tqdm[None]] = {}

    def close_all() -> None:
        for bar in bars.values():
            bar.close()

    def on_progress(progress: Progress) -> None:
        if progress.stage not in bars:
            close_all()
            bars[progress.stage] = tqdm(desc=progress.stage, total=progress.total, file=sys.stderr)
        bar = bars[progress.stage]
        bar.total = progress.total
        bar.set_postfix_str(f"{progress.rows / max(progress.seconds, 1e-9):,.0f} rows/s", refresh=False)
        bar.update(progress.done - bar.n)

    try:
        yield on_progress if sys.stderr.isatty() else lambda _: None
    finally:
        close_all()
