"""Anomaly detection on one sensor: pure numpy in, frozen dataclasses out, no input or output."""

from iot_pipeline.detection.detect import detect_anomalies
from iot_pipeline.detection.types import Detection, Event, SensorModel

DETECTOR_VERSION = 8
"""Raise it with every change that may change a verdict: sensors judged by another version are judged anew."""

__all__ = ["DETECTOR_VERSION", "Detection", "Event", "SensorModel", "detect_anomalies"]
