"""Where an ender's orders are kept and who reads them; how often it looks."""

from __future__ import annotations

import getpass
import json
import os
import stat
import sys

import pytest
from boxes import until
from vendor import KEY, Vendor

from providers.colab import ender as colab

MARK = "gpurun-beef-demo-260101-0123ab-1-tt8k3q1"


@pytest.fixture
def lever(payload, tmp_path, monkeypatch):
    """The module, with places of the test's own."""
    module = payload("lever")
    monkeypatch.setattr(module, "ROOT", tmp_path / "lib" / "gpurun")
    monkeypatch.setattr(module, "OWN", tmp_path / "home" / "ender")
    for folder in ("lib", "home"):
        (tmp_path / folder).mkdir()
    return module


def sudo(tmp_path, monkeypatch, script: str) -> None:
    """Put a sudo first in the path, and let nobody be root without it."""
    program = tmp_path / "sudo"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


@pytest.mark.parametrize(
    ("script", "base"),
    [
        ('[ "$1" = -n ] && shift && exec "$@"', "ROOT"),  # passwordless
        ("echo 'sudo: a password is required' >&2; exit 1", "OWN"),
        ('[ "$2" = true ]', "OWN"),  # root can't write there
    ],
)
def test_orders_are_root_s_where_root_is_to_be_had_else_the_user_s(lever, tmp_path, monkeypatch, script, base):
    sudo(tmp_path, monkeypatch, script)
    orders = {"routes": [], "look": {"url": KEY}, "alive": [], "gone": []}
    assert lever.put(MARK, json.dumps(orders).encode()) == getpass.getuser()
    folder = lever.folder_of(MARK)
    assert folder == getattr(lever, base) / MARK
    assert stat.S_IMODE((folder / "ender.json").stat().st_mode) == 0o600
    assert json.loads((folder / "ender.json").read_text()) == orders


def test_where_it_can_be_kept_nowhere_the_error_does_not_quote_it(lever, tmp_path, monkeypatch):
    sudo(tmp_path, monkeypatch, "exit 1")
    lever.OWN.write_text("a file, and no folder")
    with pytest.raises(OSError, match="can't be kept") as raised:
        lever.put(MARK, json.dumps({"key": KEY}).encode())
    assert KEY not in str(raised.value)
    assert lever.folder_of(MARK) is None


def test_another_s_orders_are_asked_for_by_sudo_and_one_s_own_without(lever, monkeypatch):
    lever.put(MARK, b'{"routes": 1, "look": 1, "alive": 1, "gone": 1}')
    folder = lever.folder_of(MARK)
    ours = [sys.executable, "-I", "-S", "-B", str(folder / "ender.py"), "fire", str(folder)]
    assert lever.argv_of(folder, "fire") == ours
    monkeypatch.setattr(os, "geteuid", lambda: (folder / "ender.json").stat().st_uid + 1000)
    assert lever.argv_of(folder, "fire") == ["sudo", "-n", *ours]


def heard(hand, now: float) -> None:
    """Hear a look out."""
    hand.tend(now)
    assert hand.runs
    until(lambda: hand.tend(now) or not hand.runs, "its word")


def test_it_looks_at_once_then_seldom_and_soon_again_after_a_failure(lever):
    with Vendor() as vendor:
        hand = lever.Lever(MARK)
        hand.tend(0.0)
        assert (hand.runs, hand.proof()) == (False, {"ender": ""})
        lever.put(MARK, json.dumps(vendor.orders()).encode())
        assert hand.proof()["ender"] == "not asked yet"
        heard(hand, 1.0)
        proof = hand.proof()
        assert (proof["ender"], proof["ender_failures"], proof["ender_user"]) == ("alive", 0, getpass.getuser())
        assert proof["ender_at"] is not None
        hand.tend(lever.LOOKS_EVERY)
        assert not hand.runs
        vendor.key = "another"
        heard(hand, lever.LOOKS_EVERY + 2)
        heard(hand, lever.LOOKS_EVERY + lever.LOOKS_AGAIN + 3)
        again = hand.proof()
        assert (again["ender"], again["ender_failures"], again["ender_at"]) == ("refused", 2, proof["ender_at"])
        vendor.key = KEY
        heard(hand, lever.LOOKS_EVERY + 2 * lever.LOOKS_AGAIN + 4)
        assert (hand.proof()["ender"], hand.proof()["ender_failures"]) == ("alive", 0)


def test_a_vendor_that_is_there_proves_nothing_and_is_no_failure(lever, monkeypatch):
    with Vendor() as vendor:
        monkeypatch.setenv("TBE_RUNTIME_ADDR", f"localhost:{vendor.port}")
        lever.put(MARK, json.dumps(colab.orders()).encode())
        hand = lever.Lever(MARK)
        heard(hand, 1.0)
        proof = hand.proof()
        assert (proof["ender"], proof["ender_failures"], proof["ender_at"]) == ("there", 0, None)
        hand.tend(lever.LOOKS_EVERY)
        assert not hand.runs


def test_one_that_does_not_run_or_says_nothing_has_failed(lever):
    lever.put(MARK, b'{"routes": 1, "look": 1, "alive": 1, "gone": 1}')
    folder = lever.folder_of(MARK)
    hand = lever.Lever(MARK)
    (folder / "ender.py").write_text("raise SystemExit(1)")
    heard(hand, 1.0)
    assert (hand.proof()["ender"], hand.proof()["ender_failures"]) == ("unclear", 1)
    (folder / "ender.py").write_text("import time; time.sleep(1)")
    hand.tend(100.0)
    hand.tend(100.0 + lever.PATIENCE + 1)
    assert (hand.runs, hand.proof()["ender_failures"]) == (False, 2)
    assert "no word within 60 s" in hand.proof()["ender_evidence"]
