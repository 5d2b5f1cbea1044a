"""Seeded generators of challenge-like sensors and buckets, with labelled anomalies."""

from iot_pipeline.samples.bucket import FIRST_READING, SampleReport, write_sample_bucket

__all__ = ["FIRST_READING", "SampleReport", "write_sample_bucket"]
