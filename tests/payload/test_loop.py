"""train_loop.py: exact resume, memory that runs out, signals, disks and bad configs."""

import json
import random
import signal
from pathlib import Path

import pytest
from harness import Job

SLOW = """
import plain, time
real_step = plain.optimizer_step
plain.optimizer_step = lambda *a: (time.sleep(0.03), real_step(*a))[1]
"""  # so that a signal lands where it is aimed
CONFIG = {"method": "loop", "rows": 400, "max_steps": 24, "log_every_steps": 1, "checkpoint_every_steps": 5}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Job:
    job = Job(tmp_path_factory.mktemp("loop"), "train_loop.py", CONFIG)
    assert job.run().code == 0
    return job


def test_killed_at_a_random_step_and_resumed_equals_uninterrupted(uninterrupted: Job, tmp_path: Path) -> None:
    job = Job(tmp_path, "train_loop.py", CONFIG)
    killed = job.run(kill_at=random.randint(2, 22), patch=SLOW)
    assert killed.code == -signal.SIGKILL
    resumed = job.run()
    assert resumed.code == 0
    assert job.metrics == uninterrupted.metrics
    assert job.weights() == uninterrupted.weights()
    assert job.summary()["metrics"] == uninterrupted.summary()["metrics"]
    assert resumed.lines[-2]["samples"] == uninterrupted.metrics[24]["samples"]  # counted on, not anew


def test_a_run_that_goes_on_on_another_device_keeps_its_dtype(tmp_path: Path) -> None:
    wish = "import device\ndevice._usual = lambda kind, capability: (device.DTYPES['bfloat16'], 'as an A10 has it')\n"
    whole, moved = (Job(tmp_path / name, "train_loop.py", CONFIG) for name in ("whole", "moved"))
    assert whole.run(patch=wish).code == 0
    moved.run(kill_at=12, patch=wish + SLOW)
    resumed = moved.run()
    assert "dtype: bfloat16, as this run began" in resumed.text
    assert moved.weights() == whole.weights()


def test_killed_before_the_first_checkpoint_starts_anew_and_equals_uninterrupted(
    uninterrupted: Job, tmp_path: Path
) -> None:
    job = Job(tmp_path, "train_loop.py", CONFIG)
    assert job.run(kill_at=1, patch=SLOW).code == -signal.SIGKILL
    assert not job.checkpoints
    assert job.run().code == 0
    assert job.metrics == uninterrupted.metrics
    assert job.weights() == uninterrupted.weights()


def test_sigterm_saves_leaves_with_5_and_resumes_to_the_same_end(uninterrupted: Job, tmp_path: Path) -> None:
    job = Job(tmp_path, "train_loop.py", CONFIG)
    stopped = job.run(kill_at=7, number=signal.SIGTERM, patch=SLOW)
    assert stopped.code == 5
    at = max(job.metrics)
    assert job.checkpoints[-1] == f"step-{at}"
    assert "stopped at step" in stopped.text
    assert job.run().code == 0
    assert job.metrics == uninterrupted.metrics
    assert job.weights() == uninterrupted.weights()


def test_two_checkpoints_are_kept(uninterrupted: Job) -> None:
    assert uninterrupted.checkpoints == ["step-20", "step-24"]


