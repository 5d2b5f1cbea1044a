"""What ``iot-pipeline load`` does: the assets' functions one after another, without Dagster."""

import time
from collections.abc import Collection

import click

from iot_pipeline.anomalies import flag_anomalies
from iot_pipeline.errors import DamagedTableError, WarehouseNotReadyError
from iot_pipeline.ingest import LoadReport, load_mapping, load_timeseries
from iot_pipeline.kinds import counted
from iot_pipeline.report import write_report
from iot_pipeline.settings import get_settings
from iot_pipeline.warehouse.quality import account_for_rows, find_errors
from iot_pipeline.warehouse.query import connect
from iot_pipeline.warehouse.views import readable_errors

MOST_NAMED = 10
"""Files of a load, and errors, that are named one by one."""


def load_stages(stages: Collection[str], *, full_reload: bool, allow_empty: bool) -> bool:
    """Run some of the stages in their order, print what each one did, and a summary.

    Returns:
        Whether everything is as it should be: no check that fails as an error in Dagster would fail.
    """
    settings = get_settings()
    started = time.monotonic()
    errors: list[str] = []
    summary: dict[str, str] = {}
    click.echo(f"Loading {settings.source} into {settings.warehouse}")
    if "mapping" in stages:
        mapping = load_mapping()
        click.echo(f"{counted(mapping.sensors, 'sensor')} in {mapping.source_key}")
    if "timeseries" in stages:
        report = load_timeseries(full_reload=full_reload, allow_empty=allow_empty)
        _describe(report)
        summary["files"] = f"{report.files_new + report.files_changed:,}"
        summary["rows"] = f"{report.rows_loaded:,}"
        summary["rejected"] = f"{report.rows_rejected:,}"
        with connect() as connection, readable_errors():
            account_for_rows(connection).check()
            errors += find_errors(connection)
    if "anomalies" in stages:
        before = _events()
        judged = flag_anomalies()
        summary["new events"] = f"{len(_events() - before):,}"
        click.echo(f"{counted(judged.sensors, 'sensor')} judged, {judged.sensors_refitted:,} of them anew")
        errors += [f"{name} could not be judged: {error}" for name, error in judged.failed.items()]
    if "report" in stages:
        summary["report"] = write_report().page
    summary["seconds"] = f"{time.monotonic() - started:,.1f}"
    click.echo("\n".join(f"{name + ':':<12}{text}" for name, text in summary.items()))
    _name(errors, err=True)
    return not errors


def _describe(report: LoadReport) -> None:
    click.echo(
        f"{report.files_new:,} new, {report.files_changed:,} changed and"
        f" {counted(report.files_unchanged, 'unchanged file')}\n"
        f"{counted(report.rows_read, 'row')} read: {report.rows_loaded:,} loaded,"
        f" {report.rows_duplicate:,} there already, {report.rows_rejected:,} rejected"
    )
    if report.rows_rejected:
        click.echo('The rejected rows, and why: iot-pipeline sql "FROM rejected_rows"')
    if report.files_rejected:
        click.echo('The unreadable files: iot-pipeline sql "FROM source_files WHERE error IS NOT NULL"')
    if report.files_missing:
        click.echo(f"{counted(report.files_missing, 'file')} gone from the source; the readings stay")
    _name([f"{key}: no CSV file, passed over" for key in report.files_skipped])
    _name([f"{key}: deleted while it was loaded" for key in report.files_vanished])


def _name(lines: list[str], *, err: bool = False) -> None:
    for line in lines[:MOST_NAMED]:
        click.echo(line, err=err)
    if len(lines) > MOST_NAMED:
        click.echo(f"and {len(lines) - MOST_NAMED:,} more", err=err)


def _events() -> set[str]:
    """Return the ids of all events; none where there are no tables of them, or damaged ones."""
    try:
        with connect() as connection, readable_errors():
            return {event_id for (event_id,) in connection.execute("SELECT event_id FROM events").fetchall()}
    except (WarehouseNotReadyError, DamagedTableError):
        return set()
