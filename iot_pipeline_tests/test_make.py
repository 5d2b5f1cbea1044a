"""What `make` refuses before it starts anything."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(("target", "variable"), [("dev", "PORT"), ("explore", "EXPLORE_PORT")])
def test_a_taken_port_is_refused_in_one_line_and_no_daemon_is_left_running(
    tmp_path: Path, target: str, variable: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = ["make", "--old-file=.venv/installed", f"BIN={Path(sys.executable).parent}", target]
        command += [f"DAGSTER_HOME={tmp_path}", f"{variable}={port}"]
        answer = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
    assert answer.returncode != 0
    assert answer.stderr.splitlines()[0] == f"port {port} is taken: make {target} {variable}={port + 1}"
    assert not list(tmp_path.iterdir())
