"""The load: list the source, convert new files, compact the months they touch, commit, write the ledger.

The law: after any sequence of additions, changes, crashes and repeats, the content equals a load from scratch
of the last readable version of every file.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from uuid import uuid4

import pyarrow as pa

from iot_pipeline.errors import ConfigurationError, DamagedTableError
from iot_pipeline.ingest.fragment import FragmentInfo, convert_object, fragment_name
from iot_pipeline.ingest.ledger import LoadedFile, listed_fragments, read_ledger, write_ledger
from iot_pipeline.ingest.month import MEASUREMENTS, CompactedMonth, MonthTask, compact_month
from iot_pipeline.ingest.pieces import COMPRESSIONS
from iot_pipeline.progress import OnProgress, Stage, terminal_progress
from iot_pipeline.store import (
    ObjectChangedError,
    ObjectVanishedError,
    Store,
    StoredObject,
    one_line,
    open_source,
)
from iot_pipeline.warehouse import Warehouse, open_warehouse
from iot_pipeline.warehouse.cleanup import is_unfinished, remove_files, remove_old_versions
from iot_pipeline.warehouse.delta import commit
from iot_pipeline.warehouse.state import HOW_TO_RELOAD, Linked, clear_damage, readings_tables
from iot_pipeline.workers import Workers, open_workers

FOLDER = "timeseries"
SUFFIXES = (".csv", *COMPRESSIONS)
PARALLEL_BYTES = 256 * 2**20
"""Less than this is converted faster than worker processes can start."""
BATCH_FILES = 8
RELISTINGS = 3
_FRAGMENT_FILE = re.compile(r"(?P<fragment>[0-9a-f]{32}(-[0-9a-f]{8})?)(\.rejects)?\.parquet")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load did. Always: rows_read = rows_loaded + rows_rejected + rows_duplicate.

    Attributes:
        files_new: Files loaded for the first time, including rejected ones.
        files_changed: Files loaded again because their content changed, including rejected ones.
        files_unchanged: Files that were already loaded.
        files_rejected: New and changed files that were quarantined as a whole. If an earlier version of a
            changed file could be read, its rows stay.
        files_missing: Loaded files that are gone from the source; their rows stay.
        files_skipped: Keys in the folder that are not CSV files or not valid Unicode.
        files_vanished: Keys that were deleted after they were listed.
        files_unsettled: Keys that were overwritten during every attempt; the next load tries again.
        rows_read: Rows in the new and changed files.
        rows_loaded: Readings that these files added to the table.
        rows_rejected: Rows that were quarantined.
        rows_duplicate: Rows that the table already had, from the same or another file.
        rows_conflicting: Readings in the touched months with another value for the same sensor and time.
        rows_in_missing_hour: Rows whose wall time the clock skipped in March.
        months: The months that were rewritten.
    """

    files_new: int
    files_changed: int
    files_unchanged: int
    files_rejected: int
    files_missing: int
    files_skipped: tuple[str, ...]
    files_vanished: tuple[str, ...]
    files_unsettled: tuple[str, ...]
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
    allow_empty: bool = False,
    on_progress: OnProgress | None = None,
) -> LoadReport:
    """Load every new and changed CSV file below the source's ``Timeseries`` folders.

    The rows of a file stay if it is gone from the source or its new version can't be read.

    Args:
        source: A directory, ``s3://bucket[/prefix]`` or an open source; by default the setting's.
        warehouse: The warehouse's directory or S3 URL; by default the setting's.
        full_reload: Start from nothing and keep only what the source holds now, published in one commit. The
            rows of files that are gone or unreadable are dropped.
        allow_empty: Allow a full reload to empty the table if the source has no CSV files.
        on_progress: Called after each batch of files and each month; by default a terminal shows a bar.

    Raises:
        ConfigurationError: A setting can't be used, or a full reload would empty the table.
        SourceError: The source can't be read; nothing is loaded then.
        WarehouseBusyError: Another load is running.
    """
    origin = open_source(source)
    opened = open_warehouse(warehouse)
    with opened.writing("timeseries"), terminal_progress() as show:
        return _load(
            origin,
            opened,
            full_reload=full_reload,
            allow_empty=allow_empty,
            on_progress=on_progress or show,
        )


