"""A real HTTP server with the manners and the faults that weight servers show."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

PAGE = b"<!DOCTYPE html>\n<html><body>Please log in</body></html>" * 40
CUT = 40_000  # bytes the flaky server sends before it hangs up


class Handler(BaseHTTPRequestHandler):
    """``/MANNER/FILE``: files come from ``files``; every request is noted in ``seen``."""

    protocol_version = "HTTP/1.1"
    files: ClassVar[dict[str, bytes]] = {}
    seen: ClassVar[list[tuple[str, str | None]]] = []
    etag: ClassVar[str] = '"one"'

    def log_message(self, *args: object) -> None:
        """Keep the test output clean."""

    def do_GET(self) -> None:
        manner, name = self.path.strip("/").split("/", 1)
        Handler.seen.append((self.path, self.headers.get("Range")))
        self.close_connection = True
        if manner == "missing":
            self.send_error(404)
        elif manner == "busy" and len(Handler.seen) < 3:
            self.send_error(503)
        elif manner == "page":
            self._send(PAGE, kind="text/html; charset=utf-8")
        elif manner == "disguised-page":
            self._send(PAGE)
        elif manner == "unmeasured":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(Handler.files[name][:1000])
        else:
            self._send(Handler.files[name], manner=manner)

    def _send(self, body: bytes, manner: str = "good", kind: str = "application/octet-stream") -> None:
        total, start = len(body), 0
        asked = self.headers.get("Range")
        current = self.headers.get("If-Range") in (None, Handler.etag)
        if asked and manner != "no-range" and current:
            start = int(asked.removeprefix("bytes=").split("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(total - start))
        if manner != "no-etag":
            self.send_header("ETag", Handler.etag)
        self.end_headers()
        rest = body[start:]
        if manner == "flaky":
            self.wfile.write(rest[:CUT])
        elif manner == "dead":
            self.wfile.write(rest[: max(0, 1500 - start)])
        elif manner == "stalls" and not asked:
            self.wfile.write(rest[:CUT])
            self.rfile.read(1)  # nothing more until the client is gone
        else:
            self.wfile.write(rest)


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up or is killed is part of the tests."""


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[str]:
    """The address of a server of these files, on a free local port."""
    Handler.files, Handler.seen, Handler.etag = files, [], '"one"'
    server = _Quiet(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
