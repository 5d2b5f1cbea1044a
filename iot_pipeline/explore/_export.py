"""What can be taken away: readings as CSV, by a link that says which, and the report."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse

from iot_pipeline.berlin import BERLIN
from iot_pipeline.errors import IotPipelineError
from iot_pipeline.explore import _data
from iot_pipeline.explore._view import View
from iot_pipeline.warehouse import open_warehouse

READINGS = "/readings.csv"
REPORT = "/report"
_FAR = 2**62


def answer_readings(request: Request) -> Response:
    """Answer a link to readings: its query is a view's."""
    try:
        view = View.from_query(request.url.query)
        version = _data.read_version()
        fleet = _data.read_fleet(version)
        parts = [(name, _data.judge(version, name)) for name in view.sensors]
    except (IotPipelineError, ValueError) as error:
        return PlainTextResponse(f"{error}\n", 400)
    attachment = {"Content-Disposition": 'attachment; filename="readings.csv"'}
    return StreamingResponse(_lines(parts, fleet, view), headers=attachment, media_type="text/csv")


def answer_report(_request: Request) -> Response:
    """Answer with the page that the last run wrote."""
    report = open_warehouse().report
    try:
        with report.fetch(["index.html"]) as (path,):
            return HTMLResponse(path.read_bytes())
    except (IotPipelineError, FileNotFoundError) as error:
        text = f"{error}" if isinstance(error, IotPipelineError) else f"no report in {report.url} yet"
        return PlainTextResponse(f"{text}\n", 404)


def _lines(parts: list[tuple[str, _data.Judged]], fleet: _data.Fleet, view: View) -> Iterator[str]:
    for number, (name, judged) in enumerate(parts):
        yield _readings(name, judged, fleet, view).to_csv(index=False, header=number == 0)


def _readings(name: str, judged: _data.Judged, fleet: _data.Fleet, view: View) -> pd.DataFrame:
    """Return all readings of a sensor in a range; their kind is empty where they are not flagged."""
    start, end = view.range((-_FAR, _FAR))
    inside = slice(*np.searchsorted(judged.instants, [start, end + 1]).tolist())
    instants = judged.instants[inside]
    kind = np.full(len(instants), "", dtype=object)
    if flags := fleet.flags.get(name):
        place = np.searchsorted(instants, flags.instants)
        found = place < len(instants)
        found[found] = instants[place[found]] == flags.instants[found]
        kind[place[found]] = [fleet.kinds[number] for number in flags.kinds[found]]
    return pd.DataFrame(
        {
            "sensor_name": name,
            "timestamp": pd.DatetimeIndex(instants.view("datetime64[us]"), tz="UTC").tz_convert(BERLIN),
            "sensor_value": judged.values[inside],  # noqa: PD011 - no frame
            "expected_value": judged.expected[inside],
            "kind": kind,
        }
    )
