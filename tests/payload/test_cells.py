"""What a notebook's cells do at the ends: the machine is released, nothing is lost, and nothing waits for a browser."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import time
import types
import zipfile

import pytest
from boxes import PAYLOAD, until
from notebooks import runtime

from providers.colab import ender


@pytest.fixture(autouse=True)
def _machine(payload, tmp_path, monkeypatch):
    """A machine's own ~/.gpurun, and a folder for the kernel."""
    module = payload("place")
    monkeypatch.setattr(payload("lever"), "OWN", tmp_path / ".gpurun" / "ender")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(module, "HOME", tmp_path / ".gpurun")
    monkeypatch.setattr(module, "BLOBS", tmp_path / ".gpurun" / "blobs")
    (tmp_path / "content").mkdir()
    monkeypatch.chdir(tmp_path / "content")


@pytest.fixture
def run(payload, tmp_path):
    """Make a run of a notebook: `run(max_seconds=5)`. What its watchdog left is ended."""
    made = []

    def make(**facts):
        here = tmp_path / "here"
        here.mkdir(exist_ok=True)
        if not (here / "payload").exists():
            (here / "payload").symlink_to(PAYLOAD)
        job = {"command": ["{python}", "-c", "print(1)"], "grace_seconds": 1, "max_idle_seconds": 60, "setup": []}
        request = {"name": "loop", "job": job, "max_seconds": 600, "ceiling_seconds": 600, "usd_per_hour": "0.1069"}
        request |= {"machine": "T4 GPU", "gpu": ["T4"], "secrets": [], "push": "", "ender": ender.orders()}
        (here / "request.json").write_text(json.dumps({**request, "want": [], "data": [], **facts}))
        made.append(payload("cells").Run(here))
        return made[-1]

    yield make
    for one in made:
        end(one)


def end(one) -> None:
    """Kill the watchdog of a machine that does not go, and its ender."""
    mark = str(one.known["mark"])
    for path in list(os.scandir("/proc")):
        try:
            with open(f"{path.path}/cmdline", "rb") as file:  # noqa: PTH123 (a process may go meanwhile)
                if path.name.isdigit() and mark.encode() in file.read():
                    os.kill(int(path.name), signal.SIGKILL)
        except OSError:
            continue
    orders = importlib.import_module("lever").folder_of(mark)
    if orders is not None:
        shutil.rmtree(orders)


def over(one, reason="completed", **metrics) -> None:
    """Leave what an agent leaves."""
    (one.folder / "artifacts").mkdir(parents=True)
    (one.folder / "artifacts" / "model").write_bytes(b"weights")
    (one.folder / "log.txt").write_text("hello\n")
    (one.folder / "job.json").write_text("{}")
    named = {"name": "artifacts/model", "size": 7, "sha256": hashlib.sha256(b"weights").hexdigest()}
    result = {"reason": reason, "detail": "", "artifacts": [named], "metrics": metrics}
    (one.folder / "result.json").write_text(json.dumps(result))


class Error(Exception):
    """google.colab.errors.Error."""


@pytest.fixture
def colab(monkeypatch):
    """Colab's own library, as far as cells use it; with `answers` false it waits for ever, as with no browser."""
    facts = types.SimpleNamespace(answers=True, downloaded=[], unassigned=0, secrets={})

    def wait() -> None:
        while not facts.answers:
            with contextlib.suppress(Exception):  # as _message.py of colabtools does (2026-11)
                time.sleep(0.025)

    def eval_js(_script: str) -> int:
        wait()
        return 42

    def get(name: str) -> str:
        wait()
        if name not in facts.secrets:
            raise Error(f"Secret {name} does not exist.")
        return facts.secrets[name]

    def unassign() -> None:
        facts.unassigned += 1

    modules = {
        "output": {"eval_js": eval_js},
        "files": {"download": facts.downloaded.append},
        "userdata": {"get": get, "NotebookAccessError": type("NotebookAccessError", (Exception,), {})},
        "runtime": {"unassign": unassign},
        "errors": {"Error": Error},
    }
    for name in ("google", "google.colab", *(f"google.colab.{each}" for each in modules)):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__path__ = []
        vars(module).update(modules.get(name.rpartition(".")[2], {}))
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(importlib.import_module("browser"), "ANSWERS", 0.2)
    monkeypatch.setattr(importlib.import_module("browser"), "SECRET_ANSWERS", 0.2)
    monkeypatch.setenv("TBE_RUNTIME_ADDR", "127.0.0.1:9")
    return facts


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_machine_on_which_nothing_was_started_releases_itself_at_the_deadline(run, monkeypatch, capsys):
    with runtime() as released:
        monkeypatch.setenv("TBE_RUNTIME_ADDR", released.address)
        one = run(max_seconds=2, ceiling_seconds=2)
        one.arm()
        assert "its release address answers" in capsys.readouterr().out
        until(lambda: released.posted, "the post")
        end(one)
    assert set(released.posted) == {"/unassign"}


