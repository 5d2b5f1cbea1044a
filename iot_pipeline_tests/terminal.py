"""A terminal to run a command in, as wide as wanted."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from contextlib import suppress


def run_in_terminal(*arguments: str, columns: int) -> str:
    """Run ``iot-pipeline`` in a terminal and return what it shows, without bold type."""
    command = [sys.executable, "-m", "iot_pipeline.cli", *arguments]
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    # COLUMNS of who runs the tests must not count, and rich takes a dumb terminal for 80 columns wide.
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    shown = b""
    with os.fdopen(reader, "rb", buffering=0) as screen:
        process = os.posix_spawn(
            command[0],
            command,
            {**environment, "TERM": "xterm"},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, writer, 1),
                (os.POSIX_SPAWN_DUP2, writer, 2),
                (os.POSIX_SPAWN_CLOSE, writer),
            ],
        )
        os.close(writer)
        with suppress(OSError):  # the terminal is gone when its last user is
            while chunk := screen.read(65536):
                shown += chunk
    os.waitpid(process, 0)
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode().replace("\r\n", "\n"))
