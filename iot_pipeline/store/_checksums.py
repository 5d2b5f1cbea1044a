"""Checksums: the MD5 that S3 usually uses as the ETag, and a CRC-32 for each block of a file.

The block checksums are stored as the object's metadata, so a range can be verified without the rest.
"""

import hashlib
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import IO, Self

LEAST_BYTES = 64 * 2**10
MOST_BLOCKS = 150
"""Checksums for this many fit into the 2 kB of metadata that S3 allows per object."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """The expected checksums of a file's blocks.

    Attributes:
        n_bytes: Length of a block; the last one may be shorter.
        crc32: The checksums of the blocks in their order, eight hexadecimal digits each.
    """

    n_bytes: int
    crc32: str

    @classmethod
    def of_file(cls, file: IO[bytes]) -> Self:
        """Compute the checksums of a file and rewind it."""
        n_bytes = max(LEAST_BYTES, -(-file.seek(0, os.SEEK_END) // MOST_BLOCKS))
        file.seek(0)
        crc32 = _crc32_of_blocks(file, n_bytes)
        file.seek(0)
        return cls(n_bytes, crc32)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self | None:
        """Read the checksums from an object's metadata; None if another tool wrote it."""
        n_bytes = metadata.get("block-bytes", "")
        if not n_bytes.isdecimal() or int(n_bytes) == 0:
            return None
        return cls(int(n_bytes), metadata.get("block-crc32", ""))

    def to_metadata(self) -> dict[str, str]:
        """Return the checksums as object metadata."""
        return {"block-bytes": str(self.n_bytes), "block-crc32": self.crc32}

    def widen(self, start: int, end: int) -> tuple[int, int]:
        """Extend a range to whole blocks; the end may lie past the end of the file."""
        return start - start % self.n_bytes, end + -end % self.n_bytes

    def verify(self, start: int, content: bytes) -> bool:
        """Return whether the content, which starts at a block boundary, matches its checksums."""
        crc32 = _crc32_of_blocks(BytesIO(content), self.n_bytes)
        first = start // self.n_bytes * 8
        return crc32 == self.crc32[first : first + len(crc32)]


def md5(file: IO[bytes]) -> str:
    """Return the MD5 of a file from its current position, as hexadecimal digits."""
    digest = hashlib.md5(usedforsecurity=False)
    for part in iter(partial(file.read, 2**20), b""):
        digest.update(part)
    return digest.hexdigest()


def _crc32_of_blocks(file: IO[bytes], n_bytes: int) -> str:
    return "".join(f"{zlib.crc32(block):08x}" for block in iter(partial(file.read, n_bytes), b""))
