"""``python -m iot_pipeline.cli`` is ``iot-pipeline``."""

import sys

from iot_pipeline.cli import main

sys.exit(main())
