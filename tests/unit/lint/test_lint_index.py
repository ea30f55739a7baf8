"""What the package index is asked, and what is made of its answer."""

from __future__ import annotations

import http.server
import json
import threading

import pytest

from orchestrator import lint
from orchestrator.lint import index

KNOWN = {"torch": ["2.6.0", "2.13.0"], "odd": ["not a version", "1.0"]}


@pytest.fixture
def served():
    """An index on loopback; a name that starts with `broken` is answered with 500."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/").rpartition("/")[2]
            code = 500 if name.startswith("broken") else 200 if name in KNOWN else 404
            body = json.dumps({"versions": KNOWN.get(name)}).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/vnd.pypi.simple.v1+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    server.server_close()


def asked(dependencies: list[str], **environ: str) -> list[str]:
    text = f"# /// script\n# dependencies = {json.dumps(dependencies)}\n# ///\n"
    report = index.asked(lint.check("x.py", text), environ)
    return [one.sentence("x.py") for one in report.errors]


def test_a_name_that_no_index_knows_is_an_error_with_its_line(served):
    assert asked(["torch", "no-such-thing"], UV_DEFAULT_INDEX=served) == ["x.py:2: no package is called no-such-thing"]


def test_a_version_that_no_index_has_is_an_error(served):
    assert asked(["torch>=3"], PIP_INDEX_URL=served) == ["x.py:2: no torch is >=3 → the newest is 2.13.0"]
    assert asked(["torch>=2.7,<3", "torch==2.13.*", "odd"], PIP_INDEX_URL=served) == []


def test_an_index_that_does_not_answer_says_nothing(served):
    assert asked(["broken-thing"], UV_INDEX_URL=served) == []
    assert asked(["no-such-thing"], UV_INDEX_URL="http://127.0.0.1:9/simple") == []
    assert asked(["no-such-thing"], UV_INDEX_URL=served, PIP_EXTRA_INDEX_URL="http://127.0.0.1:9/simple") == []


@pytest.mark.parametrize("name", ["PIP_FIND_LINKS", "UV_FIND_LINKS", "PIP_NO_INDEX"])
def test_where_packages_lie_elsewhere_too_nobody_is_asked(served, name):
    assert asked(["no-such-thing"], UV_INDEX_URL=served, **{name: "1"}) == []


def test_an_address_is_asked_of_no_index(served):
    assert asked(["no-such-thing @ https://x.example/a-1-py3-none-any.whl"], UV_INDEX_URL=served) == []
