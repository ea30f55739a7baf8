"""The one road to a vendor's API, against real servers that misbehave."""

from __future__ import annotations

import gzip
import logging
import re
import socket
import traceback
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from scripted import Answer, Scripted

from providers.base import Secret
from providers.errors import ProviderError, UnreachableError, UsageError
from providers.http import Http, base_url, printable
from providers.pacing import Pacer

KEY = "secret_test_0123456789abcdef.0123456789abcdef"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def pacer(tmp_path):
    return Pacer(tmp_path / "pace" / "vendor.json", {"": 0.0, "launch": 0.0})


@pytest.fixture
def http(server, pacer):
    yield (client := Http("Vendor", server.url + "/api/v1", Secret(KEY), pacer, pace=50))
    client._session.close()


def holds_the_key(error: BaseException) -> bool:
    """Whether the key shows anywhere on the way from the error back to its first cause, or in its fields."""
    text = "".join(traceback.format_exception(error, chain=True))
    while error is not None:
        text += repr(vars(error)) + repr(error.args)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return KEY in text


# ── what is sent ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_key_travels_as_bearer_and_we_say_who_we_are(http, server):
    http.call("GET", "/things", params={"page_token": "a b&c"})
    asked = server.asked[0]
    assert (asked.method, asked.path) == ("GET", "/api/v1/things?page_token=a+b%26c")
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert re.fullmatch(r"gpurun/\S+ \(\+https://\S+\)", asked.headers["user-agent"])


def test_netrc_does_not_change_who_we_are(http, server, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    http.call("GET", "/things")
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_proxy_of_the_environment_is_used(http, server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    Http("Vendor", "http://127.0.0.1:9/api", Secret(KEY), http._pacer, pace=50).call("GET", "/things")
    assert server.asked[0].path == "http://127.0.0.1:9/api/things"


def test_a_repr_of_the_client_shows_no_key(http):
    http.call("GET", "/things")
    assert KEY not in repr(http) + repr(vars(http)) + repr(vars(http._session))


def test_no_log_line_holds_the_key(http, server, caplog):
    caplog.set_level(logging.DEBUG)
    server.script = [Answer(500), Answer.error(403, "x", KEY)]
    http.call("GET", "/things")
    assert caplog.text
    assert KEY not in caplog.text


# ── where it is sent ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_redirect_is_an_error_and_the_key_does_not_follow_it(http, server, status, method):
    with closing(Scripted()) as other:
        server.script = [Answer(status, b"", {"Location": f"{other.url}/api/v1/things?token=t"})]
        with pytest.raises(ProviderError, match=rf"{status}, a redirect to {re.escape(other.url)}: not followed"):
            http.call(method, "/things")
    assert (other.asked, len(server.asked)) == ([], 1)


@pytest.mark.parametrize("location", ["", "//", "http://[", "\x1b]0;evil", "x" * 9000])
def test_a_redirect_to_nonsense_is_the_same_error(http, server, location):
    server.script = [Answer(302, b"", {"Location": location})]
    with pytest.raises(ProviderError, match="redirect") as caught:
        http.call("GET", "/things")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "url",
    [
        "http://cloud.lambda.ai/api/v1",
        "cloud.lambda.ai",
        "",
        "ftp://127.0.0.1",
        "https://user:pw@host/",
        "https://h/?k=1",
    ],
)
def test_a_key_is_sent_to_https_only(url):
    with pytest.raises(UsageError, match="GPURUN_X_URL"):
        base_url(url, "GPURUN_X_URL")


@pytest.mark.parametrize("url", ["https://cloud.lambda.ai/api/v1/", "http://127.0.0.1:8123/api", "http://localhost:1"])
def test_this_computer_is_asked_without_tls(url):
    assert base_url(url, "GPURUN_X_URL") == url.rstrip("/")


# ── answers ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("body", [b"", b"[]", b'"text"', b"null", b"<html>", b"{", b"\xff\xfe", b"[" * 10**5])
def test_what_is_no_json_object_has_no_body(http, server, body):
    server.script = [Answer(200, body, {"Content-Type": "text/html"})]
    reply = http.call("GET", "/things")
    assert (reply.status, reply.body, reply.kind) == (200, None, "text/html")


def test_a_vendor_that_quotes_the_key_is_not_quoted(http, server):
    server.script = [Answer.error(400, "x", f"the key {KEY} is wrong")]
    assert KEY not in repr(http.call("GET", "/things"))


def test_a_compressed_answer_is_read(http, server):
    server.script = [Answer(200, gzip.compress(b'{"data": 1}'), {"Content-Encoding": "gzip"})]
    assert http.call("GET", "/things").body == {"data": 1}


@pytest.mark.parametrize("packed", [True, False])
def test_an_answer_without_measure_is_refused(http, server, packed, monkeypatch):
    monkeypatch.setattr("providers.http._BODY_LIMIT", 2**20)
    body = b" " * 2**21
    server.script = [Answer(200, gzip.compress(body), {"Content-Encoding": "gzip"}) if packed else Answer(200, body)]
    with pytest.raises(UnreachableError, match="larger than 1 MiB"):
        http.call("POST", "/things")


def test_an_answer_that_drips_is_given_up(http, server, monkeypatch):
    monkeypatch.setattr("providers.http._LEAST_READ_SECONDS", 0.2)
    server.script = [Answer(200, b'{"data": 1}', drip=0.05)]
    with pytest.raises(UnreachableError, match="does not end"):
        http.call("POST", "/things", read_seconds=0.2)


def test_no_answer_in_time_is_an_error_that_says_so(http, server, monkeypatch):
    monkeypatch.setattr("providers.http._LEAST_READ_SECONDS", 0.1)
    server.script = [Answer(200, b"{}", {"Content-Length": "9"}, drip=0.2)]
    with pytest.raises(UnreachableError, match=r"it broke off|no answer within|does not end"):
        http.call("POST", "/things", read_seconds=0.1)


@pytest.mark.parametrize(
    "answer",
    [Answer(hang_up=True), Answer(200, b'{"data": 1}', cut=4), Answer(200, b"no gzip", {"Content-Encoding": "gzip"})],
    ids=["hung up", "half a body", "not what it says"],
)
def test_half_an_answer_is_none(http, server, answer):
    server.script = [answer]
    with pytest.raises(UnreachableError) as caught:
        http.call("POST", "/things")
    assert not holds_the_key(caught.value)
    assert len(server.asked) == 1


def test_nobody_there_is_unreachable_and_the_error_holds_no_key(pacer):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(UnreachableError, match=r"Vendor: POST /things: no connection") as caught:
        Http("Vendor", f"http://127.0.0.1:{port}", Secret(KEY), pacer).call("POST", "/things")
    assert not holds_the_key(caught.value)


# ── again, or not ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("trouble", [Answer(429), Answer(500), Answer(502, b"<html>"), Answer(hang_up=True)])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_safe_question_is_asked_again(http, server, trouble, method):
    server.script = [trouble, trouble, Answer.data(7)]
    assert http.call(method, "/things").body == {"data": 7}
    assert len(server.asked) == 3


@pytest.mark.parametrize("trouble", [Answer(429), Answer(500), Answer(hang_up=True)])
def test_a_post_is_sent_once(http, server, trouble):
    server.script = [trouble]
    with suppress(UnreachableError):
        http.call("POST", "/launch", lane="launch")
    assert len(server.asked) == 1


def test_a_post_that_is_safe_twice_is_asked_again(http, server):
    server.script = [Answer(503), Answer.data(1)]
    assert http.call("POST", "/terminate", safe=True).status == 200


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409])
def test_a_refusal_is_final(http, server, status):
    server.script = [Answer(status)]
    assert http.call("GET", "/things").status == status
    assert len(server.asked) == 1


