"""The warehouse: where its tables lie, how they are committed, and how they are read.

``delta`` commits and opens tables, ``state`` says what is current, ``query`` and ``status`` read it.
"""

from iot_pipeline.warehouse._layout import (
    MAPPING,
    Warehouse,
    new_data_file,
    open_folder,
    open_warehouse,
    readable_write_errors,
    readings_file,
    rejects_file,
)

__all__ = [
    "MAPPING",
    "Warehouse",
    "new_data_file",
    "open_folder",
    "open_warehouse",
    "readable_write_errors",
    "readings_file",
    "rejects_file",
]
