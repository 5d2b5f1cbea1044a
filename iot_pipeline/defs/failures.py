"""How errors of the domain are shown, and which are tried again."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from iot_pipeline.errors import IotPipelineError

PATIENCE = dg.RetryPolicy(
    max_retries=3, delay=60, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
)
"""For jobs that nobody watches: a minute, two and four, more or less."""


@contextmanager
def readable_failures(context: dg.AssetExecutionContext | None = None) -> Iterator[None]:
    """Show an error that a user can mend as one line; what may pass by itself is left to the job's patience.

    Args:
        context: The asset's; without one nothing is tried again.
    """
    try:
        yield
    except IotPipelineError as error:
        # A policy that has run out would hide the line behind one of its own.
        is_last = context is None or context.op_execution_context.retry_number >= PATIENCE.max_retries
        raise dg.Failure(str(error), allow_retries=error.may_pass and not is_last) from None
