"""Every ready template runs: its own settings, cut to a few steps, on stand-in models and a few rows."""

from __future__ import annotations

import json
import shutil

import pytest
import tiny
from harness import Job

from orchestrator import templates

STEPS = ("max_steps=2", "log_every_steps=1", "max_length=64")
# What stands in for the model and the rows, by template; `{}` is the folder with tiny models.
STAND_INS = {
    "demo": ("model={}/bert", "data.train={}/train.jsonl", "data.eval={}/eval.jsonl", *STEPS),
    "text-classification": ("model={}/bert", "data.train={}/train.jsonl", "data.eval={}/eval.jsonl", *STEPS),
    "lora-8bit": ("model={}/llama", "data.train={}/glosses.jsonl", *STEPS),
    "qlora-sft": ("model={}/llama", "data.train={}/glosses.jsonl", *STEPS),
    "full-sft": ("model={}/chat", "data.train={}/chats.jsonl", *STEPS),
    "pretrain": ("data.train={}/glosses.jsonl", "hidden=64", "layers=1", "vocabulary=400", *STEPS),
    "quantize": ("model={}/llama",),
    "loop": ("epochs=1", "rows=200"),
    "chain": (
        *(f"steps.{step}.data.train={{}}/glosses.jsonl" for step in ("pretrain", "sft")),
        *(f"steps.{step}.max_steps=2" for step in ("pretrain", "sft")),
        *("steps.pretrain.hidden=64", "steps.pretrain.layers=1", "steps.pretrain.vocabulary=400"),
    ),
}


def test_every_template_has_its_stand_ins():
    assert set(STAND_INS) == {listed.name for listed in templates.names()}


@pytest.mark.parametrize("name", STAND_INS)
def test_a_template_runs_to_its_artifacts(name, models, tmp_path):
    chats = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]}
        for row in tiny.rows("glosses.jsonl", 12)
    ]
    tiny.write(models / "chats.jsonl", chats)
    template = templates.load(name, [text.format(models) for text in STAND_INS[name]])
    for file in template.files:
        target = tmp_path / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.path, target)
    job = Job(tmp_path, template.command[1].removeprefix("payload/"), json.loads(json.dumps(template.config)))
    ended = job.run()
    assert ended.code == 0, ended.text[-2000:]
    assert [path for path in (tmp_path / "artifacts").rglob("*.safetensors") if path.stat().st_size]
