"""train_pretrain.py: exact resume, a model that others load, memory that runs out, bad text."""

import json
import random
import signal
from pathlib import Path

import pytest
from harness import Job

CONFIG = {
    "method": "pretrain",
    "data": {"train": "text.txt", "eval_fraction": 0.1},
    "layers": 1,
    "hidden": 32,
    "heads": 2,
    "vocabulary": 300,
    "max_length": 16,
    "batch_size": 8,
    "max_steps": 14,
    "warmup": 0.2,
    "learning_rate": 1e-2,
    "log_every_steps": 1,
    "checkpoint_every_steps": 4,
}
WORDS = ["the", "small", "cat", "saw", "a", "red", "bird", "on", "some", "old", "tree", "and", "ran", "home"]
SLOW = """
import plain, time
real_step = plain.optimizer_step
plain.optimizer_step = lambda *a: (time.sleep(0.03), real_step(*a))[1]
"""


def write_text(folder: Path) -> None:
    draw = random.Random(3)
    documents = (" ".join(draw.choices(WORDS, k=12)) for _ in range(200))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.txt").write_text("\n".join(documents))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("pretrain")
    write_text(folder)
    job = Job(folder, "train_pretrain.py", CONFIG)
    assert job.run().code == 0
    return job


def test_killed_at_a_random_step_and_resumed_equals_uninterrupted(uninterrupted: Job, tmp_path: Path) -> None:
    write_text(tmp_path)
    job = Job(tmp_path, "train_pretrain.py", CONFIG)
    assert job.run(kill_at=random.randint(2, 12), patch=SLOW).code == -signal.SIGKILL
    assert job.run().code == 0
    assert job.metrics == uninterrupted.metrics
    assert job.weights() == uninterrupted.weights()
    assert job.summary()["metrics"] == uninterrupted.summary()["metrics"]


def test_the_loss_falls_and_is_measured_on_held_out_text(uninterrupted: Job) -> None:
    metrics = uninterrupted.metrics
    assert metrics[14]["loss"] < metrics[1]["loss"] - 1
    assert metrics[14]["eval_loss"] == pytest.approx(metrics[14]["loss"], abs=0.7)
    assert metrics[14]["tokens"] == 14 * 8 * 16


def test_the_artifact_loads_as_any_causal_model_and_spells_any_text(uninterrupted: Job) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = uninterrupted.folder / "artifacts"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert sum(weight.numel() for weight in model.parameters()) == uninterrupted.summary()["metrics"]["parameters"]
    text = "the cat ☕ saw\n\tZürich"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    assert str(uninterrupted.folder) not in (folder / "config.json").read_text()


def test_out_of_memory_halves_the_micro_batch_and_the_loss_stays_the_mean(uninterrupted: Job, tmp_path: Path) -> None:
    patch = """
import torch, torch.nn.functional as f
real = f.cross_entropy
def cross_entropy(said, wanted):
    if len(wanted) > 5 * 16 and torch.is_grad_enabled():
        raise torch.OutOfMemoryError("CUDA out of memory")
    return real(said, wanted)
f.cross_entropy = cross_entropy
"""
    write_text(tmp_path)
    job = Job(tmp_path, "train_pretrain.py", CONFIG)
    ended = job.run(patch=patch)
    assert ended.code == 0
    assert "micro-batch halved to 4, accumulation doubled to 2" in ended.text
    for step, facts in uninterrupted.metrics.items():
        assert job.metrics[step]["loss"] == pytest.approx(facts["loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("file", "content", "change", "words"),
    [
        ("a.txt", None, {}, "a.txt: no such file"),
        ("a.txt", b" \n", {}, "a.txt: it has no rows"),
        ("a.txt", b"\xff\xfe", {}, "a.txt: not UTF-8 text"),
        ("a.jsonl", b'{"text": "x"}\n{"body": "y"}\n', {}, 'row 2: no field "text"'),
        ("a.jsonl", b'{"text": "x"}\n{"text"\n', {}, "row 2: not JSON"),
        ("a.jsonl", b'{"text": 7}\n', {}, 'row 1: "text" is a number, not a text'),
        ("a.txt", b"short", {}, "less text than a block of 16 tokens"),
        ("a.txt", b"short", {"heads": 3}, "hidden (32) must be a multiple of twice heads (3)"),
    ],
)
def test_bad_text_leaves_with_2_and_names_it(
    tmp_path: Path, file: str, content: bytes | None, change: dict, words: str
) -> None:
    if content is not None:
        (tmp_path / file).write_bytes(content)
    ended = Job(tmp_path, "train_pretrain.py", {**CONFIG, "data": {"train": file}, **change}).run()
    assert ended.code == 2
    assert words in ended.text


def test_jsonl_rows_are_documents(tmp_path: Path) -> None:
    rows = [json.dumps({"gloss": " ".join(WORDS)}) for _ in range(30)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    data = {"train": "a.jsonl", "text_field": "gloss", "max_rows": 20}
    ended = Job(tmp_path, "train_pretrain.py", {**CONFIG, "data": data, "max_steps": 1}).run()
    assert ended.code == 0
    assert "data: 20 rows to train on" in ended.text
