"""The load: list, convert what is new, compact the months that it touches, commit, write the ledger.

The law: after any sequence of additions, changes, crashes and repeats, the content equals a load from scratch
of the last version of every file.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
from deltalake import DeltaTable

from iot_pipeline.clock import DAY, to_instant
from iot_pipeline.delta import commit, files_by_partition, open_table, remove_old_files
from iot_pipeline.errors import SourceError
from iot_pipeline.executor import Workers, open_workers
from iot_pipeline.ingest.compact import MEASUREMENTS, CompactedMonth, MonthTask, compact_month
from iot_pipeline.ingest.convert import FragmentInfo, convert_object, fragment_name
from iot_pipeline.ingest.ledger import Ledger, LoadedFile, read_ledger, write_ledger
from iot_pipeline.progress import OnProgress, Progress, terminal_progress
from iot_pipeline.settings import get_settings
from iot_pipeline.store import (
    ObjectChangedError,
    ObjectVanishedError,
    Store,
    StoredObject,
    as_source,
    remove_unfinished,
)
from iot_pipeline.warehouse import Warehouse, open_warehouse, readings_file, rejects_file

FOLDER = "timeseries"
PARALLEL_BYTES = 256 * 2**20
"""Less than this is converted sooner than processes have started."""
BATCH_FILES = 8
RELISTINGS = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load did. Always: rows_read = rows_loaded + rows_rejected + rows_duplicate.

    Attributes:
        files_new: Files loaded for the first time, the rejected ones included.
        files_changed: Files loaded again because their content changed, the rejected ones included.
        files_unchanged: Files that were loaded before.
        files_rejected: New and changed files that were quarantined as a whole.
        files_missing: Files that were loaded before and are gone from the source; their rows stay.
        files_skipped: Keys in the folder that are no CSV files, or no Unicode.
        files_vanished: Keys that were deleted between being listed and being read.
        rows_read: Rows of the new and changed files.
        rows_loaded: Readings that the table has from them.
        rows_rejected: Rows of them that were quarantined.
        rows_duplicate: Rows of them that the table has already from the same or another file.
        rows_conflicting: Readings in the touched months with another value for the same sensor and time.
        rows_in_missing_hour: Rows whose wall time the clock skipped in March.
        months: The months that were written anew.
    """

    files_new: int
    files_changed: int
    files_unchanged: int
    files_rejected: int
    files_missing: int
    files_skipped: tuple[str, ...]
    files_vanished: tuple[str, ...]
    rows_read: int
    rows_loaded: int
    rows_rejected: int
    rows_duplicate: int
    rows_conflicting: int
    rows_in_missing_hour: int
    months: tuple[str, ...]


def load_timeseries(
    *,
    source: str | Store | None = None,
    warehouse: str | Path | None = None,
    full_reload: bool = False,
    on_progress: OnProgress | None = None,
) -> LoadReport:
    """Load every new and changed CSV file below the source's ``Timeseries`` folders.

    Args:
        source: A directory, ``s3://bucket[/prefix]`` or an open source; by default the setting's.
        warehouse: The warehouse's directory or S3 URL; by default the setting's.
        full_reload: Start from nothing and hold only what the source holds now, published in one commit.
        on_progress: Called after each batch of files and each month; by default a terminal shows a bar.

    Raises:
        ConfigurationError: A setting can't be used.
        SourceError: The source can't be read; nothing is loaded then.
        WarehouseBusyError: Another load is running.
    """
    origin = as_source(source)
    house = open_warehouse(warehouse)
    with house.writing("timeseries"), terminal_progress() as show:
        return _load(origin, house, full_reload=full_reload, on_progress=on_progress or show)


