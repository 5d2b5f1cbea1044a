"""The objects of an S3 bucket as files that DuckDB can read without its ``httpfs`` extension.

That extension would have to be downloaded and verifies no checksums: a bit flipped in transit would become a
wrong reading.
"""

import threading
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from fsspec import AbstractFileSystem

if TYPE_CHECKING:
    from iot_pipeline.store._s3 import ObjectInfo, S3Store

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


class S3Files(AbstractFileSystem):  # type: ignore[misc]
    """Read access to the files of one store by their URLs; none of them may change meanwhile.

    DuckDB caches what it has read and this class caches the files' metadata, so repeating a query costs no
    requests.
    """

    protocol = "s3"
    cachable = False

    def __init__(self, store: "S3Store") -> None:
        """Give access to the files of a store."""
        super().__init__()
        self._store = store
        self._describe = cache(store.describe)

    def glob(self, path: str, **_: Any) -> list[str]:
        """Return the path itself: patterns are not supported."""
        return [path]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return a file's name, size and type."""
        return {"name": path, "size": self._describe(self._name(path)).size, "type": "file"}

    def open(self, path: str, *_: Any, **__: Any) -> "S3File":
        """Open a file for reading."""
        name = self._name(path)
        return S3File(self._store, name, self._describe(name))

    def modified(self, _path: str) -> datetime:
        """Return a constant time long ago: files never change."""
        return LONG_AGO

    def _name(self, path: str) -> str:
        return f"s3://{path.removeprefix('s3://')}".removeprefix(f"{self._store.url}/")


class S3File:
    """An open file.

    Each thread has its own position, because DuckDB seeks and reads in two calls and another thread may do
    the same in between. Each thread also keeps the blocks it read last: the length of a Parquet file's footer
    and the footer itself usually lie in the same block.
    """

    def __init__(self, store: "S3Store", name: str, info: "ObjectInfo") -> None:
        """Open an object."""
        self._store = store
        self._name = name
        self._info = info
        self.size = info.size
        self._local = threading.local()

    def tell(self) -> int:
        """Return the position."""
        return getattr(self._local, "position", 0)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position relative to the start (0), the current position (1) or the end (2)."""
        position: int = offset + (0, self.tell(), self.size)[whence]
        self._local.position = position
        return position

    def read(self, length: int = -1) -> bytes:
        """Read some bytes, by default all that remain."""
        start = self.tell()
        end = self.size if length < 0 else min(start + length, self.size)
        if end <= start:
            return b""
        first, content = getattr(self._local, "last", (0, b""))
        if not first <= start <= end <= first + len(content):
            first, content = self._local.last = self._store.read_blocks(self._name, self._info, start, end)
        self._local.position = end
        return content[start - first : end - first]

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
