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
    header = True
    for name, judged in parts:
        frame = readings_frame(name, judged, fleet, *view.range((-_FAR, _FAR)))
        yield frame.to_csv(index=False, header=header)
        header = False


def readings_frame(name: str, judged: _data.Judged, fleet: _data.Fleet, start: int, end: int) -> pd.DataFrame:
    """Return a sensor's readings in a range, all of them.

    Args:
        name: The sensor's.
        judged: Its readings and model.
        fleet: All flagged readings.
        start: Microseconds since the epoch.
        end: Likewise, included.

    Returns:
        Columns sensor_name, timestamp (Europe/Berlin), sensor_value, expected_value and kind, which is empty
        where a reading is not flagged.
    """
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