def _load(source: Store, house: Warehouse, *, full_reload: bool, on_progress: OnProgress) -> LoadReport:
    now = datetime.now(UTC)
    latest = open_table(house.timeseries)  # before the ledger: who commits in between is found out then
    recorded = read_ledger(house.source_files)
    ledger = Ledger() if full_reload else recorded
    objects, skipped = _list_csv_files(source)
    if not objects:
        logger.warning("there are no CSV files in a folder %r of the source: check IOT_SOURCE", FOLDER)
    wanted = [obj for obj in objects if not _is_loaded(obj, ledger)]
    # A full reload trusts no fragment made before, and leaves those alone that the old state needs.
    suffix = f"-{uuid4().hex[:8]}" if full_reload else ""
    with open_workers(parallel=sum(obj.size for obj in wanted) > PARALLEL_BYTES) as workers:
        fragments, vanished = _convert(
            workers, source, wanted, house.bronze, now=now, suffix=suffix, on_progress=on_progress
        )
        touched = _months_left_by_a_killed_load(house, latest, recorded)
        for info in fragments:
            replaced = ledger.files.get(info.key)
            touched.update(info.months, replaced.info.months if replaced else ())
        files = ledger.files | {info.key: LoadedFile(info, now) for info in fragments}
        months = _compact(workers, house, files.values(), touched, on_progress=on_progress)
    if fragments or touched or full_reload or recorded.timeseries_version is None:
        onto = latest.version() if latest else None
        _publish(house, files, months, touched=None if full_reload else touched, recorded=recorded, onto=onto)
        _clean_up(house, {entry.info.fragment for entry in files.values()})
    loaded = [files[info.key] for info in fragments]
    listed = {obj.name for obj in objects}
    return LoadReport(
        files_new=sum(info.key not in ledger.files for info in fragments),
        files_changed=sum(info.key in ledger.files for info in fragments),
        files_unchanged=len(objects) - len(wanted),
        files_rejected=sum(bool(info.error) for info in fragments),
        files_missing=sum(key not in listed for key in files),
        files_skipped=tuple(skipped),
        files_vanished=tuple(vanished),
        rows_read=sum(info.rows_read for info in fragments),
        rows_loaded=sum(entry.rows_loaded for entry in loaded),
        rows_rejected=sum(info.rows_rejected for info in fragments),
        rows_duplicate=sum(entry.rows_duplicate for entry in loaded),
        rows_conflicting=sum(month.n_conflicts for month in months),
        rows_in_missing_hour=sum(info.rows_in_missing_hour for info in fragments),
        months=tuple(sorted(touched)),
    )


def _list_csv_files(source: Store) -> tuple[list[StoredObject], list[str]]:
    files, skipped = [], []
    for obj in source.list_objects():
        *folders, name = obj.name.split("/")
        if FOLDER in map(str.lower, folders):
            printable = obj.name.encode(errors="backslashreplace").decode()
            if name.lower().endswith(".csv") and printable == obj.name:
                files.append(obj)
            else:
                skipped.append(printable)
    return files, skipped


def _is_loaded(obj: StoredObject, ledger: Ledger) -> bool:
    entry = ledger.files.get(obj.name)
    return entry is not None and entry.info.fragment.startswith(fragment_name(obj))


def _convert(
    workers: Workers,
    source: Store,
    objects: Sequence[StoredObject],
    bronze: Store,
    *,
    now: datetime,
    suffix: str,
    on_progress: OnProgress,
) -> tuple[list[FragmentInfo], list[str]]:
    """Convert objects; those that were overwritten since they were listed are listed and converted again."""
    convert = partial(_convert_batch, source, bronze, latest=to_instant(now) + DAY, suffix=suffix)
    total, started = len(objects), time.monotonic()
    fragments: list[FragmentInfo] = []
    vanished: list[str] = []
    rows = 0
    for _ in range(RELISTINGS):
        overwritten = set()
        batches = [objects[start : start + BATCH_FILES] for start in range(0, len(objects), BATCH_FILES)]
        for batch in workers.run(convert, batches):
            for key, outcome in batch:
                if isinstance(outcome, FragmentInfo):
                    fragments.append(outcome)
                    rows += outcome.rows_read
                elif isinstance(outcome, ObjectVanishedError):
                    vanished.append(key)
                else:
                    overwritten.add(key)
            done = len(fragments) + len(vanished)
            seconds = time.monotonic() - started
            on_progress(Progress("converting files", done, total, rows, seconds))
        if not overwritten:
            return fragments, vanished
        listing, _skipped = _list_csv_files(source)
        objects = [obj for obj in listing if obj.name in overwritten]
        vanished.extend(overwritten - {obj.name for obj in objects})
    raise SourceError(f"{min(overwritten)} is overwritten again and again: load when its writer is done")


