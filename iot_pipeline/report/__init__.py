"""Pictures of sensors and tables, and the page about all of them that can be sent by mail."""

from iot_pipeline.report.draw import (
    ReportFiles,
    draw_anomalies_per_week,
    draw_readings_per_month,
    draw_sensor,
    explain_no_readings,
    write_report,
)

__all__ = [
    "ReportFiles",
    "draw_anomalies_per_week",
    "draw_readings_per_month",
    "draw_sensor",
    "explain_no_readings",
    "write_report",
]
