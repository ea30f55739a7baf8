"""A guard on another computer, at VMs that bear no names: it reads whose each is off the VM's own disk."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from boxes import until
from colab_ground import colab_job, offer_of, open_colab

from orchestrator.guard import Known, Post
from providers.base import Mark
from providers.colab.door import MARKER
from providers.colab.jupyter import read_small, write_small


def now() -> datetime:
    return datetime.now(UTC)


def test_a_guard_elsewhere_ends_what_is_overdue_and_touches_nobody_else_s(start_colab, tmp_path):
    sim = start_colab(machines=True, faults={"foreign": {"count": 1}})
    sim.may_bill = True  # the notebook that somebody opened
    here, elsewhere = open_colab(sim, tmp_path / "here"), open_colab(sim, tmp_path / "elsewhere")
    given = []
    for seconds in (0, 3600):
        job = colab_job(tmp_path / "here")
        ceiling = (now() + timedelta(seconds=seconds)).replace(microsecond=0)
        job = replace(job, mark=Mark(job.mark.home, job.mark.run_id, 1, ceiling))
        given.append((here.launch(job, offer_of(here)), job.mark))
    unmarked = {one.name.partition(", ")[2] for one in elsewhere.allocations() if one.mark is None}
    assert unmarked <= {"unknown: the VM does not tell whose it is", "a notebook of somebody's"}
    for allocation_id, mark in given:
        write_small(here._ways.door(allocation_id), MARKER, f"{mark}\n".encode())
        assert read_small(elsewhere._ways.door(allocation_id), MARKER) == f"{mark}\n".encode()
    time.sleep(0.1)  # past the time for which a VM without a mark is not asked again
    post = Post(elsewhere, Known(), now)
    assert until(lambda: post.round() and not post.may_bill, "the guard's proof")
    assert [one.id for one in post.ended] == [given[0][0]]
    assert {one.id: one.mark for one in here.allocations() if one.mark} == dict(given[1:])
    assert len(here.allocations()) == 2
    here.terminate([given[1][0]])
