"""train_classify.py: exact resume, best epoch, memory, signals, and an artifact that gives the same accuracy."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import tiny
from harness import PAYLOAD, Job

if TYPE_CHECKING:
    from pathlib import Path

STEPS = 14  # 54 rows, 8 a step, 2 epochs
SMALL = """
import torch
real = torch.nn.Embedding.forward
def forward(self, ids):
    if self.training and len(ids) > 2:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return real(self, ids)
torch.nn.Embedding.forward = forward
"""  # a device that holds two rows


def config_of(models: Path) -> dict:
    """Two epochs of seven steps; the last step of each is smaller."""
    data = {"train": str(models / "train.jsonl"), "eval": str(models / "eval.jsonl")}
    config = {"method": "classify", "model": str(models / "bert"), "data": data, "epochs": 2, "batch_size": 8}
    return config | {"max_length": 24, "learning_rate": 3e-3, "checkpoint_every_steps": 4, "log_every_steps": 1}


@pytest.fixture(scope="module")
def uninterrupted(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    job = Job(tmp_path_factory.mktemp("classify"), "train_classify.py", config_of(models))
    ended = job.run()
    assert ended.code == 0, ended.output
    return job


def test_killed_stopped_and_resumed_equals_uninterrupted(models: Path, uninterrupted: Job, tmp_path: Path) -> None:
    job = Job(tmp_path, "train_classify.py", config_of(models))
    assert job.run(kill_at=random.randint(1, 9), patch=tiny.SLOW).code == -signal.SIGKILL
    stopped = job.run(kill_at=random.randint(10, 12), number=signal.SIGTERM, patch=tiny.SLOW)
    assert stopped.code == 5
    assert job.checkpoints[-1] == f"step-{max(job.metrics)}"
    assert job.run().code == 0
    assert job.metrics == uninterrupted.metrics
    assert job.weights() == uninterrupted.weights()
    assert job.summary()["metrics"] == uninterrupted.summary()["metrics"]


def test_killed_after_the_last_step_only_the_artifacts_are_made_again(
    models: Path, uninterrupted: Job, tmp_path: Path
) -> None:
    job = Job(tmp_path, "train_classify.py", config_of(models))
    shutil.copytree(uninterrupted.folder / "checkpoints", tmp_path / "checkpoints")
    assert job.run().code == 0
    assert not job.metrics  # no step is done twice
    assert job.weights() == uninterrupted.weights()
    assert job.summary()["metrics"] == uninterrupted.summary()["metrics"]


@pytest.mark.parametrize(
    ("more", "patch", "code", "words"),
    [
        ({"learning_rate": 1e30, "schedule": "constant"}, "", 3, "a lower learning_rate often helps"),
        ({}, "import checkpoint; checkpoint.free_bytes = lambda _: 1000", 4, "no room for the next checkpoint"),
    ],
)
def test_a_run_that_can_not_go_on_leaves_with_its_code(
    models: Path, tmp_path: Path, more: dict, patch: str, code: int, words: str
) -> None:
    ended = Job(tmp_path, "train_classify.py", config_of(models) | more).run(patch=patch)
    assert ended.code == code, ended.output
    assert words in ended.text
    assert not list(tmp_path.glob("artifacts/*"))


def test_every_epoch_is_evaluated_and_the_best_is_what_comes_out(uninterrupted: Job) -> None:
    judged = {step: facts["accuracy"] for step, facts in uninterrupted.metrics.items() if "accuracy" in facts}
    assert list(judged) == [7, 14]
    summary = uninterrupted.summary()
    assert summary["metrics"]["accuracy"] == max(judged.values())
    best = max(judged, key=lambda step: (judged[step], -step))  # the first of equals
    assert f"step-{best}" in uninterrupted.checkpoints
    assert (
        uninterrupted.weights()["artifacts/model.safetensors"]
        == (uninterrupted.weights(f"checkpoints/step-{best}")[f"checkpoints/step-{best}/model.safetensors"])
    )


def test_accuracy_stands_beside_that_of_the_commonest_class(models: Path, uninterrupted: Job) -> None:
    held_out = [json.loads(line)["label"] for line in (models / "eval.jsonl").read_text().splitlines()]
    commonest = max(set(held_out), key=held_out.count)
    assert uninterrupted.summary()["metrics"]["majority_accuracy"] == held_out.count(commonest) / len(held_out)


def test_the_artifact_gives_the_same_accuracy_in_a_new_process(models: Path, uninterrupted: Job) -> None:
    command = [sys.executable, str(PAYLOAD / "train_classify.py"), "--evaluate", "artifacts"]
    done = subprocess.run(
        [*command, str(models / "eval.jsonl")], cwd=uninterrupted.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said == {"rows": 24, "accuracy": uninterrupted.summary()["metrics"]["accuracy"]}


def test_a_summary_counts_what_was_seen(uninterrupted: Job) -> None:
    summary = uninterrupted.summary()
    assert uninterrupted.metrics[STEPS]["samples"] == 2 * 54
    assert summary["tokens_per_second"] > 0
    assert summary["flop_utilisation"] == 0  # a CPU's peak is not known
    assert set(summary["stage_seconds"]) >= {"load", "train", "eval", "save", "export"}


def test_the_card_tells_the_run_and_nothing_of_the_machine(models: Path, uninterrupted: Job) -> None:
    card = (uninterrupted.folder / "artifacts/README.md").read_text()
    assert all(word in card for word in ("accuracy:", "majority accuracy:", "rows: 54", "data: train.jsonl", "torch"))
    leaks = (str(models.parent), str(uninterrupted.folder.parent))
    for file in (uninterrupted.folder / "artifacts").rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        assert not any(leak.encode() in content for leak in leaks), file.name


def test_out_of_memory_halves_the_micro_batch_and_learns_the_same(
    models: Path, uninterrupted: Job, tmp_path: Path
) -> None:
    job = Job(tmp_path, "train_classify.py", config_of(models) | {"max_steps": 3})
    ended = job.run(patch=SMALL)
    assert ended.code == 0, ended.output
    assert "micro-batch halved to 4, accumulation raised to 2" in ended.text
    assert "micro-batch halved to 2, accumulation raised to 4" in ended.text
    assert job.metrics[1]["loss"] == pytest.approx(uninterrupted.metrics[1]["loss"], rel=1e-2)  # dropout draws anew
    assert [job.metrics[step]["samples"] for step in (1, 2, 3)] == [8, 16, 24]


def test_without_held_out_rows_the_last_weights_come_out_and_no_accuracy(models: Path, tmp_path: Path) -> None:
    config = config_of(models) | {"data": {"train": str(models / "train.jsonl")}, "max_steps": 2}
    job = Job(tmp_path, "train_classify.py", config)
    assert job.run().code == 0
    assert "accuracy" not in job.summary()["metrics"]
    assert job.weights() == {
        "artifacts/model.safetensors": job.weights("checkpoints/step-2")["checkpoints/step-2/model.safetensors"]
    }


def test_a_class_that_no_training_row_has_names_the_row(models: Path, tmp_path: Path) -> None:
    tiny.write(tmp_path / "odd.jsonl", [{"text": "a thing", "label": "thing"}])
    config = config_of(models)
    config["data"] = {**config["data"], "eval": "odd.jsonl"}
    ended = Job(tmp_path, "train_classify.py", config).run()
    assert ended.code == 2
    assert "odd.jsonl, row 1: the class 'thing' is in no training row" in ended.text
