"""The shell, ``iot-pipeline``: its commands are in modules by what they are about."""

from iot_pipeline.cli import events  # noqa: F401 - adds its commands
from iot_pipeline.cli.commands import cli, main

__all__ = ["cli", "main"]
