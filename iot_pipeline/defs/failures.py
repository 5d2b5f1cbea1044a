"""How the project's errors are shown in Dagster, and which are retried."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from iot_pipeline.errors import IotPipelineError

PATIENCE = dg.RetryPolicy(
    max_retries=3, delay=60, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
)
"""For unattended jobs: retries after about one, two and four minutes."""


@contextmanager
def readable_failures(context: dg.AssetExecutionContext | None = None) -> Iterator[None]:
    """Raise the project's errors as one-line failures; those that may pass by themselves can be retried.

    Args:
        context: The asset's context; without one, nothing is retried.
    """
    try:
        yield
    except IotPipelineError as error:
        # Dagster hides the error's text behind its own when the retries are exhausted.
        is_last = context is None or context.op_execution_context.retry_number >= PATIENCE.max_retries
        raise dg.Failure(str(error), allow_retries=error.may_pass and not is_last) from None
