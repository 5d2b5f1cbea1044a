"""The shell, ``iot-pipeline``."""

from iot_pipeline.cli.commands import cli, main

__all__ = ["cli", "main"]
