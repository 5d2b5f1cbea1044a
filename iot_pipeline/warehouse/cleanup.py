"""Deletes files that no version within the grace period uses, and leftovers of killed processes.

A failure is only a warning: nothing committed is affected, and the next run tries again.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from deltalake.exceptions import DeltaError

from iot_pipeline.errors import WarehouseError
from iot_pipeline.settings import get_settings
from iot_pipeline.store import UNFINISHED, Store, one_line
from iot_pipeline.warehouse.tables import open_table

logger = logging.getLogger(__name__)


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

    Delta counts the period in whole hours, so a file may stay for up to an hour longer.
    """
    with clearing_away(folder):
        table = open_table(folder)
        if table:
            table.vacuum(
                retention_hours=math.ceil(_grace_period(folder) / timedelta(hours=1)),
                dry_run=False,
                enforce_retention_duration=False,
                full=True,
            )
    remove_files(folder, lambda name: name.endswith(UNFINISHED))


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
