"""A model that is not bundled: its config.json comes from the Hub, once; gate, absence and silence are told apart."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from orchestrator.estimate import inputs
from providers.errors import UsageError

CONFIG = {
    "model_type": "qwen2",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 1000,
}
COMMIT = "0" * 39 + "1"


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as one file takes."""

    asked: list[str]

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        type(self).asked.append(f"{self.command} {self.path}")
        text = json.dumps(CONFIG).encode()
        code = {"/gated/": 403, "/absent/": 404}.get(self.path[: self.path.find("/", 1) + 1], 200)
        self.send_response(code)
        if code != 200:
            error = {403: "GatedRepo", 404: "RepoNotFound"}[code]
            self.send_header("X-Error-Code", error)
            self.send_header("X-Error-Message", error)
            text = b""
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", '"abc"')
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if body:
            self.wfile.write(text)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    from huggingface_hub import close_session, constants

    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    there = f"http://127.0.0.1:{server.server_port}"  # what HF_ENDPOINT sets where the client is imported
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", there + template)
    monkeypatch.setattr(constants, "ENDPOINT", there)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # as tests/conftest.py has it for all others
    yield Hub
    close_session()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_config_is_fetched_once_and_counted(hub):
    shape = inputs.model("someone/novel")
    assert (shape.kind, shape.layers, shape.exact) == ("qwen2", 2, True)
    asked = len(hub.asked)
    assert inputs.model("someone/novel") == shape
    assert len(hub.asked) == asked


def test_a_gated_model_names_the_page_to_accept(hub):
    with pytest.raises(UsageError, match="gated/novel is gated") as raised:
        inputs.model("gated/novel")
    assert raised.value.hint == "accept its terms at https://huggingface.co/gated/novel"
    assert hub.asked


def test_a_model_that_is_not_there_is_told_so(hub):
    with pytest.raises(UsageError, match="the Hub has no model absent/novel"):
        inputs.model("absent/novel")
    assert hub.asked


def test_without_a_hub_it_is_said_at_once(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match="the Hub cannot be reached"):
        inputs.model("someone/novel")


def test_a_bundled_model_asks_nobody(hub):
    assert inputs.model("Qwen/Qwen2.5-7B").parameters == 7_615_616_512
    assert hub.asked == []
