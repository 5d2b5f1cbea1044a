"""What ``make run`` shows in the end: what was loaded and found, in words, and what to type next."""

from datetime import datetime, time, timedelta
from textwrap import fill

from iot_pipeline.berlin import from_instant
from iot_pipeline.kinds import in_words
from iot_pipeline.settings import get_settings
from iot_pipeline.warehouse import open_warehouse
from iot_pipeline.warehouse.events import rank_sensors
from iot_pipeline.warehouse.query import connect
from iot_pipeline.warehouse.status import describe, read_status

SHOWN = 4
WIDTH = 100


def main() -> None:
    """Print the tour, which fits a screen."""
    print(f"{'source:':<15}{get_settings().source}")
    status = read_status()
    print(describe(status))
    with connect() as connection:
        # The first picture of the report shows the first of them.
        severe = (
            rank_sensors(connection).filter("n_anomalies > 0").project("sensor_name, reasoning").fetchall()
        )
        moments = connection.execute("""
            SELECT sensor_name, epoch_us(max_by(start, peak_score)) FROM events
            WHERE annotation IS DISTINCT FROM 'false_alarm'
            GROUP BY sensor_name
        """).fetchall()
    print(
        f"\n{len(severe)} of {status.sensors} sensors have anomalies{', the most severe:' if severe else '.'}"
    )
    for sensor, reasoning in severe[:SHOWN]:
        print(fill(f"{sensor}: {in_words(reasoning)}", WIDTH, initial_indent="  ", subsequent_indent="    "))
    print(f"\nOne page about all sensors: {open_warehouse().report.url}/index.html")
    print("Look at them, and answer back:  make explore")
    if severe:
        sensor = severe[0][0]
        day = datetime.combine(from_instant(dict(moments)[sensor]), time())
        command = f"query {sensor} {day:%Y-%m-%d} {day + timedelta(days=1):%Y-%m-%d}"
        print(f"Get a day's readings:           .venv/bin/iot-pipeline {command}")


if __name__ == "__main__":
    main()
