"""What ``make run`` shows in the end: what was loaded and found, one query, and where to look next."""

from datetime import datetime, time, timedelta

from iot_pipeline.clock import BERLIN
from iot_pipeline.warehouse import open_warehouse
from iot_pipeline.warehouse.query import connect, get_measurements
from iot_pipeline.warehouse.status import describe, read_status


def main() -> None:
    """Print the tour."""
    print(describe(read_status()))
    with connect() as connection:
        worst = connection.execute("""
            SELECT sensor_name, epoch_us(max_by(timestamp, score)), max_by(reasoning, score)
            FROM anomalies JOIN sensor_models USING (sensor_name)
            GROUP BY sensor_name ORDER BY count(*) DESC, sensor_name LIMIT 1
        """).fetchone()
    if worst:
        sensor, instant, reasoning = worst
        moment = datetime.fromtimestamp(instant / 1e6, BERLIN)
        start = datetime.combine(moment, time())
        end = start + timedelta(days=1)
        print(f"\nThe sensor with the most anomalies is {sensor}. {reasoning}")
        print(f'\n>>> get_measurements("{sensor}", "{start:%Y-%m-%d}", "{end:%Y-%m-%d}")')
        print(get_measurements(sensor, start, end).to_string(max_rows=8))
    report = open_warehouse().report.url
    print(f"\nPicture:  {report}/worst-01.png\nReport:   {report}/index.html")
    print("Web page: make dev, then open http://127.0.0.1:3000")


if __name__ == "__main__":
    main()
