"""Files in a directory or an S3 bucket, behind one small interface.

The source and the warehouse are both stores. This package lists, reads, writes and deletes files and explains
a store's errors; it knows nothing of what the files contain.
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
from iot_pipeline.store._open import open_source, open_store
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
    "one_line",
    "open_source",
    "open_store",
    "query_error",
    "table_error",
    "upload",
]
