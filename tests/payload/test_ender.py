"""The ender against a real HTTP vendor: it looks without touching, fires without end, and never says what it sends."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import os
import signal
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from boxes import PAYLOAD, until
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from vendor import KEY, Vendor, reply

from providers.colab import ender as colab

ENDER = [sys.executable, "-I", "-S", "-B"]


@pytest.fixture
def ender(payload):
    return payload("ender")


@pytest.fixture
def vendor():
    with Vendor() as vendor:
        yield vendor


@pytest.fixture
def quick(ender, monkeypatch):
    """The ender with a second for each request."""
    monkeypatch.setattr(ender, "LONGEST_ASK", 1.0)
    return ender


def kept(folder, orders):
    """Keep orders as the watchdog's hand does."""
    argv = [*ENDER, PAYLOAD / "ender.py", "keep", folder]
    return subprocess.run(argv, input=json.dumps(orders).encode(), capture_output=True, timeout=30, check=True)


def fired(module, orders, *, rounds=50):
    """Fire with no waiting; what it said, and what it waited."""
    said, waits = [], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        assert len(waits) < 5 * rounds, "it goes on for ever"

    folder = module.Path("/nonexistent")
    module.fire(folder, said.append, sleep, read=lambda _: orders)
    return said, waits


# ── its file ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_orders_are_for_nobody_else_s_eyes_and_the_program_lies_beside_them(vendor, tmp_path):
    folder = tmp_path / "lib" / "m"
    kept(folder, vendor.orders())
    assert stat.S_IMODE((folder / "ender.json").stat().st_mode) == 0o600
    assert json.loads((folder / "ender.json").read_text()) == vendor.orders()
    assert (folder / "ender.py").read_bytes() == (PAYLOAD / "ender.py").read_bytes()
    kept(folder, vendor.orders(pace_seconds=1))  # done again, it is replaced
    assert json.loads((folder / "ender.json").read_text())["pace_seconds"] == 1
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "ender.json", "ender.py"]


def test_what_can_not_be_read_is_said_without_a_word_of_it(tmp_path):
    (tmp_path / "ender.json").write_text(f'{{"routes": ["{KEY}"')
    done = subprocess.run(
        [*ENDER, PAYLOAD / "ender.py", "look", tmp_path], capture_output=True, text=True, timeout=30, check=True
    )
    assert "make no sense" in json.loads(done.stdout)["evidence"]
    assert KEY not in done.stdout + done.stderr


# ── the look ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_look_changes_nothing_and_says_what_the_vendor_said(ender, vendor):
    said = ender.look(vendor.orders())
    assert said["said"] == "alive"
    assert said["evidence"] == "GET localhost/machines/m-1 → 200, alive"
    assert [method for _, method, *_ in vendor.asked] == ["GET"]


@pytest.mark.parametrize(
    ("trouble", "said"), [(503, "unclear"), (404, "unclear"), (403, "refused"), (200, "unclear"), (301, "unclear")]
)
def test_only_the_vendor_s_own_words_mean_alive_or_gone(ender, vendor, trouble, said):
    vendor.troubles = [trouble]
    assert ender.look(vendor.orders())["said"] == said


def test_a_vendor_that_can_not_be_tried_is_there_whatever_it_answers_or_it_is_unclear(quick, vendor, monkeypatch):
    monkeypatch.setenv("TBE_RUNTIME_ADDR", f"localhost:{vendor.port}")
    orders = colab.orders()
    orders["look"]["headers"] = vendor.orders()["look"]["headers"]  # this one asks for a key
    for trouble in (200, 404, 403, 503):
        vendor.troubles = [trouble]
        evidence = f"GET …/ → {trouble}, there"
        assert quick.look(orders) == {"said": "there", "evidence": evidence}
    assert {path for _, _, path, *_ in vendor.asked} <= {"/"}
    monkeypatch.setenv("TBE_RUNTIME_ADDR", "localhost:9")
    assert quick.look(orders)["said"] == "unclear"
    monkeypatch.delenv("TBE_RUNTIME_ADDR")
    assert quick.look(orders)["said"] == "unclear"


def test_a_key_that_is_refused_is_told_from_a_vendor_that_is_not_there(quick, vendor):
    vendor.key = "another"
    assert quick.look(vendor.orders())["said"] == "refused"
    orders = json.loads(json.dumps(vendor.orders()).replace(str(vendor.port), "9"))
    assert quick.look(orders) == {
        "said": "unclear",
        "evidence": "GET localhost/machines/m-1 → Connection refused, unclear",
    }


