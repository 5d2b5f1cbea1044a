"""What the asset checks are made of. Nothing here knows what they check."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any

import dagster as dg

from iot_pipeline.berlin import BERLIN
from iot_pipeline.defs.failures import readable_failures
from iot_pipeline.defs.resources import MeasurementsResource

NAMED = 10
"""How many sensors or files a check names."""

Judge = Callable[[MeasurementsResource], dg.AssetCheckResult]


def check(
    *, asset: Any, blocking: bool = False, additional_deps: Iterable[Any] = ()
) -> Callable[[Judge], dg.AssetChecksDefinition]:
    """Make an asset check of a function that judges a warehouse.

    A run in which a check fails as an error ends as failed, so that the shell, the schedule and the alerts
    say so: Dagster would call it a success. Only a blocking check keeps downstream assets from being made.
    """

    def decorate(judge: Judge) -> dg.AssetChecksDefinition:
        # A generator, as other ops may be: it raises after its result.
        @dg.asset_check(  # type: ignore[arg-type]
            asset=asset,
            name=judge.__name__,
            description=inspect.getdoc(judge),
            blocking=blocking,
            additional_deps=additional_deps,
        )
        def evaluate(measurements: MeasurementsResource) -> Iterator[dg.AssetCheckResult]:
            with readable_failures():
                result = judge(measurements)
            where = {"warehouse": dg.MetadataValue.text(measurements.where)}
            yield result._replace(metadata={**(result.metadata or {}), **where})
            if not result.passed and result.severity == dg.AssetCheckSeverity.ERROR:
                found = (f"{name} {in_words(value)}" for name, value in (result.metadata or {}).items())
                raise dg.Failure(
                    f"{judge.__name__} failed in {measurements.where}: {', '.join(found)}",
                    allow_retries=False,
                )

        return evaluate

    return decorate


def query(measurements: MeasurementsResource, sql: str, **parameters: object) -> list[dict[str, Any]]:
    """Return the rows of a query of the warehouse."""
    with measurements.connect() as connection:
        rows: list[dict[str, Any]] = (
            connection.sql(sql, params=parameters or None).to_arrow_table().to_pylist()
        )
        return rows


def result(*, passed: bool, is_error: bool = False, **metadata: Any) -> dg.AssetCheckResult:
    """Return a result; by default a check that fails is a warning."""
    severity = dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(passed=passed, severity=severity, metadata=metadata)


def in_words(value: dg.MetadataValue) -> str:
    """Return what a check shows as text: a time as Berlin's clock shows it, all else as it is."""
    if isinstance(value, dg.TimestampMetadataValue):
        return f"{datetime.fromtimestamp(value.value, BERLIN):%Y-%m-%d %H:%M}"
    return str(value.value)


def listed(found: Iterable[object]) -> str:
    """Name the first of some things."""
    return "; ".join(map(str, islice(found, NAMED))) or "none"
