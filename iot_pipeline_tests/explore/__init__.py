"""The specification of iot_pipeline.explore."""
