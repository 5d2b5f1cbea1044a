"""Who is told what, once: a digest after each run of the nightly job.

``events`` reads what was found, ``digest`` decides what is news, ``message`` puts it into words, ``outbox``
remembers what was told and what waits, ``services`` send, and ``delivery`` brings them together.
"""

from iot_pipeline.alerts.delivery import Announcement, announce, send_test
from iot_pipeline.alerts.digest import FailedCheck, Run
from iot_pipeline.alerts.outbox import describe_outbox

__all__ = ["Announcement", "FailedCheck", "Run", "announce", "describe_outbox", "send_test"]