def test_a_release_that_is_refused_thrice_is_asked_for_again(run, monkeypatch, payload):
    monkeypatch.setattr(payload("cells"), "SECOND", 0.01)
    with runtime() as released:
        released.answers += [500, 503, 500]
        monkeypatch.setenv("TBE_RUNTIME_ADDR", released.address)
        one = run()
        over(one)
        one.save()
        one.release()
    assert released.posted == ["/unassign"] * 4


def test_a_release_that_nobody_takes_is_told_and_left_to_the_watchdog(run, monkeypatch, payload, capsys):
    monkeypatch.setattr(payload("cells"), "SECOND", 0.01)
    monkeypatch.setenv("TBE_RUNTIME_ADDR", "127.0.0.1:9")
    one = run()
    over(one)
    one.save()
    with pytest.raises(RuntimeError, match="NOT RELEASED"):
        one.release()
    assert (one.folder / "end.json").exists()
    assert "Released" not in capsys.readouterr().out


def test_off_colab_a_machine_without_the_address_is_left_alone(run, monkeypatch, capsys):
    monkeypatch.delenv("TBE_RUNTIME_ADDR", raising=False)
    one = run()
    over(one)
    one.save()
    one.release()
    assert "there is nothing to release" in capsys.readouterr().out


def test_a_training_that_failed_is_kept_released_and_then_told(run, monkeypatch, tmp_path):
    with runtime() as released:
        monkeypatch.setenv("TBE_RUNTIME_ADDR", released.address)
        one = run()
        over(one, "diverged")
        one.save()
        with pytest.raises(Exception, match="diverged"):
            one.release()
    assert released.posted == ["/unassign"]
    assert (tmp_path / "content" / "loop-artifacts.zip").exists()


def test_what_is_not_over_is_neither_packed_nor_released(run, colab, tmp_path, capsys):
    one = run()
    one.save()
    one.release()
    assert "not over yet" in capsys.readouterr().out
    assert not list((tmp_path / "content").iterdir())
    assert not colab.unassigned


def test_off_colab_a_training_that_is_refused_gives_its_machine_back_at_once(run, monkeypatch):
    with runtime() as released:
        monkeypatch.setenv("TBE_RUNTIME_ADDR", released.address)
        one = run(secrets=["NO_SUCH_TOKEN"])
        one.arm()
        with pytest.raises(Exception, match="the secret NO_SUCH_TOKEN is needed"):
            one.start()
    assert released.posted == ["/unassign"]


# ── on Colab: a browser, or none ─────────────────────────────────────────────────────────────────────────────────────


def order(one) -> dict:
    return json.loads((one.folder / "order.json").read_text())


def test_a_browser_takes_the_zip_and_the_watchdog_releases_minutes_later(run, colab, tmp_path, capsys):
    one = run()
    over(one)
    one.save()
    one.release()
    assert colab.downloaded == [str(tmp_path / "content" / "loop-artifacts.zip")]
    assert not colab.unassigned  # a download needs the kernel idle: now it would be cut off
    assert order(one)["kind"] == "deadline"
    assert abs(order(one)["deadline"] - time.time() - 300) < 60
    assert "The download runs" in capsys.readouterr().out


def test_without_a_browser_nothing_hangs_and_what_is_only_there_is_kept_to_the_deadline(run, colab, capsys):
    colab.answers = False
    one = run()
    over(one)
    one.save()
    one.release()
    assert "NOT RELEASED: what it made is only here" in capsys.readouterr().out
    assert (colab.downloaded, colab.unassigned) == ([], 0)
    assert not (one.folder / "order.json").exists()


def test_what_is_on_the_hub_needs_no_browser(run, colab, capsys):
    colab.answers = False
    one = run(push="you/model")
    over(one, push_commit="abc")
    one.save()
    one.release()
    assert "On the Hub: you/model, commit abc" in capsys.readouterr().out
    assert colab.unassigned == 1
    assert (one.folder / "end.json").exists()  # should that not do, the watchdog goes on


