"""The specification of iot_pipeline.ingest."""
