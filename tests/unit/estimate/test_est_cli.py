"""`gpurun estimate` as people and programs meet it."""

import json
import re

import pytest
from click.testing import CliRunner

from orchestrator.cli import cli
from providers.errors import ConfigError, GpurunError, UsageError

LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 16,
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 8192,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}


def run(*args):
    # Through the group: click keeps a command's help option as it was first asked for, with or without -h.
    return CliRunner().invoke(cli, ["estimate", *map(str, args)], catch_exceptions=False, standalone_mode=False)


def answered(*args):
    return json.loads(run(*args, "--json").output)


@pytest.mark.parametrize(
    "template", ["qlora-sft", "lora-8bit", "full-sft", "demo", "pretrain", "chain", "text-classification"]
)
@pytest.mark.parametrize("gpu", ["t4", "a100"])
def test_every_template_that_trains_can_be_estimated(template, gpu):
    found = answered(template, "--gpu", gpu, "--rows", 5000)
    assert found["fits"] == "fits"
    assert found["hours"]["low"] < found["hours"]["likely"] < found["hours"]["high"]


@pytest.mark.parametrize("gpu", ["t4", "a100", "4090"])
@pytest.mark.parametrize("method", ["full", "qlora"])
def test_the_page_keeps_to_80_columns(gpu, method):
    page = run("--model", "Qwen/Qwen2.5-7B", "--method", method, "--gpu", gpu, "--rows", 3000, "--seq", 2048).output
    assert max(map(len, page.splitlines())) <= 80
    assert page.startswith(("QLoRA of Qwen", "every weight of Qwen"))


def test_a_config_json_is_counted(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA))
    found = answered("--model", path, "--method", "lora", "--gpu", "a10")
    assert found["parameters"] == {"total": 1_235_814_400, "exact": True}


def test_a_class_that_nobody_knows_is_said_to_be_counted_as_a_llama(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**LLAMA, "model_type": "novel"}))
    assert "novel is not known: counted as a Llama" in run("--model", path, "--gpu", "a10").output.replace(
        "\n         ", " "
    )


def test_a_price_of_ones_own_is_used():
    found = answered("--model", "Qwen2.5-7B", "--gpu", "a10", "--rows", 100, "--price", "7.5", "--max-hours", "2")
    assert found["usd"]["worst"] == 15.66  # two hours, two minutes and two more attempts, 1 % dearer
    assert found["offer"]["usd_per_hour"] == 7.5


def test_what_does_not_fit_has_a_fix_that_changes_the_answer():
    asked = ["--model", "Qwen/Qwen2.5-7B", "--method", "qlora", "--gpu", "t4", "--seq", 4096]
    found = answered(*asked, "--micro-batch", 16)
    assert found["fits"] == "no"
    assert found["fix"].startswith("batch 16 → ")
    smaller = found["fix"].split(" ")[3]
    assert answered(*asked, "--micro-batch", smaller)["fits"] == "fits"


def test_lengths_come_from_the_users_own_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": "word " * count}) + "\n" for count in (10, 20, 400)))
    found = answered("--model", "Qwen2.5-7B", "--gpu", "a10", "--data", path)
    assert "3 rows at 4 bytes a token" in " ".join(found["notes"])
    assert found["hours"]["steps"] == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "Qwen2.5-7b-typo", "--gpu", "t4"], "no bundled model is called"),
        (["--model", "Qwen2.5-7B", "--gpu", "t5"], "no GPU is called t5"),
        (["--gpu", "t4"], "nothing says what is trained"),
        (["--model", "Qwen2.5-7B", "--gpu", "t4", "--seq", "0"], "absurd"),
        (["--model", "Qwen2.5-7B", "--gpu", "t4", "--rows", "0"], "absurd"),
        (["--model", "Qwen2.5-7B", "--gpu", "t4", "--tokens", "0"], "absurd"),
        (["--model", "Qwen2.5-7B", "--gpu", "t4", "--epochs", "0"], "absurd"),
        (["--model", "Qwen2.5-7B", "--gpu", "t4", "--epochs", "nan"], "absurd"),
        (["full-sft", "--gpu", "t4", "--set", "max_length=99999999999"], "absurd"),
        (["--model", "Qwen2.5-7B", "--gpu", "t4", "--micro-batch", "99999999"], "absurd"),
        (["loop", "--gpu", "t4"], "not known beforehand"),
        (["--model", "/nowhere/config.json", "--gpu", "t4"], "No such file"),
    ],
)
def test_what_cannot_be_estimated_is_told_clearly(args, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        run(*args)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no JSON"),
        ("[]", "is an object"),
        ("{}", "has no num_hidden_layers"),
        (json.dumps({**LLAMA, "hidden_size": -1}), "positive"),
        (json.dumps({**LLAMA, "num_hidden_layers": 10**9}), "cannot be right"),
        (json.dumps({**LLAMA, "hidden_size": 16}), "cannot hold 32 heads"),
    ],
)
def test_an_unusable_config_json_is_told_clearly(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(GpurunError, match=re.escape(message)):
        run("--model", path, "--gpu", "t4")


@pytest.mark.parametrize(("name", "text"), [("a.jsonl", ""), ("b.jsonl", '{"text": ""}\n'), ("c.csv", "text\n")])
def test_data_without_text_are_told_clearly(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UsageError, match=r"no rows|no text"):
        run("--model", "Qwen2.5-7B", "--gpu", "t4", "--data", path)


def test_data_that_are_no_json_are_told_clearly(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("{oops\n")
    with pytest.raises(ConfigError, match=r"rows\.jsonl"):
        run("--model", "Qwen2.5-7B", "--gpu", "t4", "--data", path)