def test_trouble_that_lasts_is_told_after_a_few_tries(http, server):
    server.script = [Answer(500)]
    assert http.call("GET", "/things").status == 500
    assert len(server.asked) == 4


def test_a_post_goes_over_a_connection_that_is_surely_open(http, server):
    """A kept connection may have died unseen: then nobody could tell whether the launch was sent."""
    for method in ("GET", "GET", "POST", "POST"):
        http.call(method, "/things")
    ports = [asked.port for asked in server.asked]
    assert ports[0] == ports[1]
    assert len(set(ports)) == 3


def test_a_429_is_honoured(http, server):
    server.script = [Answer(429, b"", {"Retry-After": "0.3"}), Answer.data(1)]
    http.call("GET", "/things")
    assert server.asked[1].at - server.asked[0].at >= 0.3


@pytest.mark.parametrize("wish", ["86400", "-5", "soon", "", "9" * 40, "Fri, 31 Dec 9999 23:59:59 GMT", "1e9", "nan"])
def test_an_insane_retry_after_does_not_keep_us(http, server, wish):
    server.script = [Answer(429, b"", {"Retry-After": wish}), Answer.data(1)]
    assert http.call("GET", "/things").status == 200
    assert server.asked[1].at - server.asked[0].at < 60


# ── the vendor's clock ────────────────────────────────────────────────────────────────────────────────────────────


def dated(moment: datetime) -> Answer:
    return Answer(200, b"{}", {"Date": format_datetime(moment, usegmt=True)})


@pytest.mark.parametrize("ahead", [-7200, -90, 90, 86400])
def test_the_vendor_s_clock_is_read_off_its_answers(http, server, ahead):
    server.script = [dated(datetime.now(UTC) + timedelta(seconds=ahead))]
    reply = http.call("GET", "/things")
    assert abs(http.skew.total_seconds() - ahead) < 2
    assert abs((reply.at - datetime.now(UTC)).total_seconds() - ahead) < 2


@pytest.mark.parametrize("date", ["", "yesterday", "Thu, 99 Foo 2026 99:99:99 GMT", "Fri, 31 Dec 9999 23:59:59 -2300"])
def test_a_date_that_makes_no_sense_moves_no_clock(http, server, date):
    server.script = [Answer(200, b"{}", {"Date": date} if date else {})]
    reply = http.call("GET", "/things")
    assert http.skew == timedelta(0)
    assert abs((reply.at - datetime.now(UTC)).total_seconds()) < 2


def test_whole_seconds_are_no_skew(http, server):
    server.script = [dated(datetime.now(UTC))]
    http.call("GET", "/things")
    assert http.skew == timedelta(0)


# ── words ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_words_of_strangers_are_one_printable_line(nasty):
    shown = printable(nasty + "\x1b[2J\r\n\x00" + "x" * 10**6, 60)
    assert shown.isprintable()
    assert len(shown) <= 60
