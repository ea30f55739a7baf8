"""Where a pod answers and which host keys may: by the vendor's own word each time, else by what was verified before."""

from __future__ import annotations

import json

import pytest

from providers.base import Access
from providers.errors import HostKeyError, UnreachableError
from providers.runpod.door import Door, fingerprints
from providers.runpod.reading import Address
from providers.ssh.keys import make_pair
from providers.ssh.link import Target, _Pin

HASH = "bmC+0NoFGkvZyBpqkTDDu+o2QkgxBGDSYVWlDjRaxE4"
HERE, THERE = Address("203.0.113.7", 40022, "root"), Address("203.0.113.7", 40023, "root")


class Logs:
    """RunPod's log of one pod, and how often it was read."""

    def __init__(self, *lines: str) -> None:
        self.lines, self.read = list(lines), 0

    def log(self, _pod_id, _enough):
        self.read += 1
        return self.lines


def named(key_hash: str = HASH) -> str:
    return f"256 SHA256:{key_hash} root@8a3f (ED25519)"


def test_only_ed25519_keys_that_the_log_names_count():
    lines = [
        "ED25519 key fingerprint:",
        named(),
        "3072 SHA256:" + "x" * 43 + " root@8a3f (RSA)",
        named(),
        "SHA256:" + HASH,
    ]
    assert fingerprints(lines) == (f"SHA256:{HASH}",)
    assert fingerprints([]) == ()


def test_the_log_is_asked_once_an_address_and_what_it_names_is_pinned(tmp_path):
    logs = Logs("Pod Started", named())
    door = Door(logs, "abc", Access(tmp_path), lambda: HERE)
    for _ in range(2):
        assert door.target() == Target(HERE.host, HERE.port, "root", Access(tmp_path), (f"SHA256:{HASH}",))
    assert logs.read == 1


def test_nothing_is_sent_to_a_pod_whose_key_nobody_has_named_yet(tmp_path):
    logs = Logs("Pod Started")
    with pytest.raises(UnreachableError, match="does not name its host key"):
        Door(logs, "abc", Access(tmp_path), lambda: HERE).target()
    trusting = Access(tmp_path, trust_on_first_use=True)
    assert Door(logs, "abc", trusting, lambda: HERE).target().fingerprints == ()
    with pytest.raises(UnreachableError, match="no address"):
        Door(logs, "abc", trusting, lambda: None).target()


def test_what_was_verified_at_an_address_is_read_again_only_at_another(tmp_path):
    make_pair(tmp_path / "host_ed25519")
    logs, now = Logs(named()), [HERE]
    door = Door(logs, "abc", Access(tmp_path), lambda: now[0])
    door.target()
    door.settle()
    assert (tmp_path / "verified.json").exists()
    assert json.loads((tmp_path / "verified.json").read_text()) == [HERE.host, HERE.port]
    later = Door(logs, "abc", Access(tmp_path), lambda: now[0])
    assert (later.target().fingerprints, logs.read) == ((), 1)
    now[0] = THERE  # the pod was restarted: another port, perhaps another key
    assert (later.target().fingerprints, logs.read) == ((f"SHA256:{HASH}",), 2)
    logs.lines = []  # not told any more: what is pinned must answer there
    assert Door(logs, "abc", Access(tmp_path), lambda: now[0]).target().fingerprints == ()


def test_a_key_that_the_vendor_does_not_name_is_refused_before_the_login(tmp_path):
    from paramiko import Ed25519Key

    make_pair(tmp_path / "some")
    key = Ed25519Key.from_private_key_file(str(tmp_path / "some"))
    told = Target(HERE.host, HERE.port, "root", Access(tmp_path), (f"SHA256:{HASH}",))
    with pytest.raises(HostKeyError, match="than its vendor names"):
        _Pin(told).missing_host_key(None, "gpurun", key)
    right = Target(HERE.host, HERE.port, "root", Access(tmp_path), (key.fingerprint.rstrip("="),))
    pin = _Pin(right)
    pin.missing_host_key(None, "gpurun", key)
    assert pin.key == f"ssh-ed25519 {key.get_base64()}"
