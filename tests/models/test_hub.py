"""push_to_hub and loading by hub id, against a hub on this machine that speaks the part of the protocol they need."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from kinegru.errors import ModelFileError
from kinegru.models import from_pretrained, save_model, save_pretrained

LABELS = ["run", "walk", "jump", "sit"]


class Hub(BaseHTTPRequestHandler):
    """Repositories in memory: {"owner/name": {file name: content}}."""

    protocol_version = "HTTP/1.1"
    repositories: dict

    def log_message(self, *args):
        pass

    def reply(self, status=200, body=b"", **headers):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        repo, _, rest = self.path.lstrip("/").partition("/resolve/")
        content = self.repositories.get(repo, {}).get(rest.partition("/")[2])
        if content is None:
            return self.reply(
                404, b"{}", X_Error_Code="RepoNotFound" if repo not in self.repositories else "EntryNotFound"
            )
        return self.reply(200, content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit="c" * 40)

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = {}
        if self.headers.get("Authorization") != "Bearer secret" and "validate" not in self.path:
            return self.reply(401, b'{"error": "no token"}')
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            self.repositories.setdefault(repo, {})
            answer = {"url": f"http://{self.headers['Host']}/{repo}"}
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            answer = {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        elif "/commit/" in self.path:
            repo = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.repositories[repo][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            answer = {"commitUrl": f"http://{self.headers['Host']}/{repo}/commit/{'c' * 40}", "commitOid": "c" * 40}
        return self.reply(200, json.dumps(answer).encode(), Content_Type="application/json")


@pytest.fixture
def hub(tmp_path):
    handler = type("TestHub", (Hub,), {"repositories": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "hub cache"),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "HF_HUB_DISABLE_XET": "1",
        "OMP_NUM_THREADS": "1",
    }
    yield handler.repositories, environment
    server.shutdown()
    server.server_close()


def python(code, environment, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


CODE = """
import sys
from kinegru.errors import ModelFileError
from kinegru.models import from_pretrained, push_to_hub, resolve

print(push_to_hub(sys.argv[1], "people/walks", token="secret"))
loaded = from_pretrained("people/walks")
print(loaded.labels, resolve("people/walks@main").read_bytes() == open(sys.argv[1], "rb").read())
for call in (lambda: resolve("people/nothing"), lambda: push_to_hub(sys.argv[1], "people/other", token="wrong")):
    try:
        call()
    except ModelFileError as error:
        print(error)
"""


@pytest.mark.service
def test_a_pushed_model_loads_by_its_hub_id(hub, small, tmp_path):
    repositories, environment = hub
    path = save_model(tmp_path / "model.safetensors", small(), LABELS, {"size": 64}, {"metrics": {"top-1": 0.9}})
    url, loaded, missing, refused = python(CODE, environment, path)
    assert "people/walks" in url and loaded == f"{LABELS} True"
    assert set(repositories["people/walks"]) == {"README.md", "model.safetensors"}
    card = repositories["people/walks"]["README.md"].decode()
    assert "run, walk, jump, sit" in card and "top-1: 0.9" in card and "kinegru predict people/walks" in card
    assert missing.startswith("people/nothing: ") and "not uploaded" in refused and "people/other" not in repositories


def test_save_pretrained_writes_a_folder_that_loads(small, tmp_path):
    model = small()
    path = save_pretrained(tmp_path / "mine", model, LABELS, {"size": 64}, {"seed": 1})
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["README.md", "model.safetensors"]
    loaded = from_pretrained(tmp_path / "mine")
    frames = torch.rand(1, 2, 3, 64, 64)
    assert torch.equal(loaded.model(frames), model.eval()(frames)) and loaded.labels == LABELS
    assert from_pretrained(path).provenance == {"seed": 1}
    with pytest.raises(ModelFileError):
        from_pretrained(tmp_path)