def test_the_artifact_alone_gives_the_held_out_accuracy(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    rows = [{"a": x, "b": 1 - x, "label": "high" if x > 0.5 else "low"} for x in (n / 100 for n in range(100))]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = {"train": "rows.jsonl", "eval": "rows.jsonl"}
    job = Job(tmp_path, "train_loop.py", {"method": "loop", "layers": [2, 8, 2], "data": data, "epochs": 40})
    assert job.run().code == 0
    accuracy = job.summary()["metrics"]["accuracy"]
    assert accuracy > 0.9 > job.summary()["metrics"]["majority_accuracy"]
    tensors, facts = (
        load_file(tmp_path / "artifacts/model.safetensors"),
        json.loads((tmp_path / "artifacts/config.json").read_text()),
    )
    x = (torch.tensor([[row["a"], row["b"]] for row in rows]) - tensors["input_mean"]) / tensors["input_spread"]
    hidden = torch.relu(x @ tensors["0.weight"].T + tensors["0.bias"])
    said = (hidden @ tensors["2.weight"].T + tensors["2.bias"]).argmax(1)
    right = [facts["classes"][number] == row["label"] for number, row in zip(said.tolist(), rows, strict=True)]
    assert sum(right) / len(right) == pytest.approx(accuracy)


def test_out_of_memory_halves_the_micro_batch_and_learns_the_same(uninterrupted: Job, tmp_path: Path) -> None:
    patch = """
import torch.nn.functional as f
real = f.cross_entropy
def cross_entropy(said, wanted):
    if len(wanted) > 20:
        raise RuntimeError("CUDA out of memory")
    return real(said, wanted)
f.cross_entropy = cross_entropy
"""
    job = Job(tmp_path, "train_loop.py", CONFIG)
    ended = job.run(patch=patch)
    assert ended.code == 0
    assert "micro-batch halved to 32" in ended.text
    assert "micro-batch halved to 16, accumulation doubled to 4" in ended.text
    assert ended.text.count("halved") == 2  # kept, not tried anew each step
    for step, facts in uninterrupted.metrics.items():
        assert job.metrics[step]["loss"] == pytest.approx(facts["loss"], rel=1e-4)
        assert job.metrics[step]["samples"] == facts["samples"]


def test_a_micro_batch_of_one_that_does_not_fit_fails(tmp_path: Path) -> None:
    patch = """
import torch.nn.functional as f
def cross_entropy(said, wanted):
    raise RuntimeError("CUDA out of memory")
f.cross_entropy = cross_entropy
"""
    ended = Job(tmp_path, "train_loop.py", CONFIG).run(patch=patch)
    assert ended.code == 1
    assert "micro-batch halved to 1," in ended.text


def test_a_loss_that_is_not_finite_is_reported_and_leaves_with_3(tmp_path: Path) -> None:
    rows = [{"a": 1e38 if n else -1e38, "label": n % 2} for n in range(8)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = {"method": "loop", "layers": [1, 2], "data": {"train": "rows.jsonl"}, "log_every_steps": 100}
    ended = Job(tmp_path, "train_loop.py", config).run()
    assert ended.code == 3
    assert ended.lines[-1]["loss"] in {"nan", "inf"}
    assert json.loads((tmp_path / "summary.json").read_text())["metrics"]["loss"] in {"nan", "inf"}


def test_no_room_for_a_checkpoint_leaves_with_4_and_says_how_much_is_missing(tmp_path: Path) -> None:
    ended = Job(tmp_path, "train_loop.py", CONFIG).run(
        patch="import checkpoint; checkpoint.free_bytes = lambda _: 1000"
    )
    assert ended.code == 4
    assert "no room for the next checkpoint" in ended.text


def test_a_broken_newest_checkpoint_is_skipped_and_the_end_is_the_same(uninterrupted: Job, tmp_path: Path) -> None:
    job = Job(tmp_path, "train_loop.py", CONFIG)
    job.run(kill_at=17, patch=SLOW)
    assert job.checkpoints == ["step-10", "step-15"]
    newest = tmp_path / "checkpoints/step-15/state.pt"
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    resumed = job.run()
    assert "step-15 skipped, state.pt has not the bytes it was written with" in resumed.text
    assert "carrying on from step-10" in resumed.text
    assert job.metrics == uninterrupted.metrics
    assert job.weights() == uninterrupted.weights()
    assert job.checkpoints == ["step-20", "step-24"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"method": "loop", "learnin_rate": 1}, "did you mean learning_rate?"),
        ({"method": "loop", "epochs": "many"}, "epochs is 'many', but must be a float"),
        ({"method": "sft"}, "this script does 'loop'"),
        ({"method": "loop", "data": {"train": "none.csv"}}, "none.csv: no such file"),
        ({"method": "loop", "data": {"train": "empty.csv"}}, "empty.csv: the file is empty"),
        ({"method": "loop", "layers": [1, 2], "data": {"train": "bad.csv"}}, "row 3: a field holds no number"),
        (
            {"method": "loop", "layers": [1, 2], "data": {"train": "bad.csv", "label_field": "c"}},
            'row 2: no field "c"',
        ),
        ({"method": "loop", "layers": [1, 2], "data": {"train": "nan.csv"}}, "row 3: a field holds no finite number"),
        ({"method": "loop", "data": {"train": "good.csv"}}, "1 features and 2 classes, but layers is [64, 128, 10]"),
    ],
)
def test_bad_config_or_data_leaves_with_2_and_names_it(tmp_path: Path, config: dict, words: str) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "bad.csv").write_text("a,label\n1,x\ntwo,y\n")
    (tmp_path / "nan.csv").write_text("a,label\n1,x\nnan,y\n")
    (tmp_path / "good.csv").write_text("a,label\n1,x\n2,y\n")
    ended = Job(tmp_path, "train_loop.py", config).run()
    assert ended.code == 2
    assert words in ended.text
