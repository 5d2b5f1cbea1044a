"""The errors that a user can mend. Each one's text is a single line that says what to do."""

import re
from collections.abc import Collection
from typing import Self


class IotPipelineError(Exception):
    """The base of all errors that this project raises on purpose.

    Attributes:
        may_pass: Whether the same may succeed later without anybody mending anything.
    """

    may_pass = False


class ConfigurationError(IotPipelineError):
    """A setting is missing or can't be used."""


class SourceError(IotPipelineError):
    """The source can't be listed or an object of it can't be read."""

    may_pass = True


class MappingError(IotPipelineError):
    """``mapping.csv`` is missing or not a one-to-one mapping."""


class WarehouseError(IotPipelineError):
    """The warehouse can't be read or written to; what was in it before is still there."""


class DamagedTableError(WarehouseError):
    """Files of a table were changed or lost; the text names the command that makes it anew."""


class WarehouseUnreachableError(WarehouseError):
    """The object store that the warehouse lies in does not answer."""

    may_pass = True


class WorkerError(IotPipelineError):
    """A worker process was killed from outside."""

    may_pass = True


class WarehouseBusyError(IotPipelineError):
    """Another load writes to the warehouse."""

    may_pass = True


class WarehouseNotReadyError(IotPipelineError):
    """What is asked for has not been loaded yet."""


class UnknownSensorError(IotPipelineError, LookupError):
    """No sensor has this name."""

    @classmethod
    def among(cls, name: str, sensors: Collection[str], warehouse: str) -> Self:
        """Return the error for a name that is not among a warehouse's sensors, with the three nearest names.

        First come those of the same number, then those that start alike, then those spelled alike.
        """
        from difflib import get_close_matches  # noqa: PLC0415 - the shell starts faster without it

        text = str(name)
        number = _number(text)
        near = [
            *(sensor for sensor in sorted(sensors) if number is not None and _number(sensor) == number),
            *(sensor for sensor in sorted(sensors) if text and sensor.startswith(text)),
            *get_close_matches(text, sensors),
        ]
        best = list(dict.fromkeys(near))[:3]
        hint = f"did you mean {', '.join(best)}?" if best else "`iot-pipeline sensors` lists all"
        return cls(f"there is no sensor {name!r} among the {len(sensors):,} of {warehouse}: {hint}")


def _number(name: str) -> int | None:
    """Return the number that a sensor's name ends in."""
    digits = re.search(r"[0-9]{1,18}$", name)
    return int(digits[0]) if digits else None
