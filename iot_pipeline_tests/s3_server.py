"""An S3 server on loopback, and a proxy in front of it that injects the faults of a network."""

import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from moto.moto_server.threaded_moto_server import ThreadedMotoServer

HANGING_SECONDS = 3.0
NEWLINE = "NEWLINE"
"""What stands for a newline in the keys behind the proxy; the server can't hold such keys."""


@contextmanager
def running_s3_server() -> Iterator[str]:
    """Run an empty S3 server; yields its URL."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()
        if server._server:
            server._server.server_close()  # stop() leaves the socket open


class FaultyProxy(ThreadingHTTPServer):
    """Passes requests on; those for an object meet the listed faults first, one each.

    Attributes:
        only: A pattern for the requests that meet the faults, like ``PUT .*json``; by default all.
        faults: By name, in the order in which requests for objects meet them: a status like ``503``,
            ``reset`` (the connection), ``hang`` (no answer), ``stall`` (half of the body, then nothing),
            ``cut`` (half of the body, then the end), ``short`` (half of the body as if it were all) or
            ``flip`` (one bit of the body). What starts with ``<`` is the answer itself.
        listing_faults: Likewise for listings.
        requests: How often each path was asked for.
    """

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.only = ""
        self.faults: list[str] = []
        self.listing_faults: list[str] = []
        self.requests: Counter[str] = Counter()
        self._lock = threading.Lock()

    def next_fault(self, method: str, path: str) -> str:
        """Count a request and return the fault it meets; empty when it meets none."""
        with self._lock:
            self.requests[unquote(path.partition("?")[0])] += 1
            faults = self.listing_faults if "list-type" in path else self.faults
            return faults.pop(0) if faults and re.match(self.only, f"{method} {path}") else ""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that have gone away."""


@contextmanager
def running_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """Run a proxy in front of a server."""
    with FaultyProxy(upstream) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def do_GET(self) -> None:
        self.close_connection = True
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.next_fault(self.command, self.path)
        if fault == "hang":
            time.sleep(HANGING_SECONDS)
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif fault.startswith("<"):
            self._answer(
                200, {"Content-Type": "text/html", "Content-Length": str(len(fault))}, fault.encode()
            )
        elif fault.isdigit():
            error = b"<Error><Code>SlowDown</Code><Message>Please reduce your rate.</Message></Error>"
            self._answer(int(fault), {"Content-Length": str(len(error))}, error)
        else:
            self._pass_on(fault, content)

    do_HEAD = do_GET  # noqa: N815
    do_PUT = do_GET  # noqa: N815
    do_POST = do_GET  # noqa: N815
    do_DELETE = do_GET  # noqa: N815

    def _pass_on(self, fault: str, content: bytes) -> None:
        upstream = HTTPConnection(self.server.upstream)
        try:
            upstream.request(
                self.command, self.path.replace("%0A", NEWLINE), content, headers=dict(self.headers)
            )
            response = upstream.getresponse()
            body = response.read().replace(NEWLINE.encode(), b"%0A")
        finally:
            upstream.close()
        # Not the server's own checksums: with them boto3 would verify whole objects, on some servers.
        kept = ("etag", "content-type", "content-range", "last-modified", "x-amz-meta-")
        headers = {name: value for name, value in response.getheaders() if name.lower().startswith(kept)}
        length = response.getheader("Content-Length") if self.command == "HEAD" else len(body)
        headers["Content-Length"] = str(length or 0)
        if fault == "flip":
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        elif fault in {"cut", "stall", "short"}:
            body = body[: len(body) // 2]
        if fault == "short":
            headers["Content-Length"] = str(len(body))
        self._answer(response.status, headers, body)
        if fault == "stall":
            time.sleep(HANGING_SECONDS)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Waits:
    """Stands in for the ``time`` module where boto3 waits before it tries again."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
