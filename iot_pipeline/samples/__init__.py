"""Challenge-like sensors and buckets, made from a seed, and the truth about them."""

from iot_pipeline.samples.bucket import FIRST_READING, SampleReport, write_sample_bucket

__all__ = ["FIRST_READING", "SampleReport", "write_sample_bucket"]
