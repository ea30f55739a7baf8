"""The byte plane on a real sshd: a whole life, and starts that are repeated, cut and doubled."""

from __future__ import annotations

import re
import threading
from hashlib import sha256

from boxes import until
from machines import read_log

from providers.base import Order, OrderKind, Phase, Remote


def test_a_whole_life_ends_with_the_files_home(machine, tmp_path):
    job = machine.job()
    remote = machine.remote(job)
    assert isinstance(remote, Remote)
    assert remote.status().phase is Phase.READY
    remote.start(job)
    machine.ended(remote)
    assert (remote.status().reason, remote.status().step) == ("completed", 5)
    manifest = remote.manifest()
    assert manifest.final
    names = [entry.name for entry in manifest.entries]
    assert {"result.json", "artifacts/model.bin", "artifacts/deep dir/card.md"} <= set(names)
    remote.fetch(names, tmp_path / "dest")
    for entry in manifest.entries:
        data = (tmp_path / "dest" / entry.name).read_bytes()
        assert (len(data), sha256(data).hexdigest()) == (entry.size, entry.sha256)
    assert read_log(remote) == (machine.folder(job) / "log.txt").read_bytes() != b""
