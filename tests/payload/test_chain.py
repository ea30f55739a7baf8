"""train_chain.py: steps counted through, resumed from steps/ or from a checkpoint alone, and laid together."""

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest
from harness import PAYLOAD, Job
from test_pretrain import CONFIG as PRETRAIN
from test_pretrain import write_text
from tiny import SLOW

sys.path.insert(0, str(PAYLOAD))
import train_chain

LOOP = {"method": "loop", "rows": 200, "max_steps": 6, "log_every_steps": 1, "checkpoint_every_steps": 3}
CONFIG = {"method": "chain", "steps": {"warm": LOOP, "gpt": {**PRETRAIN, "checkpoint_every_steps": 3}}}
TOTAL = 6 + 14


@pytest.fixture
def slowly(tmp_path: Path) -> str:
    """A patch for the chain: its steps pause after each line, so that a signal lands where it is aimed."""
    python = tmp_path / "python"
    start = "sys.argv = sys.argv[2:]\nrunpy.run_path(sys.argv[0], run_name='__main__')"  # after -u
    python.write_text(f"#!{sys.executable}\nimport runpy, sys\nsys.path.insert(0, {str(PAYLOAD)!r})\n{SLOW}\n{start}\n")
    python.chmod(0o755)
    return f"import sys; sys.executable = {str(python)!r}"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("chain")
    write_text(folder)
    job = Job(folder, "train_chain.py", CONFIG)
    ended = job.run()
    assert ended.code == 0, ended.text
    return job


def test_steps_are_counted_through_and_stages_bear_the_steps_name(uninterrupted: Job) -> None:
    seen = [(line["step"], line["stage"]) for line in uninterrupted.lines if line.get("loss")]
    assert [step for step, _ in seen] == list(range(1, TOTAL + 1))
    assert [stage for _, stage in seen] == ["warm/train"] * 6 + ["gpt/train"] * 14
    assert uninterrupted.metrics[TOTAL]["total_steps"] == TOTAL


def test_artifacts_are_the_last_steps_with_the_earlier_ones_below(uninterrupted: Job) -> None:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(uninterrupted.folder / "artifacts")
    assert set(uninterrupted.weights()) == {"artifacts/model.safetensors", "artifacts/steps/warm/model.safetensors"}
    assert uninterrupted.checkpoints[-1] == f"step-{TOTAL}"


def test_the_summary_holds_each_steps_metrics_under_its_name(uninterrupted: Job) -> None:
    summary = uninterrupted.summary()
    assert summary["metrics"]["warm/accuracy"] == summary["metrics"]["accuracy"]
    assert summary["metrics"]["gpt/loss"] == summary["metrics"]["loss"] != summary["metrics"]["warm/loss"]
    assert summary["stage_seconds"]["gpt/train"] > 0


def test_killed_in_a_later_step_and_resumed_equals_uninterrupted(
    uninterrupted: Job, tmp_path: Path, slowly: str
) -> None:
    write_text(tmp_path)
    job = Job(tmp_path, "train_chain.py", CONFIG)
    assert job.run(kill_at=15, patch=slowly).code == -signal.SIGKILL
    resumed = job.run()
    assert resumed.code == 0
    assert "warm is done already" in resumed.text
    assert job.metrics == uninterrupted.metrics
    assert job.weights() == uninterrupted.weights()


def test_a_chain_killed_while_its_step_ran_ahead_loses_no_line(uninterrupted: Job, tmp_path: Path, slowly: str) -> None:
    write_text(tmp_path)
    job = Job(tmp_path, "train_chain.py", CONFIG)
    assert job.run(kill_at=8, frozen_until="steps/2-gpt/checkpoints/step-6", patch=slowly).code == -signal.SIGKILL
    assert job.run().code == 0
    assert job.metrics == uninterrupted.metrics
    assert job.weights() == uninterrupted.weights()


def test_a_fresh_machine_carries_on_from_the_newest_checkpoint_alone(
    uninterrupted: Job, tmp_path: Path, slowly: str
) -> None:
    write_text(tmp_path / "lost")
    lost = Job(tmp_path / "lost", "train_chain.py", CONFIG)
    lost.run(kill_at=13, patch=slowly)
    write_text(tmp_path / "fresh")
    fresh = Job(tmp_path / "fresh", "train_chain.py", CONFIG)
    newest = lost.checkpoints[-1]
    shutil.copytree(lost.folder / "checkpoints" / newest, fresh.folder / "checkpoints" / newest)
    assert fresh.run().code == 0
    assert min(fresh.metrics) > 9  # neither the finished step nor the sealed part of the second is done again
    assert lost.metrics | fresh.metrics == uninterrupted.metrics
    assert fresh.weights() == uninterrupted.weights()


def test_sigterm_in_the_first_step_reaches_it_and_leaves_with_5(
    uninterrupted: Job, tmp_path: Path, slowly: str
) -> None:
    write_text(tmp_path)
    job = Job(tmp_path, "train_chain.py", CONFIG)
    stopped = job.run(kill_at=2, number=signal.SIGTERM, patch=slowly)
    assert stopped.code == 5
    assert job.checkpoints[-1] == f"step-{max(job.metrics)}"
    assert job.run().code == 0
    assert job.metrics == uninterrupted.metrics
    assert job.weights() == uninterrupted.weights()


def test_a_step_that_fails_ends_the_chain_with_its_code(tmp_path: Path) -> None:
    steps = {"one": {**LOOP, "data": {"train": "none.csv"}}, "two": LOOP}
    ended = Job(tmp_path, "train_chain.py", {"method": "chain", "steps": steps}).run()
    assert ended.code == 2
    assert "none.csv: no such file" in ended.text
    assert "step one ended with 2" in ended.text


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ({}, "at least one step"),
        ({"../up": LOOP}, "a step's name is letters"),
        ({"a": {"method": "magic"}}, "steps.a.method must be one of"),
        ({"a": {"method": "sft", "model": "step:b"}, "b": LOOP}, "no earlier step has that name"),
    ],
)
def test_bad_steps_leave_with_2(tmp_path: Path, steps: dict, words: str) -> None:
    ended = Job(tmp_path, "train_chain.py", {"method": "chain", "steps": steps}).run()
    assert ended.code == 2
    assert words in ended.text


def test_paths_and_references_mean_the_same_from_a_steps_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x.jsonl").touch()
    folders = {"one": Path("steps/1-one"), "two": Path("steps/2-two")}
    step = {
        "method": "sft",
        "model": "step:one",
        "adapter": None,
        "data": {"train": "data/x.jsonl", "eval": "hub/name"},
    }
    moved = train_chain.config_of("two", step, folders)
    assert json.loads(json.dumps(moved)) == {
        "method": "sft",
        "model": "../1-one/artifacts",
        "adapter": None,
        "data": {"train": "../../data/x.jsonl", "eval": "hub/name"},
    }
