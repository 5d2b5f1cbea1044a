"""Takes the quotes off a line, so that pyarrow can split it without looking for quotes."""

import csv
import re

_PLAIN_FIELD = rb'(?:"[^";]*+"|[^";]*+)'
_PLAIN_LINE = re.compile(_PLAIN_FIELD + rb"(?:;" + _PLAIN_FIELD + rb")*+")
"""Its quoted fields hold neither quotes nor delimiters."""
_FIELD = rb'(?:"[^"]*+(?:""[^"]*+)*+"|[^";]*+)'
_LINE = re.compile(_FIELD + rb"(?:;" + _FIELD + rb")*+")
_SHORT = 1_000
"""Bytes of a line that are well within the limits of the csv module."""


def without_quotes(line: bytes) -> bytes:
    """Return a line without its quotes; nothing if one of them is stray.

    A quote or delimiter within a quoted field becomes an apostrophe.

    Args:
        line: UTF-8 without line ends and NULs.
    """
    if len(line) < _SHORT and _PLAIN_LINE.fullmatch(line):
        return line.replace(b'"', b"")
    if not _LINE.fullmatch(line):
        return b""
    try:
        (fields,) = csv.reader([line.decode()], delimiter=";", strict=True)
    except (csv.Error, ValueError):
        return b""
    return ";".join(field.replace(";", "'").replace('"', "'") for field in fields).encode()
