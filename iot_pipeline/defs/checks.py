"""What must hold of the tables; a blocking check stops what is downstream."""

import dagster as dg

from iot_pipeline.defs.assets import timeseries
from iot_pipeline.defs.resources import MeasurementsResource


@dg.asset_check(asset=timeseries, blocking=True)
def every_row_is_accounted_for(measurements: MeasurementsResource) -> dg.AssetCheckResult:
    """Rows read = loaded + rejected + duplicate in each file, and the table holds just the loaded ones."""
    with measurements.connect() as connection:
        ((files, read, loaded, rejected, duplicate, wrong_files),) = connection.execute("""
            SELECT
                count(*),
                coalesce(sum(rows_read), 0)::BIGINT,
                coalesce(sum(rows_loaded), 0)::BIGINT,
                coalesce(sum(rows_rejected), 0)::BIGINT,
                coalesce(sum(rows_duplicate), 0)::BIGINT,
                count(*) FILTER (
                    rows_read <> rows_loaded + rows_rejected + rows_duplicate OR rows_duplicate < 0
                )
            FROM source_files
        """).fetchall()
        ((in_table,),) = connection.execute("SELECT count(*) FROM measurements").fetchall()
        ((quarantined,),) = connection.execute("SELECT count(*) FROM rejected_rows").fetchall()
    return dg.AssetCheckResult(
        passed=wrong_files == 0 and loaded == in_table and rejected == quarantined,
        metadata={
            "files": files,
            "rows_read": read,
            "rows_loaded": loaded,
            "rows_rejected": rejected,
            "rows_duplicate": duplicate,
            "rows_in_the_table": in_table,
            "rows_in_quarantine": quarantined,
            "files_that_do_not_add_up": wrong_files,
        },
    )
