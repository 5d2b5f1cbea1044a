"""Loads that die or fail at a chosen step, by hand-written fakes."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

Function = tuple[Any, str]
"""What holds a function, and the function's name."""

COMMITS: list[Function] = [(DeltaTable, "create"), (DeltaTable, "create_write_transaction")]
STEPS: list[Function] = [
    *COMMITS,
    (os, "fsync"),
    (Path, "replace"),
    (DeltaTable, "vacuum"),
    (Path, "unlink"),
]
"""What changes the disk."""


class Killed(BaseException):
    """The process is dead: nothing may catch this."""


class Stopwatch:
    """Counts steps and fails at one of them."""

    def __init__(
        self, fails_at: int = -1, fault: BaseException | None = None, *, for_ever: bool = False
    ) -> None:
        self.steps = 0
        self.has_failed = False
        self._fails_at = fails_at
        self._fault = fault
        self._for_ever = for_ever

    def tick(self) -> None:
        step = self.steps
        self.steps += 1
        if self._fault and (step == self._fails_at or (self._for_ever and self.has_failed)):
            self.has_failed = True
            raise self._fault


@contextmanager
def counting(stopwatch: Stopwatch | None = None) -> Iterator[Stopwatch]:
    """Count the steps of a block that change the disk."""
    stopwatch = stopwatch or Stopwatch()

    def watch(function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            if function is not Path.unlink or arguments[0].exists():
                stopwatch.tick()
            return function(*arguments, **options)

        return watched

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in STEPS:
            patch.setattr(owner, name, watch(getattr(owner, name)))
        yield stopwatch


@contextmanager
def dying(before_step: int) -> Iterator[Stopwatch]:
    """Let the block die before a step that changes the disk; like a dead process it changes nothing after."""
    with (
        suppress(Killed),
        counting(Stopwatch(before_step, Killed(), for_ever=True)) as stopwatch,
    ):
        yield stopwatch


@contextmanager
def failing(at_step: int, fault: Exception) -> Iterator[Stopwatch]:
    """Let one step that changes the disk fail."""
    with counting(Stopwatch(at_step, fault)) as stopwatch:
        yield stopwatch
