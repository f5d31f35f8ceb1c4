"""What the Hugging Face hub and Google Drive answer, as far as their clients ask, for the loopback server."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import ssl
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from support.loopback import Reply, Request

COMMIT = "c0ffee" + "0" * 34


def fake_hub(repository: str, files: Mapping[str, bytes]) -> Callable[[Request], Reply]:
    """One model repository with one revision, ``main``."""
    listing = [
        {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
        for name, body in files.items()
    ]

    def answer(request: Request) -> Reply:
        path = request.path.split("?")[0]
        as_json = {"Content-Type": "application/json"}
        if path == f"/api/models/{repository}/revision/main":
            siblings = [{"rfilename": name} for name in files]
            info = {"_id": "1", "id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings}
            return Reply(200, json.dumps(info).encode(), as_json)
        if path.startswith(f"/api/models/{repository}/tree/"):
            return Reply(200, json.dumps(listing).encode(), as_json)
        match = re.fullmatch(rf"/{repository}/resolve/[^/]+/(.+)", path)
        if match and match.group(1) in files:
            body = files[match.group(1)]
            return Reply(200, body, {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": COMMIT})
        return Reply(404, b"{}", as_json | {"X-Error-Code": "RepoNotFound"})

    return answer


class FakeHubThatTakes:
    """A hub that repositories can be made on and pushed to; ``files`` is what it got, large ones by their own way.

    ``refuse``: a path's ending -> the status that it is answered with.
    """

    def __init__(self, token: str, refuse: Mapping[str, int] | None = None) -> None:
        self.token, self.refuse = token, refuse or {}
        self.made: dict[str, dict] = {}
        self.files: dict[str, bytes] = {}
        self.message = ""
        self._large: dict[str, bytes] = {}  # by SHA-256

    def __call__(self, request: Request) -> Reply:
        path = request.path.split("?")[0]
        for ending, status in self.refuse.items():
            if path.endswith(ending):
                return Reply(status, b'{"error": "no"}', {"Content-Type": "application/json"})
        if path.startswith("/large/"):
            self._large[path.removeprefix("/large/")] = request.body
            return Reply()
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _json({"error": "Invalid token"}, 401)
        if path == "/api/repos/create":
            wanted = json.loads(request.body)
            name = f"{wanted['organization']}/{wanted['name']}"
            status = 409 if name in self.made else 200
            self.made.setdefault(name, wanted)
            return _json({"url": f"http://{request.headers['Host']}/{name}"}, status)
        if path.endswith("/preupload/main"):
            return _json({"files": [self._way(file["path"]) for file in json.loads(request.body)["files"]]})
        if path.endswith("/info/lfs/objects/batch"):
            upload = f"http://{request.headers['Host']}/large/"
            objects = [
                {**thing, "actions": {"upload": {"href": upload + thing["oid"]}}}
                for thing in json.loads(request.body)["objects"]
            ]
            return _json({"transfer": "basic", "objects": objects})
        if path.endswith("/commit/main"):
            self._commit([json.loads(line) for line in request.body.splitlines()])
            repository = path.removeprefix("/api/models/").removesuffix("/commit/main")
            address = f"http://{request.headers['Host']}/{repository}/commit/{COMMIT}"
            return _json({"commitUrl": address, "commitOid": COMMIT})
        return _json({})  # checks of the card

    def _way(self, path: str) -> dict:
        way = "lfs" if path.endswith(".safetensors") else "regular"
        return {"path": path, "uploadMode": way, "shouldIgnore": False}

    def _commit(self, lines: list[dict]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.message = value["summary"]
            elif line["key"] == "lfsFile":
                body = self._large[value["oid"]]
                assert hashlib.sha256(body).hexdigest() == value["oid"]
                self.files[value["path"]] = body
            else:
                self.files[value["path"]] = base64.b64decode(value["content"])


def _json(content: object, status: int = 200) -> Reply:
    return Reply(status, json.dumps(content).encode(), {"Content-Type": "application/json"})


def fake_drive(folder_id: str, files: Mapping[str, bytes]) -> Callable[[Request], Reply]:
    """One shared folder; its files' ids are ``drive_id(name)``."""
    by_id = {drive_id(name): (name, body) for name, body in files.items()}

    def answer(request: Request) -> Reply:
        host = request.headers["Host"]
        wanted = re.search(r"[?&]id=([\w-]+)", request.path)
        if host == "drive.google.com" and request.path.startswith("/embeddedfolderview"):
            if wanted is None or wanted.group(1) != folder_id:
                return Reply(404, b"", {"Content-Type": "text/html"})
            links = "".join(
                f'<a href="https://drive.google.com/file/d/{key}/view?usp=drive_web">{html.escape(name)}</a>'
                for key, (name, _) in by_id.items()
            )
            page = f"<html><head><title>clips</title></head><body>{links}</body></html>"
            return Reply(200, page.encode(), {"Content-Type": "text/html; charset=utf-8"})
        if wanted and wanted.group(1) in by_id:
            name, body = by_id[wanted.group(1)]
            headers = {"Content-Type": "application/octet-stream"}
            return Reply(200, body, headers | {"Content-Disposition": f'attachment; filename="{name}"'})
        return Reply(404, b"", {"Content-Type": "text/html"})

    return answer


def drive_id(name: str) -> str:
    return "id" + hashlib.sha256(name.encode()).hexdigest()[:31]


def google_certificate(folder: Path) -> tuple[Path, ssl.SSLContext] | None:
    """A throw-away certificate for Google's hosts, made by the openssl program; None without it."""
    if shutil.which("openssl") is None:
        return None
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    names = ",".join(f"DNS:{host}.google.com" for host in ("drive", "docs", "drive.usercontent"))
    command = (
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName={names}"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context
