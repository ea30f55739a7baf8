"""train_sft.py: full, LoRA, 8-bit LoRA and QLoRA; exact resume of each, what is learnt, what is trained."""

from __future__ import annotations

import ast
import random
import re
import signal
import warnings
from typing import TYPE_CHECKING

import pytest
import tiny
from harness import Job

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Prints each row as the trainer sees it, and what of it counts in the loss.
LOOK = """
import trainer
real_run = trainer.run
def run(config, gpu, report, build):
    def look(micro):
        made = build(micro)
        decode = made.processing_class.decode
        for row in made.train_dataset:
            print("ROW", repr((decode(row["input_ids"]), decode([n for n in row["labels"] if n != -100]))))
        return made
    return real_run(config, gpu, report, look)
trainer.run = run
"""
LORA = {"r": 4, "alpha": 8, "dropout": 0.1, "targets": ["q_proj", "v_proj"]}
VARIANTS = {
    "full": {"packing": True, "max_length": 96, "data": {"train": "texts.jsonl"}, "epochs": 2},
    "lora": {"lora": LORA, "merge": True, "data": {"train": "pairs.jsonl", "eval_fraction": 0.2}, "epochs": 2},
    "qlora": {"model": "chat", "lora": LORA, "quantization": "4bit", "data": {"train": "chats.jsonl"}, "epochs": 1},
}


def config_of(models: Path, **more: object) -> dict:
    """Settings for a training of some seconds: 8 rows a step in two micro-batches."""
    config = {"method": "sft", "batch_size": 4, "gradient_accumulation": 2, "max_length": 48, "learning_rate": 3e-2}
    config |= {"checkpoint_every_steps": 2, "log_every_steps": 1, **more}
    return config | {"model": str(models / str(more.get("model", "llama")))}


def write_rows(folder: Path) -> None:
    """Write the same glosses in each of the three formats."""
    glosses = tiny.rows("glosses.jsonl", 54)
    tiny.write(folder / "texts.jsonl", [{"text": row["text"]} for row in glosses])
    tiny.write(folder / "pairs.jsonl", glosses)
    roles = (("user", "prompt"), ("assistant", "completion"))
    chats = [{"messages": [{"role": role, "content": row[field]} for role, field in roles]} for row in glosses]
    tiny.write(folder / "chats.jsonl", chats)


@pytest.fixture(scope="module")
def uninterrupted(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Job]:
    """Give the uninterrupted run of a variant; each is run once."""
    runs: dict[str, Job] = {}

    def run(name: str) -> Job:
        if name not in runs:
            runs[name] = Job(tmp_path_factory.mktemp(name), "train_sft.py", config_of(models, **VARIANTS[name]))
            write_rows(runs[name].folder)
            ended = runs[name].run(patch=LOOK)
            assert ended.code == 0, ended.output
        return runs[name]

    return run


