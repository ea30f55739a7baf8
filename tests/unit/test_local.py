"""`local` without a job: offers, interpreters, the table of providers."""

from __future__ import annotations

import os
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from providers.errors import UsageError
from providers.local import LocalProvider, payload_python, processes
from providers.local.python import python_for
from providers.table import open_provider


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Put a program of that name on the PATH that prints what it is told to."""

    def make(output: str, code: int = 0) -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\nexit {code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return make


def offers(home) -> list[tuple[str, str, int, float]]:
    return [(one.name, one.gpu, one.gpu_count, one.vram_gib) for one in LocalProvider(home / "runs").offers()]


def test_this_computer_costs_nothing_and_tells_its_size(home, nvidia_smi):
    nvidia_smi("", 9)
    (offer,) = LocalProvider(home / "runs").offers()
    assert (offer.provider, offer.name, offer.price, offer.gpu_count) == ("local", "cpu", Decimal(0), 0)
    assert offer.vcpus == os.cpu_count()
    assert offer.memory_gib > 0
    assert offer.disk_gib > 0


def test_gpus_of_a_kind_are_one_offer(home, nvidia_smi):
    nvidia_smi("NVIDIA GeForce RTX 4090, 24564\nNVIDIA GeForce RTX 4090, 24564\nNVIDIA A100-SXM4-80GB, 81920")
    assert offers(home) == [
        ("2x RTX 4090", "RTX 4090", 2, 24.0),
        ("A100-SXM4-80GB", "A100-SXM4-80GB", 1, 80.0),
        ("cpu", "", 0, 0.0),
    ]


@pytest.mark.parametrize("output", ["", "No devices were found", "a,b,c", "NVIDIA X, [N/A]", ",", "\x00\xff, 1x"])
def test_what_nvidia_smi_says_is_not_trusted_to_make_sense(home, nvidia_smi, output):
    nvidia_smi(output)
    assert offers(home) == [("cpu", "", 0, 0.0)]


def test_a_python_with_torch_is_used_as_it_is(home, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    assert payload_python(home) == Path(sys.executable)


@pytest.fixture
def no_torch(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)


def python(path: Path, code: int) -> Path:
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\nexit {code}\n")
    path.chmod(0o755)
    return path


@pytest.mark.usefixtures("no_torch")
def test_without_torch_the_error_names_the_one_command(home):
    with pytest.raises(UsageError) as error:
        payload_python(home)
    assert error.value.hint == "pip install 'gpurun[payload]'"


@pytest.mark.usefixtures("no_torch")
def test_a_python_of_the_home_s_own_is_found(home):
    own = python(home / "env" / "bin" / "python", 0)
    assert payload_python(home) == own


@pytest.mark.usefixtures("no_torch")
def test_a_python_that_was_named_is_used_or_complained_about(home, tmp_path, monkeypatch):
    good, bad = python(tmp_path / "good" / "python", 0), python(tmp_path / "bad" / "python", 1)
    monkeypatch.setenv("GPURUN_PYTHON", str(good))
    assert payload_python(home) == good
    monkeypatch.setenv("GPURUN_PYTHON", str(bad))
    with pytest.raises(UsageError, match="GPURUN_PYTHON"):
        payload_python(home)


@pytest.mark.usefixtures("no_torch")
def test_only_our_own_trainings_need_torch(home):
    assert python_for(("sh", "-c", "true"), home) == Path(sys.executable)
    with pytest.raises(UsageError):
        python_for(("{python}", "payload/train_sft.py", "config.json"), home)


def test_no_mark_is_nobody_s_mark():
    assert processes.of_job(processes.living(), "", []) == []


def test_a_provider_is_opened_by_name_and_a_typo_gets_a_suggestion(home):
    assert open_provider("local", home).name == "local"
    with pytest.raises(UsageError) as error:
        open_provider("locl", home)
    assert error.value.hint == "did you mean local?"
