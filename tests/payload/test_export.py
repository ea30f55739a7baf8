"""export.py: merge and quantise, reload, and the Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
import tiny
from harness import PAYLOAD, Job

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def adapter(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters for llama/ that change its answers."""
    folder = tmp_path_factory.mktemp("adapter")
    base = tiny.loaded("AutoModelForCausalLM", models / "llama")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(1)
        settings = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)  # False: not zero
        get_peft_model(base, settings).save_pretrained(folder)
    return folder


def logits(folder: Path, ids: object) -> object:
    """Give a saved model's answer."""
    import torch

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tiny.loaded("AutoModelForCausalLM", folder)(ids).logits


def test_merged_and_quantised_loads_in_four_bits_and_answers_nearly_alike(
    models: Path, adapter: Path, tmp_path: Path
) -> None:
    import torch

    config = {"method": "export", "model": str(models / "llama"), "adapter": str(adapter)}
    job = Job(tmp_path / "merged", "export.py", config)
    ended = job.run()
    assert ended.code == 0, ended.output
    config = {"method": "export", "model": "../merged/artifacts", "quantization": "4bit"}
    small = Job(tmp_path / "small", "export.py", config)
    ended = small.run()
    assert ended.code == 0, ended.output
    assert "reload: the saved model answers alike" in ended.text

    ids = torch.tensor([[5, 6, 7, 8]])
    base, merged, four = (
        logits(folder, ids) for folder in (models / "llama", job.folder / "artifacts", small.folder / "artifacts")
    )
    assert (merged - base).abs().max() > 1e-2  # the adapters are in it
    assert (four - merged).abs().max() < (merged - base).abs().max()  # rounded, but the same model
    facts = json.loads((small.folder / "artifacts/config.json").read_text())["quantization_config"]
    assert (facts["bnb_4bit_quant_type"], facts["bnb_4bit_use_double_quant"]) == ("nf4", True)
    assert small.summary()["metrics"]["bytes"] < job.summary()["metrics"]["bytes"]
    for file in [*(job.folder / "artifacts").rglob("*"), *(small.folder / "artifacts").rglob("*")]:
        assert str(tmp_path.parent).encode() not in (file.read_bytes() if file.is_file() else b"")


def test_adapters_can_be_merged_and_quantised_in_one_go(models: Path, adapter: Path, tmp_path: Path) -> None:
    config = {"method": "export", "model": str(models / "llama"), "adapter": str(adapter), "quantization": "4bit"}
    job = Job(tmp_path, "export.py", config)
    ended = job.run()
    assert ended.code == 0, ended.output
    assert not (tmp_path / "artifacts/merged").exists()
    model = tiny.loaded("AutoModelForCausalLM", tmp_path / "artifacts")
    assert model.is_loaded_in_4bit


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"quantization": "8bit"}, "must be none or 4bit"),
        ({"adapter": "."}, "adapter: . is no folder with adapters"),
        ({"model": ".."}, "the folder .. has no config.json"),
        ({"model": "."}, "the folder . has no weights (model.safetensors"),  # its config.json is the job's
        ({"model": "./none"}, "./none is no folder with a model"),
        ({"model": "step:one"}, "names a step of a chain, and this is none"),
        ({"push": {"repo": "you/it"}}, "HF_TOKEN is not set"),
    ],
)
def test_what_cannot_be_exported_leaves_with_2(models: Path, tmp_path: Path, more: dict, words: str) -> None:
    config = {"method": "export", "model": str(models / "llama"), **more}
    ended = Job(tmp_path, "export.py", config).run()
    assert ended.code == 2
    assert words in ended.text


class Hub(BaseHTTPRequestHandler):
    """Takes new repositories and refuses everything else."""

    asked: list[dict]

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        made = self.path == "/api/repos/create"
        if made:
            self.asked.append({"asked_as": self.headers["Authorization"], **content})
        answer = json.dumps({"url": f"http://{self.headers['Host']}/you/it"} if made else {"error": "no"}).encode()
        self.send_response(200 if made else 403)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(("wish", "private"), [({}, True), ({"private": False}, False)])
def test_a_push_is_private_unless_asked_otherwise_and_its_failure_keeps_the_artifacts(
    tmp_path: Path, wish: dict, *, private: bool
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    asked: list[dict] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Asked", (Hub,), {"asked": asked})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code = f"import sys; sys.path.insert(0, {str(PAYLOAD)!r}); import export; export.push('.', {wish!r} | "
        code += "{'repo': 'you/it'})"
        env = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_TOKEN": "hf_secret", "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=False,
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert [request["visibility"] for request in asked] == ["private" if private else "public"]
    assert asked[0]["asked_as"] == "Bearer hf_secret"
    assert "push: failed, the artifacts are kept here" in done.stdout
    assert "hf_secret" not in done.stdout + done.stderr
