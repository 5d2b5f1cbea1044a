"""Deletes files that no version within the grace period uses, and leftovers of killed processes.

Files that somebody else keeps there are left alone. A failure is only a warning: nothing committed is
affected, and the next run tries again.
"""

import logging
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial

from deltalake.exceptions import DeltaError

from iot_pipeline.errors import WarehouseError
from iot_pipeline.settings import get_settings
from iot_pipeline.store import UNFINISHED, Store, one_line
from iot_pipeline.warehouse._layout import is_data_file
from iot_pipeline.warehouse.tables import open_table

_UNFINISHED_FILE = re.compile(rf"(^|/)\.[^/]+\.[0-9a-f]{{8}}{re.escape(UNFINISHED)}$")
"""What stores call a file that they are still writing."""

logger = logging.getLogger(__name__)


def is_unfinished(name: str) -> bool:
    """Return whether a file is one that a killed process has not finished."""
    return bool(_UNFINISHED_FILE.search(name))


@contextmanager
def clearing_away(folder: Store) -> Iterator[None]:
    """Log an error in a block that deletes old files as a warning."""
    try:
        yield
    except (WarehouseError, DeltaError, OSError) as error:
        logger.warning(
            "can't clear away old files of %s (%s): the next run tries again", folder.url, one_line(error)
        )


def remove_old_versions(folder: Store) -> None:
    """Delete a table's files that no version within the grace period uses, and unfinished files.

    Delta counts the period in whole hours, so a file may stay for up to an hour longer. It deletes whatever
    it does not know, so it is not asked to where somebody else keeps files.
    """
    with clearing_away(folder):
        table = open_table(folder)
        if table:
            vacuum = partial(
                table.vacuum,
                retention_hours=math.ceil(_grace_period(folder) / timedelta(hours=1)),
                enforce_retention_duration=False,
                full=True,
            )
            foreign = sorted(
                name for name in vacuum(dry_run=True) if not (is_data_file(name) or is_unfinished(name))
            )
            if foreign:
                logger.warning(
                    "%s holds files of somebody else, like %s, so nothing is cleared away there:"
                    " move them, or set %s to a place of its own",
                    folder.url,
                    foreign[0],
                    folder.setting,
                )
            else:
                vacuum(dry_run=False)
    remove_files(folder, is_unfinished)


def remove_files(folder: Store, is_unwanted: Callable[[str], bool], *, prefix: str = "") -> None:
    """Delete the files in a folder whose names are unwanted and that are older than the grace period.

    Args:
        folder: The folder.
        is_unwanted: Takes the name of a file.
        prefix: Only files whose names start with it are looked at.
    """
    with clearing_away(folder):
        latest = (time.time() - _grace_period(folder).total_seconds()) * 1e6
        for file in folder.list_objects(prefix):
            if file.modified <= latest and is_unwanted(file.name):
                with suppress(FileNotFoundError):
                    folder.delete(file.name)


def _grace_period(folder: Store) -> timedelta:
    return max(get_settings().grace_period, folder.min_deletion_age)
