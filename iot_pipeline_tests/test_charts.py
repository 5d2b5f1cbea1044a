from datetime import date, timedelta

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from iot_pipeline.report import draw_anomalies_per_week, draw_readings_per_month
from iot_pipeline.report.charts import MOST_LABELS, plot_counts
from iot_pipeline.report.plot import colour_of
from iot_pipeline_tests.conftest import Bucket


def steps(figure: Figure) -> list[StepPatch]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, StepPatch)]


def heights(step: StepPatch) -> list[float]:
    values, _, below = step.get_data()
    return [float(height) for height in values - below]


def labels(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_xticklabels()]


def test_a_period_without_counts_is_a_gap() -> None:
    figure = plot_counts({"readings": {"2013-11": 5, "2014-02": 7}}, what="readings", per="month")
    assert heights(steps(figure)[0]) == [5, 0, 0, 7]
    assert labels(figure) == ["2013-11", "2013-12", "2014-01", "2014-02"]


def test_weeks_go_from_monday_to_monday() -> None:
    figure = plot_counts({"spike": {"2013-12-23": 1, "2014-01-06": 2}}, what="readings", per="week")
    assert labels(figure) == ["2013-12-23", "2013-12-30", "2014-01-06"]


def test_series_stand_on_each_other_in_the_colours_of_their_kinds() -> None:
    counts = {"spike": {"2013-12-23": 1}, "drift": {"2013-12-23": 2, "2013-12-30": 3}}
    spike, drift = steps(plot_counts(counts, what="readings", per="week"))
    assert (heights(spike), heights(drift)) == ([1, 0], [2, 3])
    assert list(np.asarray(drift.get_data()[2])) == [1, 0]
    assert (spike.get_label(), drift.get_label()) == ("spike", "drift")
    assert colour_of("spike") != colour_of("drift")


@pytest.mark.parametrize(("series", "legends"), [(["spike"], 0), (["spike", "drift"], 1)])
def test_a_legend_is_needed_only_for_more_than_one_series(series: list[str], legends: int) -> None:
    counts = {name: {"2013-12-23": 1} for name in series}
    assert len(plot_counts(counts, what="readings", per="week").legends) == legends


def test_ten_years_of_weeks_have_no_more_labels_than_fit() -> None:
    weeks = {str(date(2013, 1, 7) + timedelta(weeks=week)): 1 for week in range(520)}
    assert 2 < len(labels(plot_counts({"gap": weeks}, what="readings", per="week"))) <= MOST_LABELS


def test_the_charts_of_an_empty_warehouse_are_none(bucket: Bucket) -> None:
    bucket.load()
    assert draw_readings_per_month(warehouse=bucket.warehouse) is None
    assert draw_anomalies_per_week(warehouse=bucket.warehouse) is None
