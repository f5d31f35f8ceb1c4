"""A web server on this machine for tests of downloads: real sockets, no network."""

from __future__ import annotations

import hashlib
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Reply:
    """What the server sends; with ``cut`` the connection breaks after so many bytes of the body."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


@dataclass
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


@contextmanager
def serve(
    answer: Callable[[Request], Reply], tls: ssl.SSLContext | None = None
) -> Iterator[tuple[str, list[Request]]]:
    """Runs a server in a thread; yields its address and the requests that it has seen.

    With ``tls`` it is also an HTTPS proxy that answers in the place of every host.
    """
    seen: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(self.command, self.path, self.headers, sent)
            seen.append(request)
            reply = answer(request)
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body[: reply.cut])

        do_HEAD = do_POST = do_PUT = do_GET

        def do_CONNECT(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.connection = tls.wrap_socket(self.connection, server_side=True)
            self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
            self.close_connection = False

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def file_server(files: Mapping[str, bytes]) -> Callable[[Request], Reply]:
    """Answers with whole files or, where a matching ``If-Range`` asks for it, with the rest of one."""

    def answer(request: Request) -> Reply:
        body = files.get(request.path.split("?")[0])
        if body is None:
            return Reply(404, b"nothing here")
        tag = f'"{hashlib.sha256(body).hexdigest()[:12]}"'
        headers = {"ETag": tag, "Content-Type": "application/octet-stream"}
        wanted = request.headers.get("Range")
        if wanted is None or request.headers.get("If-Range") != tag:
            return Reply(200, body, headers)
        start = int(wanted.removeprefix("bytes=").split("-")[0])
        if start >= len(body):
            return Reply(416, b"", headers | {"Content-Range": f"bytes */{len(body)}"})
        return Reply(
            206, body[start:], headers | {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
        )

    return answer