def test_no_redirect_is_followed_with_the_key(ender, vendor):
    with Vendor() as thief:
        away = f"http://localhost:{thief.port}/machines/m-1"
        vendor.troubles = [lambda request: reply(request, 301, {}, Location=away)]
        assert ender.look(vendor.orders())["said"] == "unclear"
        assert thief.asked == []


def test_an_answer_that_dribbles_or_never_comes_costs_a_moment_only(quick, vendor):
    def dribble(request) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        for _ in range(20):
            if vendor.over.wait(0.2):
                return
            request.wfile.write(b" ")

    def silence(_request) -> None:
        vendor.over.wait(4)

    for trouble in (dribble, silence):
        vendor.troubles = [trouble]
        assert quick.look(vendor.orders())["evidence"].endswith("→ no answer within 1 s, unclear")
    vendor.over.set()


def test_a_header_that_can_not_be_sent_is_not_quoted(ender, vendor):
    orders = vendor.orders()
    orders["look"]["headers"]["Authorization"] = f"Bearer {KEY}\nx"
    assert KEY not in json.dumps(ender.look(orders))


def test_values_of_the_machine_stand_where_their_names_do(ender, vendor, monkeypatch):
    text = json.dumps(vendor.orders()).replace(KEY, "{env:MACHINE_KEY}").replace("m-1", "{env:MACHINE_ID}")
    orders = {**vendor.orders(), "look": json.loads(text)["look"]}
    assert ender.look(orders)["evidence"].endswith("→ KeyError, unclear")
    monkeypatch.setenv("MACHINE_KEY", KEY)
    monkeypatch.setenv("MACHINE_ID", "m-1")
    assert ender.look(orders)["said"] == "alive"
    assert "/machines/… → " in ender.look(orders)["evidence"]  # neither the value nor its name


# ── firing ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_fires_until_the_vendor_says_gone_again_and_again(ender, vendor):
    vendor.deaf = 4
    said, _ = fired(ender, vendor.orders())
    assert [one["said"] for one in said] == ["alive"] * 4 + ["gone"] * 3
    assert len(vendor.told()) == 7


def test_one_flicker_of_gone_is_not_believed(ender, vendor):
    vendor.deaf = 3
    gone = lambda request: reply(request, 404, {"error": {"code": "no-such-machine"}})  # noqa: E731
    vendor.troubles = [None, gone]
    said, _ = fired(ender, vendor.orders())
    assert [one["said"] for one in said] == ["gone", "alive", "alive", "gone", "gone", "gone"]


def test_every_route_is_tried_in_order(ender, vendor):
    orders = vendor.orders()
    nobody = {**orders["routes"][0], "url": "http://localhost:9/end"}
    wrong = {**orders["routes"][0], "body": {"ids": ["m-2"]}}
    said, _ = fired(ender, {**orders, "routes": [nobody, wrong, *orders["routes"]]})
    assert [one["said"] for one in said] == ["gone"] * 3
    assert [body for _, method, _, body in vendor.asked if method == "POST"][:2] == [{"ids": ["m-2"]}, {"ids": ["m-1"]}]


def test_a_vendor_that_is_away_for_an_hour_is_asked_at_least_each_half_a_minute(ender, monkeypatch):
    answers = iter([ender.Answer(0, "Network is unreachable")] * 130)
    orders = {"routes": [{"method": "POST"}], "look": {"method": "GET", "url": "http://x/m"}, "alive": [], "gone": [{}]}
    monkeypatch.setattr(ender, "ask", lambda _request: next(answers, ender.Answer(200, {})))
    said, waits = fired(ender, orders, rounds=500)
    assert [one["said"] for one in said] == ["unclear"] * 130 + ["gone"] * 3
    assert ender.LONGEST_ASK + max(waits) + 1.1 < 30


def test_a_disk_that_is_away_is_waited_for(ender, vendor):
    reads = iter([OSError(5, "I/O error"), ValueError("half a file"), vendor.orders()])

    def read(_folder):
        found = next(reads)
        if isinstance(found, Exception):
            raise found
        return found

    said = []
    ender.fire(None, said.append, lambda _seconds: None, read=read)
    assert [one["said"] for one in said] == ["unclear"] * 2 + ["gone"] * 3


def test_it_obeys_no_signal_and_a_second_one_leaves_it_alone(vendor, tmp_path):
    vendor.deaf = 10**6
    folder = tmp_path / "m"
    kept(folder, vendor.orders())
    argv = [*ENDER, folder / "ender.py", "fire", folder]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as first:
        try:
            until(lambda: len(vendor.told()) >= 1, "its first shot")
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
                first.send_signal(number)
            told = len(vendor.told())
            assert subprocess.run(argv, timeout=30, check=False, stdout=subprocess.DEVNULL).returncode == 3
            until(lambda: len(vendor.told()) > told, "another shot")
            command = b"\0".join(os.fsencode(word) for word in argv)
            assert KEY.encode() not in command + Path(f"/proc/{first.pid}/cmdline").read_bytes()
        finally:
            first.kill()


