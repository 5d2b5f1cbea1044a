"""Judging all sensors of a warehouse, and the tables that come of it."""

from iot_pipeline.anomalies.judge import FlagReport, flag_anomalies

__all__ = ["FlagReport", "flag_anomalies"]
