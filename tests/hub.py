"""A small stand-in of the Hugging Face Hub on loopback: repositories, LFS uploads, commits and downloads."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml
from huggingface_hub import constants

TOKEN = "hf_planted0token0that0nobody0may0read"


class Hub:
    """What it holds.

    - `repos`: files by path, by repository; `private`: which were asked to be; `commits`: the summaries, in order.
    - `objects`: LFS uploads by hash; `asked`: (method, path) of every request; `sent`: every body that came.
    - `answer`: a status by (method, path) that is given instead, or None.
    """

    def __init__(self):
        self.repos, self.private, self.commits, self.objects = {}, {}, [], {}
        self.asked, self.sent = [], []
        self.answer = lambda method, path: None

    def add(self, name, folder):
        """A repository with the files of `folder`."""
        self.repos[name] = {
            str(file.relative_to(folder)): file.read_bytes() for file in Path(folder).rglob("*") if file.is_file()
        }

    def sha(self, name):
        content = sorted((path, hashlib.sha256(data).hexdigest()) for path, data in self.repos[name].items())
        return hashlib.sha1(json.dumps(content).encode()).hexdigest()

    def published(self):
        """Every byte that was sent: bodies, with what is base64 in them as it was, and uploads."""
        plain = [base64.b64decode(text) for body in self.sent for text in re.findall(rb'"content": "([^"]*)"', body)]
        return b"\n".join([*self.sent, *plain, *self.objects.values()])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, value=b"", **headers):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        headers = {"Content-Length": str(len(data)), **{name.replace("_", "-"): text for name, text in headers.items()}}
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def handle_one(self):
        hub, path = self.server.hub, self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.asked.append((self.command, path))
        if status := hub.answer(self.command, path):
            return self.reply(status, {"error": "not today"}, X_Error_Message="not today")
        if self.command == "POST":
            hub.sent.append(body)
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.reply(401, {"error": "Invalid username or password."})
        for method, pattern, act in ROUTES:
            if method in (self.command, "GET" if self.command == "HEAD" else "") and (
                found := re.fullmatch(pattern, path)
            ):
                return act(self, hub, body, *found.groups())
        return self.reply(404, {"error": f"no such place: {self.command} {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_one  # noqa: N815


def create(handler, hub, body):
    asked = json.loads(body)
    name = f"{asked.get('organization') or 'me'}/{asked['name']}"
    url = {"url": f"{handler.server.url}/{name}"}
    if name in hub.repos:
        return handler.reply(409, url | {"error": "You already created this model repo"})
    hub.repos[name] = {".gitattributes": b"*.safetensors filter=lfs\n"}
    hub.private[name] = asked.get("visibility") == "private" or asked.get("private") is True
    return handler.reply(200, url)


def info(handler, hub, _, name):
    if name not in hub.repos:
        return handler.reply(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
    siblings = [{"rfilename": path} for path in hub.repos[name]]
    about = {"id": name, "sha": hub.sha(name), "siblings": siblings, "tags": []}
    return handler.reply(200, about | {"private": hub.private.get(name, False)})


def entry(path, data):
    about = {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if path.endswith(".safetensors"):
        about["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return about


def tree(handler, hub, _, name):
    if name not in hub.repos:
        return handler.reply(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
    return handler.reply(200, [entry(path, data) for path, data in sorted(hub.repos[name].items())])


def preupload(handler, hub, body, name):
    def mode(path):
        return {
            "path": path,
            "uploadMode": "lfs" if path.endswith(".safetensors") else "regular",
            "shouldIgnore": False,
        }

    return handler.reply(200, {"files": [mode(file["path"]) for file in json.loads(body)["files"]]})


def batch(handler, hub, body, name):
    def action(asked):
        place = {"upload": {"href": f"{handler.server.url}/lfs/{asked['oid']}?signature=secret"}}
        return asked if asked["oid"] in hub.objects else asked | {"actions": place}

    objects = [action({key: each[key] for key in ("oid", "size")}) for each in json.loads(body)["objects"]]
    return handler.reply(200, {"transfer": "basic", "objects": objects})


def upload(handler, hub, body, oid):
    assert hashlib.sha256(body).hexdigest() == oid
    hub.objects[oid] = body
    return handler.reply(200)


def commit(handler, hub, body, name):
    files = dict(hub.repos[name])
    for line in body.decode().splitlines():
        what = json.loads(line)
        value = what["value"]
        if what["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif what["key"] == "lfsFile":
            files[value["path"]] = hub.objects[value["oid"]]
        elif what["key"] == "deletedFile":
            del files[value["path"]]
        else:
            hub.commits.append((name, value["summary"]))
    hub.repos[name] = files
    sha = hub.sha(name)
    return handler.reply(200, {"commitUrl": f"{handler.server.url}/{name}/commit/{sha}", "commitOid": sha})


def resolve(handler, hub, _, name, path):
    data = hub.repos.get(name, {}).get(path)
    if data is None:
        return handler.reply(404, b"", X_Error_Code="EntryNotFound" if name in hub.repos else "RepoNotFound")
    about = entry(path, data)
    etag = about.get("lfs", about)["oid"]
    return handler.reply(200, data, ETag=f'"{etag}"', X_Repo_Commit=hub.sha(name))


def validate(handler, hub, body):
    """As far as it is known what the Hub asks of metadata."""
    said = yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
    results = [result for index in said.get("model-index", []) for result in index["results"]]
    errors = [] if re.fullmatch(r"[\w.-]+", said.get("license", "mit")) else ["license is none"]
    errors += [] if isinstance(said.get("tags", []), list) else ["tags are no list"]
    for result in results:
        if not re.fullmatch(r"(?:[\w-]+/)?[\w.-]+", result["dataset"]["type"]):
            errors.append("dataset.type fails to match the required pattern")
        if not all({"type", "value"} <= metric.keys() for metric in result["metrics"]):
            errors.append("a metric lacks a value")
    return handler.reply(400 if errors else 200, {"errors": [{"message": each} for each in errors], "warnings": []})


NAME = r"([\w.-]+(?:/[\w.-]+)?)"
ROUTES = [
    ("POST", r"/api/repos/create", create),
    ("POST", r"/api/validate-yaml", validate),
    ("GET", rf"/api/models/{NAME}/tree/\w+", tree),
    ("GET", rf"/api/models/{NAME}(?:/revision/\w+)?", info),
    ("POST", rf"/api/models/{NAME}/preupload/main", preupload),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", batch),
    ("PUT", r"/lfs/(\w+)", upload),
    ("POST", rf"/api/models/{NAME}/commit/main", commit),
    ("GET", rf"/{NAME}/resolve/\w+/(.+)", resolve),
]


@contextmanager
def served(monkeypatch, cache):
    """Within it, huggingface_hub takes the stand-in for the Hub, and the planted token for the user's."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.hub, server.url = Hub(), f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.hub.url = server.url
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()
