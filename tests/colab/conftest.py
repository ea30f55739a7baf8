"""One VM for all tests of a process; each test finds it without a mark, and with a gate of its own."""

from __future__ import annotations

import pytest
from boxes import until
from colabs import Runtime, Vm, at

from providers.base import Secret


@pytest.fixture(scope="session")
def vm(tmp_path_factory):
    with Runtime() as runtime, Vm(tmp_path_factory.mktemp("colab") / "vm", runtime.address) as vm:
        yield vm, runtime


@pytest.fixture
def ground(vm, tmp_path):
    with at(vm, tmp_path) as ground:
        (ground.vm.content / "gpurun-mark").unlink(missing_ok=True)
        yield ground


@pytest.fixture(scope="module")
def running(vm, tmp_path_factory):
    """A long job for all tests that do it no harm, as (its ground, job, remote)."""
    with at(vm, tmp_path_factory.mktemp("running")) as ground:
        (ground.vm.content / "gpurun-mark").unlink(missing_ok=True)
        job, remote = ground.started("long", secrets={"HF_TOKEN": Secret("hf_verysecretvalue")}, max_idle_seconds=300)
        until(lambda: remote.status().step >= 2, "its steps")
        yield ground, job, remote
