"""How errors of the domain are shown."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from iot_pipeline.errors import IotPipelineError


@contextmanager
def readable_failures() -> Iterator[None]:
    """Show an error that a user can mend as one line, and retry only what may pass by itself."""
    try:
        yield
    except IotPipelineError as error:
        raise dg.Failure(str(error), allow_retries=error.may_pass) from None
