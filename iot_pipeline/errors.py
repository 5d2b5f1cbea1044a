"""The errors that a user can mend. Each one's text is a single line that says what to do."""


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
