"""The cells of docs/notebook.md, run in their order."""

import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from iot_pipeline import get_measurements, list_sensors, plot

NOTEBOOK = Path(__file__).parent.parent / "docs" / "notebook.md"


def test_the_cells_of_the_notebook_go_from_a_name_to_a_picture(
    sample_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IOT_WAREHOUSE", str(sample_warehouse))
    names: dict[str, Any] = {}
    cells = re.findall(r"```python\n(.*?)```", NOTEBOOK.read_text(), re.DOTALL)
    for cell in cells:
        exec(cell, names)  # noqa: S102 - our own document
    assert isinstance(names["figure"], Figure)
    assert names["days"]["n"].sum() == len(get_measurements(names["name"]))
    assert names["several"]["sensor_name"].nunique() == 3
    assert len(names["readings"]) > 0
    assert len(names["last"]) == len(list_sensors())


def test_a_plot_shows_the_range_that_is_asked_for(sample_warehouse: Path) -> None:
    figure = plot("sensor_00003", "2013-10-05", "2013-10-12", warehouse=sample_warehouse)
    assert isinstance(figure, Figure)
    with pytest.raises(ValueError, match="has no readings in that range of time"):
        plot("sensor_00003", "1999-01-01", "1999-01-02", warehouse=sample_warehouse)