def _convert_batch(
    source: Store, bronze: Store, objects: Sequence[StoredObject], *, latest: int, suffix: str
) -> list[tuple[str, FragmentInfo | ObjectVanishedError | ObjectChangedError]]:
    def convert(obj: StoredObject) -> FragmentInfo | ObjectVanishedError | ObjectChangedError:
        try:
            return convert_object(source, obj, bronze, latest=latest, suffix=suffix)
        except (ObjectVanishedError, ObjectChangedError) as outcome:
            return outcome

    with ThreadPoolExecutor(source.parallel_reads) as threads:  # fetch some while another is parsed
        outcomes = list(threads.map(convert, objects))
    return [(obj.name, outcome) for obj, outcome in zip(objects, outcomes, strict=True)]


def _months_left_by_a_killed_load(house: Warehouse, latest: DeltaTable | None, recorded: Ledger) -> set[str]:
    """Return the months that a load changed in the table before it was killed, short of its ledger."""
    known = open_table(house.timeseries, recorded.timeseries_version or 0)
    new, old = files_by_partition(latest, "month"), files_by_partition(known, "month")
    return {month for month in new.keys() | old.keys() if new.get(month) != old.get(month)}


def _compact(
    workers: Workers,
    house: Warehouse,
    files: Iterable[LoadedFile],
    months: set[str],
    *,
    on_progress: OnProgress,
) -> list[CompactedMonth]:
    fragments: dict[str, list[str]] = {month: [] for month in months}
    rows = dict.fromkeys(months, 0)
    for entry in sorted(files, key=lambda entry: (entry.loaded_at, entry.info.key)):
        for month in months & entry.info.months.keys():
            fragments[month].append(entry.info.fragment)
            rows[month] += entry.info.months[month]
    tasks = [
        MonthTask(month, tuple(fragments[month]), rows[month]) for month in sorted(months) if rows[month]
    ]
    compact = partial(compact_month, bronze=house.bronze, table=house.timeseries)
    compacted: list[CompactedMonth] = []
    rows_done = 0
    started = time.monotonic()
    for result in workers.run(compact, tasks):
        compacted.append(result)
        rows_done += rows[result.month]
        seconds = time.monotonic() - started
        on_progress(Progress("compacting months", len(compacted), len(tasks), rows_done, seconds))
    return compacted


def _publish(
    house: Warehouse,
    files: dict[str, LoadedFile],
    months: Sequence[CompactedMonth],
    *,
    touched: set[str] | None,
    recorded: Ledger,
    onto: int | None,
) -> None:
    """Commit the months, then the ledger that pins that commit."""
    entries = {entry.info.fragment: entry for entry in files.values()}
    for month in months:
        for fragment, n_loaded in month.loaded.items():
            entries[fragment].loaded[month.month] = n_loaded
    for entry in recorded.files.values():
        if entry.info.fragment not in entries:  # its grace period starts now
            for file in (readings_file, rejects_file):
                house.bronze.touch(file(entry.info.fragment))
    version = recorded.timeseries_version
    if version is None or touched is None or touched:
        version = commit(
            house.timeseries,
            onto=onto,
            schema=MEASUREMENTS.append(pa.field("month", pa.string())),
            partition_by="month",
            add=[file for month in months for file in month.files],
            replace=touched,
        )
    write_ledger(house.source_files, Ledger(files, version, recorded.version))


def _clean_up(house: Warehouse, fragments: set[str]) -> None:
    """Delete what no table version within the grace period uses any more."""
    grace_period = get_settings().grace_period
    remove_old_files(house.timeseries, grace_period)
    remove_old_files(house.source_files, grace_period)
    oldest = time.time() - max(grace_period, house.root.min_deletion_age).total_seconds()
    for file in house.bronze.list_objects():
        if file.name.split(".")[0] not in fragments and file.modified <= oldest * 1e6:
            house.bronze.delete(file.name)
    for table in (house.timeseries, house.source_files):
        remove_unfinished(table, grace_period)
