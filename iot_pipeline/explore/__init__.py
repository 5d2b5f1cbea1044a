"""A web page on which one looks at any sensor, at any time, and answers back.

The page is NiceGUI's, its charts are ECharts'; both come with the extra ``explore``. What it asks of the
warehouse is in `_data`; what is shown is computed by functions that know neither a warehouse nor a browser.
"""

from iot_pipeline.explore._server import serve

__all__ = ["serve"]