def test_a_kernel_that_was_restarted_goes_on_with_the_same_run(run):
    first = run()
    over(first)
    again = run()
    assert again.folder == first.folder
    assert again.is_over()


@pytest.mark.usefixtures("colab")
def test_another_card_than_the_quoted_one_is_refused_and_its_machine_released_soon(run):
    one = run()
    one.folder.mkdir(parents=True)
    with pytest.raises(Exception, match="the quote is for T4, this machine has no GPU"):
        one.start()
    assert abs(order(one)["deadline"] - time.time() - 600) < 60  # never past its own limit
    assert not (one.folder / "job.json").exists()


@pytest.mark.usefixtures("colab")
def test_a_card_is_known_by_its_word(run, monkeypatch):
    browser = importlib.import_module("browser")
    for names, wanted, fits in (
        (["Tesla T4"], ["T4"], True),
        (["NVIDIA L40S"], ["L4"], False),
        (["NVIDIA A100-SXM4-40GB"], ["A100", "80GB"], False),
        (["NVIDIA A100-SXM4-80GB"], ["A100", "80GB"], True),
        (["NVIDIA RTX PRO 6000 Blackwell Server Edition"], ["H100"], False),
    ):
        monkeypatch.setattr(browser, "gpu_names", lambda names=names: names)
        one = run(gpu=wanted)
        if fits:
            assert one.see_gpu() == 1
        else:
            with pytest.raises(Exception, match="the quote is for"):
                one.see_gpu()


def test_a_secret_comes_from_the_environment_else_from_colab_and_never_waits_for_ever(colab, monkeypatch):
    browser = importlib.import_module("browser")
    colab.secrets |= {"HF_TOKEN": "theirs"}
    assert browser.secret("HF_TOKEN") == "theirs"
    monkeypatch.setenv("HF_TOKEN", "ours")
    assert browser.secret("HF_TOKEN") == "ours"
    with pytest.raises(browser.RefusedError, match="WANDB is needed: Secret WANDB does not exist"):
        browser.secret("WANDB")
    colab.answers = False
    with pytest.raises(browser.RefusedError, match="no browser answers"):
        browser.secret("WANDB")


# ── what is kept ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_that_changed_since_it_was_whole_is_not_kept_as_whole(run, tmp_path, capsys, colab):
    one = run()
    over(one)
    (one.folder / "artifacts" / "model").write_bytes(b"rotten!")
    one.save()
    assert "NOT PACKED (artifacts/model is not what the training left)" in capsys.readouterr().out
    assert list((tmp_path / "content").iterdir()) == []
    one.release()
    assert not colab.unassigned


def test_of_a_training_that_did_not_end_well_the_newest_whole_checkpoint_is_kept(run, tmp_path):
    one = run()
    over(one, "deadline")
    for step in (9, 10, 11):
        folder = one.folder / "checkpoints" / f"step-{step}"
        folder.mkdir(parents=True)
        (folder / "state").write_text(f"{step}")
        if step < 11:  # the last was cut off
            facts = {"state": {"size": len(f"{step}"), "sha256": hashlib.sha256(f"{step}".encode()).hexdigest()}}
            (folder / "CHECKPOINT.json").write_text(json.dumps({"step": step, "files": facts}))
    one.save()
    with zipfile.ZipFile(tmp_path / "content" / "loop-artifacts.zip") as kept:
        names = set(kept.namelist())
    assert {"artifacts/model", "checkpoints/step-10/state", "checkpoints/step-10/CHECKPOINT.json"} < names
    assert not any(name.startswith(("checkpoints/step-9/", "checkpoints/step-11/")) for name in names)


def test_progress_is_told_now_and_then_and_words_as_they_are(run, capsys):
    one = run()
    over(one)
    steps = "".join(f'::metrics {{"step": {step}, "total_steps": 50, "loss": 0.5}}\n' for step in range(1, 51))
    (one.folder / "log.txt").write_text(f"loading\r 50%\rloaded\n{steps}::metrics no json\nunfin")
    one.show()
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "loaded"
    assert [line.split(" · ")[:2] for line in told[1:]] == [["step 1/50", "loss 0.5"], ["step 50/50", "loss 0.5"]]
    with (one.folder / "log.txt").open("a") as log:
        log.write("ished\n")
    one.show()
    assert capsys.readouterr().out == "unfinished\n"
