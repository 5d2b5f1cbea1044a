"""A web service that takes alerts and heartbeats, and can be down."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CANARY = "canary-of-a-token"


@dataclass
class Sink:
    """What has come in.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        is_up: Whether it takes messages, or answers that it can't.
        messages: What Apprise has posted, as its JSON.
        heartbeats: How often it was called without a message.
        refused: How often it answered that it can't.
    """

    port: int = 0
    is_up: bool = True
    messages: list[dict[str, Any]] = field(default_factory=list)
    heartbeats: int = 0
    refused: int = 0

    @property
    def url(self) -> str:
        """The URL for Apprise, which holds a secret as such URLs do. Messages come as plain text."""
        return f"json://user:{CANARY}@127.0.0.1:{self.port}/{CANARY}?format=text"

    @property
    def heartbeat_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/heartbeat/{CANARY}"

    @property
    def titles(self) -> list[str]:
        return [message["title"] for message in self.messages]

    @property
    def text(self) -> str:
        """The text of the only message."""
        (message,) = self.messages
        return str(message["message"])


@contextmanager
def running_sink() -> Iterator[Sink]:
    sink = Sink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self._answer():
                sink.messages.append(json.loads(body))

        def do_GET(self) -> None:
            if self._answer():
                sink.heartbeats += 1

        def _answer(self) -> bool:
            sink.refused += not sink.is_up
            self.send_response(200 if sink.is_up else 503)
            self.end_headers()
            return sink.is_up

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        sink.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield sink
        server.shutdown()
        thread.join()
