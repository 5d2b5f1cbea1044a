"""A place for files, behind one small interface: a directory or an S3 bucket.

The source and the warehouse are both such places. What belongs here: listing, reading, writing and deleting
files, and what a place's faults mean. What does not: what the files are.
"""

from iot_pipeline.store._connection import S3Connection
from iot_pipeline.store._directory import DirectoryStore
from iot_pipeline.store._errors import one_line, query_error, table_error
from iot_pipeline.store._interface import (
    UNFINISHED,
    ObjectChangedError,
    ObjectVanishedError,
    Store,
    StoredObject,
)
from iot_pipeline.store._open import as_source, open_source, open_store
from iot_pipeline.store._s3 import S3Store
from iot_pipeline.store._upload import UploadReport, upload

__all__ = [
    "UNFINISHED",
    "DirectoryStore",
    "ObjectChangedError",
    "ObjectVanishedError",
    "S3Connection",
    "S3Store",
    "Store",
    "StoredObject",
    "UploadReport",
    "as_source",
    "one_line",
    "open_source",
    "open_store",
    "query_error",
    "table_error",
    "upload",
]
