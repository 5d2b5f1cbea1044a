"""Checksums: the MD5 that S3 usually uses as the ETag, and a CRC-32 for each block of a file.

The block checksums are stored as the object's metadata, so a range can be verified without the rest.
"""

import hashlib
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Self

LEAST_BYTES = 64 * 2**10
MOST_BLOCKS = 150
"""Checksums for this many fit into the 2 kB of metadata that S3 allows per object."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """The expected checksums of a file's blocks.

    Attributes:
        n_bytes: Length of a block; the last one may be shorter.
        crc32: The checksum of each block, as eight hexadecimal digits.
    """

    n_bytes: int
    crc32: tuple[str, ...]

    @classmethod
    def of_file(cls, file: IO[bytes]) -> Self:
        """Compute the checksums of a file and rewind it."""
        n_bytes = max(LEAST_BYTES, -(-file.seek(0, os.SEEK_END) // MOST_BLOCKS))
        file.seek(0)
        crc32 = tuple(_crc32(block) for block in iter(lambda: file.read(n_bytes), b""))
        file.seek(0)
        return cls(n_bytes, crc32)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self | None:
        """Read the checksums from an object's metadata; None if another tool wrote it."""
        n_bytes, crc32 = metadata.get("block-bytes", ""), metadata.get("block-crc32", "")
        if not n_bytes.isdecimal() or int(n_bytes) == 0:
            return None
        return cls(int(n_bytes), tuple(crc32[start : start + 8] for start in range(0, len(crc32), 8)))

    def to_metadata(self) -> dict[str, str]:
        """Return the checksums as object metadata."""
        return {"block-bytes": str(self.n_bytes), "block-crc32": "".join(self.crc32)}

    def widen(self, start: int, end: int) -> tuple[int, int]:
        """Extend a range to whole blocks; the end may lie past the end of the file."""
        return start - start % self.n_bytes, end + -end % self.n_bytes

    def verify(self, start: int, content: bytes) -> bool:
        """Return whether the content, which starts at a block boundary, matches its checksums."""
        view = memoryview(content)
        crc32 = [_crc32(view[at : at + self.n_bytes]) for at in range(0, len(content), self.n_bytes)]
        first = start // self.n_bytes
        return tuple(crc32) == self.crc32[first : first + len(crc32)]


def md5(file: IO[bytes]) -> str:
    """Return the MD5 of a file from its current position, as hexadecimal digits."""
    digest = hashlib.md5(usedforsecurity=False)
    for part in iter(lambda: file.read(2**20), b""):
        digest.update(part)
    return digest.hexdigest()


def _crc32(block: bytes | memoryview) -> str:
    return f"{zlib.crc32(block):08x}"
