"""What ``make run`` shows in the end: what was loaded and found, one query, and where to look next."""

from datetime import datetime, time, timedelta

from iot_pipeline.berlin import BERLIN
from iot_pipeline.settings import get_settings
from iot_pipeline.warehouse import open_warehouse
from iot_pipeline.warehouse.events import rank_sensors
from iot_pipeline.warehouse.query import connect, get_measurements
from iot_pipeline.warehouse.status import describe, read_status


def main() -> None:
    """Print the tour."""
    print(f"{'source:':<15}{get_settings().source}")
    print(describe(read_status()))
    with connect() as connection:
        # The first picture of the report shows the same sensor.
        severe = rank_sensors(connection).filter("n_anomalies > 0").limit(1)
        worst = severe.project("sensor_name, reasoning").fetchall()
        moments = connection.execute("""
            SELECT sensor_name, epoch_us(max_by("end", peak_score)) FROM events
            WHERE annotation IS DISTINCT FROM 'false_alarm'
            GROUP BY sensor_name
        """).fetchall()
    for sensor, reasoning in worst:
        moment = datetime.fromtimestamp(dict(moments)[sensor] / 1e6, BERLIN)
        start = datetime.combine(moment, time())
        end = start + timedelta(days=1)
        print(f"\nThe most severe sensor is {sensor}. {reasoning}")
        print(f'\n>>> get_measurements("{sensor}", "{start:%Y-%m-%d}", "{end:%Y-%m-%d}")')
        print(get_measurements(sensor, start, end).to_string(max_rows=8))
    report = open_warehouse().report.url
    if worst:
        print(f"\nPicture:  {report}/worst-01.png")
    print(f"Report:   {report}/index.html")
    print("Web page: make dev, then open http://127.0.0.1:3000")


if __name__ == "__main__":
    main()