@pytest.mark.parametrize("name", list(VARIANTS))
def test_killed_at_a_random_step_and_resumed_equals_uninterrupted(
    models: Path, uninterrupted: Callable[[str], Job], tmp_path: Path, name: str
) -> None:
    whole, job = uninterrupted(name), Job(tmp_path, "train_sft.py", config_of(models, **VARIANTS[name]))
    write_rows(tmp_path)
    last = max(whole.metrics)
    assert job.run(kill_at=random.randint(2, last - 2), patch=tiny.SLOW).code == -signal.SIGKILL
    ended = job.run()
    assert ended.code == 0, ended.output
    assert job.metrics == whole.metrics
    assert job.weights() == whole.weights()
    assert job.checkpoints == whole.checkpoints == [f"step-{n}" for n in ((last - 1) // 2 * 2, last)]


def falls(job: Job) -> bool:
    """Tell whether the last three steps' losses are below the first three's."""
    losses = [job.metrics[step]["loss"] for step in sorted(job.metrics)]
    return sum(losses[-3:]) < sum(losses[:3])


def test_lora_on_eight_bits_trains(models: Path, tmp_path: Path) -> None:
    write_rows(tmp_path)
    more = {"lora": LORA, "quantization": "8bit", "data": {"train": "texts.jsonl"}, "epochs": 2}
    job = Job(tmp_path, "train_sft.py", config_of(models, **more))
    ended = job.run()
    assert ended.code == 0, ended.output
    assert falls(job)
    assert list(job.weights()) == ["artifacts/adapter_model.safetensors"]


@pytest.mark.parametrize("name", list(VARIANTS))
def test_the_loss_falls(uninterrupted: Callable[[str], Job], name: str) -> None:
    assert falls(uninterrupted(name))


def seen(job: Job) -> list[tuple[str, str]]:
    """Give (row, its part that counts in the loss) for every row, as `LOOK` printed them."""
    found = [ast.literal_eval(line) for line in re.findall(r"^ROW (.*)$", job.output, re.MULTILINE)]
    assert found
    return found


def test_only_the_completion_of_a_pair_counts_in_the_loss(uninterrupted: Callable[[str], Job]) -> None:
    for row, learnt in seen(uninterrupted("lora")):
        assert learnt
        assert row.endswith(learnt)
        assert row[: -len(learnt)].endswith(":")  # "word:" is the prompt


def test_every_token_of_a_text_or_a_chat_counts_in_the_loss(uninterrupted: Callable[[str], Job]) -> None:
    for name in ("full", "qlora"):
        assert all(row == learnt for row, learnt in seen(uninterrupted(name)))


def test_packing_fills_rows_with_several_texts(uninterrupted: Callable[[str], Job]) -> None:
    rows = seen(uninterrupted("full"))
    assert len(rows) < 54
    assert any(row.count("<|endoftext|>") > 1 for row, _ in rows)


def test_held_out_rows_are_judged_each_epoch(uninterrupted: Callable[[str], Job]) -> None:
    judged = [step for step, facts in uninterrupted("lora").metrics.items() if "eval_loss" in facts]
    assert judged == [6, 12]


def test_merged_weights_answer_as_base_and_adapters_do(models: Path, uninterrupted: Callable[[str], Job]) -> None:
    folder = uninterrupted("lora").folder / "artifacts"
    base, merged = (tiny.loaded("AutoModelForCausalLM", place) for place in (models / "llama", folder))
    tokenizer = tiny.loaded("AutoTokenizer", folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from peft import PeftModel

        ids = tokenizer("a dog: an animal", return_tensors="pt").input_ids
        with torch.no_grad():
            plain = base(ids).logits
            adapted = PeftModel.from_pretrained(base, folder / "adapter").eval()(ids).logits
            difference = (adapted - merged(ids).logits).abs().max()
    assert difference < 1e-5
    assert (adapted - plain).abs().max() > 1e-2  # the adapters do something


def test_artifacts_name_no_path_of_this_machine(models: Path, uninterrupted: Callable[[str], Job]) -> None:
    for job in map(uninterrupted, VARIANTS):
        for file in (job.folder / "artifacts").rglob("*"):
            content = file.read_bytes() if file.is_file() else b""
            assert str(models.parent).encode() not in content, file
        card = (job.folder / "artifacts/README.md").read_text()
        assert "training:" in card
        assert "base model: a llama of the user's own" in card


def test_the_classic_lora_on_llama_2_7b_trains_0_124_percent(payload: Callable[[str], object]) -> None:
    train_sft = payload("train_sft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from peft import get_peft_model
        from transformers import LlamaConfig, LlamaForCausalLM

        lora = {"r": 8, "alpha": 32, "dropout": 0.05, "targets": ["q_proj", "k_proj", "v_proj", "o_proj"]}
        with torch.device("meta"):  # the dimensions of Llama-2-7b, and not one byte of weights
            model = LlamaForCausalLM(LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32))
            model = get_peft_model(model, train_sft.adapters({"lora": lora}))
    assert train_sft.share(*train_sft.count(model)) == "trainable 8,388,608 of 6,746,804,224 (0.124 %)"


PAIR = {"prompt": "a", "completion": "b"}
CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


@pytest.mark.parametrize(
    ("row", "more", "words"),
    [
        (CHAT, {}, "has no chat template"),
        ({"text": "a"}, {"completion_only_loss": True}, "needs rows with prompt and completion"),
        (PAIR, {"quantization": "4bit"}, "quantization 4bit needs lora"),
        (PAIR, {"merge": True}, "merge needs lora"),
        (PAIR, {"quantization": "3bit"}, "must be none, 8bit or 4bit"),
        (PAIR, {"model": "none/such"}, "the hub can't be reached"),
        (PAIR, {"push": {"repo": "you/it"}}, "HF_TOKEN is not set"),
        (PAIR | {"completion": 3}, {}, 'rows.jsonl, row 2: "completion" is a number'),
    ],
)
def test_what_makes_no_sense_leaves_with_2_before_a_model_loads(
    models: Path, tmp_path: Path, row: dict, more: dict, words: str
) -> None:
    tiny.write(tmp_path / "rows.jsonl", [{**row, **({"completion": "b"} if "completion" in row else {})}, row])
    config = {"method": "sft", "model": str(models / "llama"), "data": {"train": "rows.jsonl"}, **more}
    ended = Job(tmp_path, "train_sft.py", config).run(env={"HF_HOME": str(tmp_path / "hf")})
    assert ended.code == 2
    assert words in ended.text
    assert "trainable" not in ended.text
