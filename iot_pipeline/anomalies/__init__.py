"""Judging all sensors of a warehouse, the tables that come of it, and what people say to them."""

from iot_pipeline.anomalies.annotations import annotate, annotate_from, list_annotations, withdraw
from iot_pipeline.anomalies.judge import FlagReport, flag_anomalies

__all__ = ["FlagReport", "annotate", "annotate_from", "flag_anomalies", "list_annotations", "withdraw"]
