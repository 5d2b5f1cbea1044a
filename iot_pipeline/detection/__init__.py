"""Anomaly detection on one sensor: pure numpy in, frozen dataclasses out, no input or output."""

from iot_pipeline.detection.detect import detect_anomalies
from iot_pipeline.detection.types import Detection, Event, SensorModel

__all__ = ["Detection", "Event", "SensorModel", "detect_anomalies"]
