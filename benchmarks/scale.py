"""Query latency as the data grows: 1, 3 and 10 times the sensors, 1, 3 and 10 times the months.

    python benchmarks/scale.py

Each size is generated, loaded and asked the same kind of questions in one warm process.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from query import ours, questions

from iot_pipeline import connect
from iot_pipeline.ingest import load_mapping, load_timeseries
from iot_pipeline.samples.bucket import write_sample_bucket
from iot_pipeline.warehouse import Warehouse, open_warehouse
from iot_pipeline.warehouse.state import read_state

SENSORS, DAYS = 500, 62
SIZES = ((1, 1), (3, 1), (10, 1), (1, 3), (1, 10))


def make_warehouse(directory: Path, *, sensors: int, days: int) -> Warehouse:
    write_sample_bucket(directory / "bucket", sensors=sensors, days=days, seed=1)
    load_mapping(source=str(directory / "bucket"), warehouse=directory / "warehouse")
    load_timeseries(source=str(directory / "bucket"), warehouse=directory / "warehouse")
    return open_warehouse(directory / "warehouse")


def median_ms(warehouse: Warehouse, span: str, count: int) -> float:
    query, times = ours(warehouse), []
    for question in questions(warehouse, span, count + 5):
        start = time.perf_counter()
        query(*question)
        times.append((time.perf_counter() - start) * 1000)
    return float(np.median(times[5:]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=200)
    options = parser.parse_args()
    print("| sensors | months | readings | day, ms | month, ms | everything, ms |\n|---|---|---|---|---|---|")
    for times_sensors, times_days in SIZES:
        with tempfile.TemporaryDirectory() as name:
            warehouse = make_warehouse(Path(name), sensors=SENSORS * times_sensors, days=DAYS * times_days)
            months = len(read_state(warehouse).months)
            cells = [median_ms(warehouse, span, options.questions) for span in ("day", "month", "everything")]
            row = [f"{SENSORS * times_sensors:,}", f"{months}", f"{n_readings(warehouse):,}"]
            print("| " + " | ".join([*row, *(f"{cell:.1f}" for cell in cells)]) + " |", flush=True)


def n_readings(warehouse: Warehouse) -> int:
    with connect(warehouse.url) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM measurements").fetchall()
    return int(count)


if __name__ == "__main__":
    main()