def _load(
    source: Store, warehouse: Warehouse, *, full_reload: bool, allow_empty: bool, on_progress: OnProgress
) -> LoadReport:
    now = datetime.now(UTC)
    tables = readings_tables(warehouse, writing=True)
    if tables.fault and not full_reload:
        raise DamagedTableError(tables.fault)
    recorded = {} if full_reload else read_ledger(warehouse, tables.last)
    objects, skipped = _list_csv_files(source)
    if full_reload and not objects and not allow_empty:
        raise ConfigurationError(
            f"a full reload would empty the table, because there are no CSV files in a folder {FOLDER!r} of"
            f" {source.url}: check IOT_SOURCE, or set allow_empty (--allow-empty) too if you want that"
        )
    if not objects:
        logger.warning("no CSV files in a folder %r of %s: check IOT_SOURCE", FOLDER, source.url)
    wanted = [obj for obj in objects if not _is_loaded(obj, recorded)]
    # A full reload reuses no existing fragments, and does not touch those that the old state needs.
    suffix = f"-{uuid4().hex[:8]}" if full_reload else ""
    touched = _months_left_by_a_killed_load(tables)
    is_large = sum(obj.size for obj in wanted) > PARALLEL_BYTES
    with open_workers(parallel=is_large) if wanted or touched else nullcontext(Workers()) as workers:
        fragments, vanished, unsettled = _convert(
            workers, source, wanted, warehouse.bronze, suffix=suffix, on_progress=on_progress
        )
        files = dict(recorded)
        for info in fragments:
            before = files.get(info.key)
            after = files[info.key] = LoadedFile.of(info, now, before)
            if after.info is info:
                touched.update(info.months, before.info.months if before else ())
        months = _compact(workers, warehouse, files.values(), touched, on_progress=on_progress)
    if unsettled:
        logger.warning("left for the next load, because they were overwritten again and again: %s", unsettled)
    if fragments or touched or full_reload or not tables.pinned:
        _publish(warehouse, files, months, touched=None if full_reload else touched, onto=tables)
    _clean_up(warehouse, {entry.info.fragment for entry in files.values()})
    loaded = [entry for info in fragments if (entry := files[info.key]).info is info]
    listed = {obj.name for obj in objects}
    return LoadReport(
        files_new=sum(info.key not in recorded for info in fragments),
        files_changed=sum(info.key in recorded for info in fragments),
        files_unchanged=len(objects) - len(wanted),
        files_rejected=sum(bool(info.error) for info in fragments),
        files_missing=sum(key not in listed for key in files),
        files_skipped=tuple(skipped),
        files_vanished=tuple(vanished),
        files_unsettled=tuple(unsettled),
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
            if name.lower().endswith(SUFFIXES) and printable == obj.name:
                files.append(obj)
            else:
                skipped.append(printable)
    return files, skipped


def _is_loaded(obj: StoredObject, recorded: dict[str, LoadedFile]) -> bool:
    entry = recorded.get(obj.name)
    return entry is not None and entry.last_fragment.startswith(fragment_name(obj))


def _convert(
    workers: Workers,
    source: Store,
    objects: Sequence[StoredObject],
    bronze: Store,
    *,
    suffix: str,
    on_progress: OnProgress,
) -> tuple[list[FragmentInfo], list[str], list[str]]:
    """Convert objects; those overwritten since they were listed are listed and converted again.

    Returns:
        The fragments, the keys of vanished objects, and the keys of objects overwritten at every attempt.
    """
    convert = partial(_convert_batch, source, bronze, suffix=suffix)
    stage = Stage("converting files", total=len(objects), on_progress=on_progress)
    fragments: list[FragmentInfo] = []
    vanished: list[str] = []
    overwritten: set[str] = set()
    for _ in range(RELISTINGS):
        overwritten.clear()
        batches = [objects[start : start + BATCH_FILES] for start in range(0, len(objects), BATCH_FILES)]
        for batch in workers.run(convert, batches):
            converted = [outcome for _, outcome in batch if isinstance(outcome, FragmentInfo)]
            gone = [key for key, outcome in batch if isinstance(outcome, ObjectVanishedError)]
            fragments += converted
            vanished += gone
            overwritten.update(key for key, outcome in batch if isinstance(outcome, ObjectChangedError))
            stage.advance(len(converted) + len(gone), rows=sum(info.rows_read for info in converted))
        if not overwritten:
            break
        listing, _skipped = _list_csv_files(source)
        objects = [obj for obj in listing if obj.name in overwritten]
        vanished.extend(overwritten - {obj.name for obj in objects})
    return fragments, vanished, sorted(overwritten)


def _convert_batch(
    source: Store, bronze: Store, objects: Sequence[StoredObject], *, suffix: str
) -> list[tuple[str, FragmentInfo | ObjectVanishedError | ObjectChangedError]]:
    def convert(obj: StoredObject) -> tuple[str, FragmentInfo | ObjectVanishedError | ObjectChangedError]:
        try:
            return obj.name, convert_object(source, obj, bronze, suffix=suffix)
        except (ObjectVanishedError, ObjectChangedError) as outcome:
            return obj.name, outcome

    with ThreadPoolExecutor(source.parallel_reads) as threads:  # fetch some while parsing another
        return list(threads.map(convert, objects))


def _months_left_by_a_killed_load(tables: Linked) -> set[str]:
    """Return the months that a load changed before it was killed without writing its ledger."""
    known, latest = (
        {(str(file.partition["month"]), file.path) for file in table.files} if table else set()
        for table in (tables.pinned.get("timeseries"), tables.heads.get("timeseries"))
    )
    return {month for month, _ in known ^ latest}


def _compact(
    workers: Workers,
    warehouse: Warehouse,
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
    compact = partial(compact_month, bronze=warehouse.bronze, table=warehouse.timeseries)
    compacted: list[CompactedMonth] = []
    stage = Stage("compacting months", total=len(tasks), on_progress=on_progress)
    try:
        for result in workers.run(compact, tasks):
            compacted.append(result)
            stage.advance(rows=rows[result.month])
    except (pa.ArrowException, FileNotFoundError) as error:
        raise DamagedTableError(
            f"can't read {warehouse.bronze.url} ({one_line(error)}): {HOW_TO_RELOAD}"
        ) from error
    return compacted


def _publish(
    warehouse: Warehouse,
    files: dict[str, LoadedFile],
    months: Sequence[CompactedMonth],
    *,
    touched: set[str] | None,
    onto: Linked,
) -> None:
    """Commit the months, then the ledger that pins that commit."""
    entries = {entry.info.fragment: entry for entry in files.values()}
    for month in months:
        for fragment, n_loaded in month.loaded.items():
            entries[fragment].loaded[month.month] = n_loaded
    onto = clear_damage(onto)
    if onto.pinned and touched is not None and not touched:
        version = onto.pinned["timeseries"].version
    else:
        version = commit(
            warehouse.timeseries,
            onto=onto.head_number("timeseries"),
            schema=MEASUREMENTS.append(pa.field("month", pa.string())),
            partition_by="month",
            add=[file for month in months for file in month.files],
            replace=touched,
        )
    write_ledger(warehouse, files, version, onto=onto.last)


def _clean_up(warehouse: Warehouse, fragments: set[str]) -> None:
    """Delete files that no version within the grace period uses."""
    for table in (warehouse.timeseries, warehouse.source_files):
        remove_old_versions(table)
    listed_before = cache(partial(listed_fragments, warehouse))  # read only if there is something to delete

    def is_unwanted(name: str) -> bool:
        file = _FRAGMENT_FILE.fullmatch(name)
        if file is None:
            return is_unfinished(name)
        return file["fragment"] not in fragments and file["fragment"] not in listed_before()

    remove_files(warehouse.bronze, is_unwanted)