# ── a clock that is wrong ─────────────────────────────────────────────────────────────────────────────────────────


def certified(folder, *, name="localhost", days=(-400, -300)):
    """A certificate of an authority of its own, valid in these days from now; gives the server's context."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + dt.timedelta(days=days[0]))
        .not_valid_after(now + dt.timedelta(days=days[1]))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@pytest.mark.parametrize("days", [(-400, -300), (300, 400)], ids=["clock ahead", "clock behind"])
def test_a_clock_that_jumped_by_years_does_not_keep_it_from_its_vendor(ender, tmp_path, monkeypatch, days):
    with Vendor(certified(tmp_path, days=days)) as vendor:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert ender.look(vendor.orders())["said"] == "alive"


@pytest.mark.parametrize("wrong", ["name", "authority"])
def test_another_s_certificate_gets_no_key(ender, tmp_path, monkeypatch, wrong):
    context = certified(tmp_path, name="example.com" if wrong == "name" else "localhost")
    with Vendor(context) as vendor:
        if wrong == "name":
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert ender.look(vendor.orders())["said"] == "unclear"
        assert vendor.asked == []


# ── several ways ──────────────────────────────────────────────────────────────────────────────────────────────────


def several(vendor, **more):
    """Orders with a second way to ask, as a vendor with two APIs needs them."""
    orders = vendor.orders()
    wrong = {**orders["look"], "headers": {"Authorization": "Bearer wrong"}}
    second = {key: orders[key] for key in ("look", "alive", "gone")}
    return {**orders, "look": wrong, "more": [second], **more}


def test_a_second_way_to_ask_is_taken_where_the_first_is_closed_and_both_are_told(ender, vendor):
    said = ender.look(several(vendor))
    assert said["said"] == "alive"
    assert said["evidence"].count("→ 401, refused;") == said["evidence"].count("→ 200, alive") == 1


def test_only_where_every_way_is_closed_the_key_is_called_refused(ender, vendor):
    orders = several(vendor)
    assert ender.look({**orders, "more": [{**orders["more"][0], "look": orders["look"]}]})["said"] == "refused"
    broken = {
        **orders["look"],
        "url": f"http://127.0.0.1:{vendor.port}/nowhere",
        "headers": vendor.orders()["look"]["headers"],
    }
    assert ender.look({**orders, "more": [{**orders["more"][0], "look": broken}]})["said"] == "unclear"


@pytest.mark.parametrize(
    ("answer", "fits"),
    [
        ({"data": {"pod": None}}, True),
        ({"data": None}, False),
        ({}, False),
        (None, False),
        ({"data": {"pod": None}, "errors": [{"message": "no"}]}, False),
        ({"data": {"pod": {"id": "m-1"}}}, False),
    ],
)
def test_what_an_answer_does_not_say_is_no_null_in_it(ender, answer, fits):
    rule = {"status": [200], "at": ["data", "pod"], "in": [None], "without": ["errors"]}
    assert ender.fits(rule, ender.Answer(200, answer)) is fits


def test_a_rule_may_name_a_value_of_the_machine(ender, vendor, monkeypatch):
    orders = vendor.orders()
    orders["alive"] = json.loads(json.dumps(orders["alive"]).replace("m-1", "{env:MACHINE_ID}"))
    assert ender.look(orders)["said"] == "unclear"
    monkeypatch.setenv("MACHINE_ID", "m-1")
    assert ender.look(orders)["said"] == "alive"


def test_a_command_is_a_route_and_the_last_ones_are_for_when_nobody_took_an_earlier_one(ender, vendor, tmp_path):
    touch = lambda name: {"argv": ["touch", str(tmp_path / name)], "last": True}  # noqa: E731
    refused = {**vendor.orders()["routes"][0], "headers": {"Authorization": "Bearer wrong"}}
    ender.end_once({**vendor.orders(), "routes": [refused, touch("a"), touch("b")]}, lambda _: None)
    assert [(tmp_path / name).exists() for name in "ab"] == [True, False]
    vendor.deaf = 1
    ender.end_once({**vendor.orders(), "routes": [*vendor.orders()["routes"], touch("c")]}, lambda _: None)
    assert not (tmp_path / "c").exists()
    gone = ender.end_once(
        {**vendor.orders(), "routes": [{"argv": [str(tmp_path / "no such program")]}]}, lambda _: None
    )
    assert (gone["said"], "No such file" in gone["evidence"]) == ("unclear", True)
