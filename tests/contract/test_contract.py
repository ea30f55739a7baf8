"""What every provider promises, run on each of them."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import closing
from dataclasses import replace
from decimal import Decimal

import pytest

from providers.base import Order, OrderKind, Phase, Place, Proof, Provider, Remote
from providers.errors import IntegrityError, RemoteError


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_log(remote) -> bytes:
    log = b""
    while piece := remote.logs(len(log)):
        log += piece
    return log


@pytest.fixture
def ended(field_):
    """A short job that has run to its end and is not terminated yet, as (job, id, remote)."""
    job = field_.ground.job()
    allocation_id = field_.launch(job)
    field_.up(allocation_id)
    remote = field_.remote(allocation_id)
    remote.start(job)
    field_.until(lambda: remote.status().phase is Phase.EXITED, "the end of the job")
    yield job, allocation_id, remote
    remote.close()
    field_.provider.terminate([allocation_id])
    field_.until(lambda: not field_.provider.inspect(allocation_id).billing, "free")


@pytest.fixture
def running(field_):
    """A long job in the midst of its steps, as (job, id, remote)."""
    job = field_.ground.job("long")
    allocation_id = field_.launch(job)
    field_.up(allocation_id)
    remote = field_.remote(allocation_id)
    remote.start(job)
    field_.until(lambda: remote.status().phase is Phase.RUNNING, "running")
    field_.until(lambda: remote.status().step >= 2, "its steps")
    yield job, allocation_id, remote
    remote.close()
    field_.provider.terminate([allocation_id])
    field_.until(lambda: not field_.provider.inspect(allocation_id).billing, "free")


def test_a_provider_has_every_verb(field_, running):
    assert isinstance(field_.provider, Provider)
    assert isinstance(running[2], Remote)


def test_offers_are_priced_in_decimal_dollars(field_):
    offers = field_.provider.offers()
    assert offers
    assert all(isinstance(offer.price, Decimal) and offer.price >= 0 for offer in offers)
    assert {offer.provider for offer in offers} == {field_.provider.name}
    assert len({offer.name for offer in offers}) == len(offers)


def test_the_account_is_the_same_for_the_next_process(field_):
    assert field_.provider.account() == field_.ground.again().account() != ""


def test_a_whole_life_ends_with_the_files_home_and_nothing_billing(field_, ended, tmp_path):
    _, allocation_id, remote = ended
    status = remote.status()
    assert (status.reason, status.phase) == ("completed", Phase.EXITED)
    manifest = remote.manifest()
    assert manifest.final
    names = [entry.name for entry in manifest.entries]
    assert "result.json" in names
    assert any(name.startswith("artifacts/") for name in names)
    remote.fetch(names, tmp_path / "home of it")
    for entry in manifest.entries:
        data = (tmp_path / "home of it" / entry.name).read_bytes()
        assert (len(data), sha(data)) == (entry.size, entry.sha256)
    field_.provider.terminate([allocation_id])
    field_.until(lambda: not field_.provider.inspect(allocation_id).billing, "free")
    assert field_.provider.inspect(allocation_id).phase in {Phase.ABSENT, Phase.EXITED}
    assert allocation_id not in [one.id for one in field_.provider.allocations() if one.billing]


def test_what_was_never_launched_is_not_found(field_):
    assert list(field_.provider.find(field_.ground.job().mark)) == []


def test_what_runs_is_found_by_its_mark_alone_by_another_process(field_, running):
    job, allocation_id, _ = running
    other = field_.ground.again()
    found = field_.until(lambda: other.find(job.mark), "found by its mark")
    assert [(one.id, one.mark, one.billing) for one in found] == [(allocation_id, job.mark, True)]
    listed = {one.id: one for one in other.allocations()}
    assert (listed[allocation_id].mark, listed[allocation_id].billing) == (job.mark, True)
    assert other.inspect(allocation_id).billing
    with closing(other.remote(allocation_id, field_.access)) as remote:
        assert remote.status().phase is Phase.RUNNING


def test_an_id_that_nobody_knows_is_absent_and_safe_to_terminate(field_):
    mark = field_.ground.job().mark
    for unknown in (str(mark), "no-such-id", "", "../../etc"):
        look = field_.provider.inspect(unknown)
        assert (look.phase, look.billing, look.evidence != "") == (Phase.ABSENT, False, True)
        field_.provider.terminate([unknown])


def test_terminate_twice_and_many_at_once_is_safe(field_, running):
    _, allocation_id, _ = running
    field_.provider.terminate([allocation_id, "no-such-id", allocation_id])
    field_.provider.terminate([allocation_id])
    field_.until(lambda: not field_.provider.inspect(allocation_id).billing, "free")


def test_terminating_one_leaves_the_other_alone(field_, running):
    other = field_.ground.job("long")
    other_id = field_.launch(other)
    field_.up(other_id)
    field_.provider.terminate([other_id])
    field_.until(lambda: not field_.provider.inspect(other_id).billing, "free")
    assert field_.provider.inspect(running[1]).billing
    assert running[2].status().phase is Phase.RUNNING


def test_a_started_job_is_not_started_again(field_, running):
    job, _, remote = running
    for _ in range(3):
        remote.start(job)
    step = remote.status().step
    field_.until(lambda: remote.status().step >= step + 3, "more steps")
    seen = [int(number) for number in re.findall(rb'"step": (\d+)', read_log(remote))]
    assert seen == list(range(1, len(seen) + 1))


def test_a_log_read_from_any_offset_is_the_same_log(ended):
    remote = ended[2]
    whole = read_log(remote)
    assert whole
    for offset in range(0, len(whole), 7):
        piece = remote.logs(offset)
        assert piece
        assert whole[offset:].startswith(piece)
    assert remote.logs(len(whole)) == remote.logs(len(whole) + 1000) == b""


def test_an_order_to_stop_ends_the_job_as_stopped_however_often_it_is_given(field_, running):
    remote = running[2]
    for _ in range(3):
        remote.tell(Order(1, OrderKind.STOP))
    field_.until(lambda: remote.status().phase is Phase.EXITED, "the end")
    assert remote.status().reason == "stopped"


def test_before_its_end_a_manifest_is_not_final_and_names_no_artifact(running):
    manifest = running[2].manifest()
    assert not manifest.final
    assert [entry.name for entry in manifest.entries if not entry.name.startswith("checkpoints/")] == []


def test_fetching_again_brings_the_same(ended, tmp_path):
    remote = ended[2]
    names = [entry.name for entry in remote.manifest().entries]
    remote.fetch(names, tmp_path / "dest")
    first = {name: (tmp_path / "dest" / name).read_bytes() for name in names}
    (tmp_path / "dest" / names[0]).unlink()
    (tmp_path / "dest" / names[0]).write_bytes(b"half")
    remote.fetch(names, tmp_path / "dest")
    assert {name: (tmp_path / "dest" / name).read_bytes() for name in names} == first
    assert json.loads(first["result.json"])["reason"] == "completed"


def test_bytes_that_are_not_the_manifest_s_never_get_their_name(field_, ended, tmp_path):
    job, _, remote = ended
    name = next(entry.name for entry in remote.manifest().entries if entry.name.startswith("artifacts/"))
    field_.ground.spoil(job, name)
    with pytest.raises(IntegrityError):
        remote.fetch([name], tmp_path / "dest")
    assert [path for path in (tmp_path / "dest").rglob("*") if path.is_file()] == []


def test_a_name_that_is_no_file_of_the_job_is_refused(ended, tmp_path):
    for name in ("../evil", "/etc/passwd", "a/../../evil", "", ".", "no such file", "artifacts"):
        with pytest.raises(RemoteError):
            ended[2].fetch([name], tmp_path / "dest")
    assert not (tmp_path / "evil").exists()


def on_the_machine(field_, job) -> bool:
    """Whether the vendor promises a holder on the machine for such a job: one that can prove itself."""
    return any(
        one.place is Place.MACHINE and one.proof is not Proof.ABSENT
        for one in field_.provider.holders(job, field_.ground.offer())
    )


def test_a_holder_on_the_machine_is_proven_where_it_is_promised_and_nowhere_else(field_, running):
    job, _, remote = running
    if on_the_machine(field_, job):
        holder = field_.until(lambda: _proven(remote), "its proof")
        assert holder.proven_at is not None
    else:
        holder = remote.status().watchdog
        assert (holder.proof is Proof.PROVEN, holder.proven_at) == (False, None)
        assert holder.evidence


def test_with_leave_to_keep_the_key_every_machine_has_a_holder_that_proves_itself(field_):
    field_.access = replace(field_.access, key_on_machine=True)
    job = replace(field_.ground.job("long"), key_on_machine=True)
    if not on_the_machine(field_, job):  # it has no use for the key there, and no other way that can be tried
        assert not field_.provider.traits.key_on_machine
        return
    allocation_id = field_.launch(job)
    field_.up(allocation_id)
    with closing(field_.remote(allocation_id)) as remote:
        remote.start(job)
        holder = field_.until(lambda: _proven(remote), "its proof")
    assert holder.proven_at is not None
    field_.provider.terminate([allocation_id])
    field_.until(lambda: not field_.provider.inspect(allocation_id).billing, "free")


def _proven(remote):
    holder = remote.status().watchdog
    return holder if holder is not None and holder.proof is Proof.PROVEN else None


def test_a_mark_that_lives_keeps_what_it_needs_when_others_are_tidied_up(field_, running):
    job, _, remote = running
    field_.provider.tidy([job.mark])
    field_.provider.tidy([])  # even unnamed: what lives is never tidied away
    step = remote.status().step
    field_.until(lambda: remote.status().step >= step + 2, "more steps")


def test_a_ceiling_is_moved_or_refused_but_never_half(field_, running):
    job, allocation_id, _ = running
    moved = field_.provider.extend(allocation_id, job.ceiling.replace(year=job.ceiling.year + 1))
    assert moved in {True, False}
    listed = next(one for one in field_.provider.allocations() if one.id == allocation_id)
    assert (listed.mark.ceiling != job.mark.ceiling) is moved
