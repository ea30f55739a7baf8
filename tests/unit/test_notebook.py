"""A notebook for Colab as it is written: valid, whole, the same each time, priced, and without anybody's secrets."""

from __future__ import annotations

import base64
import io
import json
import random
import re
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

import nbformat
import pytest

from orchestrator import notebook, notebook_page
from orchestrator.cli import run as gpurun

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def written(*words: str, file: str) -> dict[str, Any]:
    assert gpurun(["notebook", *words, "-o", file]) == 0
    with open(file, encoding="utf-8") as text:  # noqa: PTH123 (in the folder that the test stands in)
        return json.load(text)


def unpack_cell(made: dict[str, Any]) -> str:
    return "".join(next(cell for cell in made["cells"] if cell["id"] == "unpack")["source"])


def archive(made: dict[str, Any]) -> dict[str, bytes]:
    """Unpack it in a way of the test's own."""
    text = re.search(r'ARCHIVE = """\n(.*?)"""', unpack_cell(made), re.DOTALL)
    assert text is not None
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(text[1]))) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar if one.isreg()}  # type: ignore[union-attr]


def request(made: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(archive(made)["request.json"]))


def test_it_is_a_valid_notebook_that_asks_colab_for_the_quoted_card(here: Path) -> None:
    made = written("loop", "--gpu", "l4", file="a.ipynb")
    nbformat.validate(nbformat.read(here / "a.ipynb", as_version=4))
    assert made["metadata"]["accelerator"] == "GPU"
    assert made["metadata"]["colab"] == {"provenance": [], "gpuType": "L4"}
    assert [cell["id"] for cell in made["cells"] if cell["cell_type"] == "code"] == [
        *("unpack", "start", "follow", "save", "release")
    ]
    for cell in made["cells"]:
        if cell["cell_type"] == "code":
            compile("".join(cell["source"]), cell["id"], "exec")


def test_the_large_a100_is_the_high_memory_shape() -> None:
    made = written("loop", "--gpu", "a100-80gb", file="a.ipynb")
    assert made["metadata"]["colab"] == {"provenance": [], "gpuType": "A100", "machine_shape": "hm"}
    assert request(made)["gpu"] == ["A100", "80GB"]


def test_auto_takes_the_cheapest_machine_that_holds_the_job_and_says_its_price_in_the_first_cell() -> None:
    made = written("demo", file="a.ipynb")
    assert made["metadata"]["colab"]["gpuType"] == "T4"
    about = "".join(made["cells"][0]["source"])
    assert "1.07 compute units an hour, $0.11/h (seen 2026-09-27, confidence high" in about
    assert "fits: " in about
    assert "at most $0.06" in about
    assert "Run all" in about


def test_what_does_not_fit_is_refused_with_the_fix_and_nothing_is_written(here: Path, capsys) -> None:
    model = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 80}
    model |= {"hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64, "vocab_size": 32000}
    (here / "big").mkdir()
    (here / "big" / "config.json").write_text(json.dumps(model | {"num_key_value_heads": 8}))
    (here / "rows.jsonl").write_text(
        json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}) + "\n"
    )
    words = ["--set", f"model={here / 'big'}", "--set", "data.train=rows.jsonl"]
    assert gpurun(["notebook", "full-sft", *words, "--gpu", "t4"]) == 4
    assert "does not fit t4" in capsys.readouterr().err
    assert not list(here.glob("*.ipynb"))


def test_the_same_training_gives_the_same_notebook(here: Path) -> None:
    written("demo", file="a.ipynb")
    written("demo", file="b.ipynb")
    assert (here / "a.ipynb").read_bytes() == (here / "b.ipynb").read_bytes()


def test_the_archive_holds_payload_settings_and_data_and_says_what_to_do() -> None:
    made = written("demo", "--set", "max_steps=3", "--max-hours", "0.5", file="a.ipynb")
    files, told = archive(made), request(made)
    assert set(files) == {"request.json", *(f"blobs/{digest}" for digest, _ in told["want"])}
    assert [name for name, _ in told["data"]] == ["data/train.jsonl", "data/eval.jsonl"]
    assert (told["max_seconds"], told["ceiling_seconds"]) == (1800, 1800)
    with tarfile.open(fileobj=io.BytesIO(files[f"blobs/{told['bundle']}"])) as tar:
        config = json.loads(tar.extractfile("config.json").read())  # type: ignore[union-attr]
        assert {"payload/cells.py", "payload/watchdog.py", "payload/setup.sh"} <= set(tar.getnames())
    assert config["max_steps"] == 3


def test_a_budget_ends_the_machine_before_it_is_spent() -> None:
    told = request(written("loop", "--max-hours", "10", "--max-cost", "0.50", file="a.ipynb"))
    assert 3600 < told["max_seconds"] < 0.50 / 0.1069 * 3600


def test_a_damaged_notebook_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "vm"))
    code = unpack_cell(written("loop", file="a.ipynb"))
    at = code.index("\nH4sI") + 500
    letter = "A" if code[at] != "A" else "B"
    with pytest.raises(ValueError, match="this notebook is damaged"):
        exec(compile(code[:at] + letter + code[at + 1 :], "cell", "exec"), {})  # noqa: S102 (the cell is what is tested)
    assert not (tmp_path / "vm").exists()


def test_a_push_goes_through_the_payload_and_its_token_stays_here(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_thisisasecret")
    told = request(written("loop", "--push-to-hub", "you/model", file="a.ipynb"))
    assert told["job"]["command"][:4] == ["{python}", "payload/hub_push.py", "you/model", "private"]
    assert told["secrets"] == ["HF_TOKEN"]
    text = (here / "a.ipynb").read_text()
    assert "hf_thisisasecret" not in text
    assert base64.b64encode(b"hf_thisisasecret").decode()[:-4] not in text


@pytest.mark.parametrize("repo", ["model", "you/..", "a b/c"])
def test_a_repository_that_is_none_is_refused(repo: str, here: Path) -> None:
    assert gpurun(["notebook", "loop", "--push-to-hub", repo]) == 2
    assert not list(here.glob("*.ipynb"))


def test_data_that_no_notebook_holds_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "MOST_BYTES", 2**20)
    noise = random.Random(0)
    rows = [json.dumps({"text": noise.randbytes(3000).hex()}) for _ in range(250)]
    (here / "rows.jsonl").write_text("\n".join(rows))
    assert gpurun(["notebook", "pretrain", "--set", "data.train=rows.jsonl", "--force"]) == 2
    assert "MiB, more than 1\n" in capsys.readouterr().err
    assert not list(here.glob("*.ipynb"))


def test_anothers_file_is_not_written_over_and_ours_is(here: Path) -> None:
    (here / "loop-colab.ipynb").write_text('{"cells": [], "metadata": {}}')
    assert gpurun(["notebook", "loop"]) == 2
    assert (here / "loop-colab.ipynb").read_text() == '{"cells": [], "metadata": {}}'
    assert gpurun(["notebook", "loop", "--force"]) == 0
    assert gpurun(["notebook", "loop"]) == 0


def test_it_says_that_it_is_manual_and_how_to_open_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpurun(["notebook", "loop", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["state"], said["file"], said["machine"]) == ("manual", "loop-colab.ipynb", "T4 GPU")
    assert said["quote"]["worst"] == 0.06
    assert any("#upload=true" in way for way in said["open"])
    assert gpurun(["notebook", "loop"]) == 0
    out = capsys.readouterr().out
    assert "gpurun can neither start, watch nor release it" in " ".join(out.split())


def test_a_notebook_on_standard_output_is_that_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpurun(["notebook", "loop", "-o", "-"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["nbformat"] == 4
    assert "manual" in captured.err


def test_a_folder_of_githubs_gives_its_own_link(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["init", "-q", "-b", "wip"], ["remote", "add", "origin", "git@github.com:me/my-runs.git"]):
        subprocess.run(["git", *words], cwd=here, check=True)
    (here / "deep").mkdir()
    assert gpurun(["notebook", "loop", "-o", "deep/a b.ipynb", "--json"]) == 0
    ways = json.loads(capsys.readouterr().out)["open"]
    assert "https://colab.research.google.com/github/me/my-runs/blob/wip/deep/a%20b.ipynb" in " ".join(ways)


@pytest.mark.parametrize("remote", ["https://gitlab.com/me/x.git", "", "/srv/x.git"])
def test_anothers_repository_gives_none(remote: str) -> None:
    assert notebook_page.github_link(remote, "main", "a.ipynb") == ""


def test_a_script_of_ones_own_goes_along_with_its_arguments(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (here / "train.py").write_text("print('hello')")
    assert gpurun(["notebook", "train.py", "-o", "a.ipynb", "--", "--epochs", "3"]) == 0
    made = json.loads((here / "a.ipynb").read_text())
    told, files = request(made), archive(made)
    with tarfile.open(fileobj=io.BytesIO(files[f"blobs/{told['bundle']}"])) as tar:
        assert json.loads(tar.extractfile("config.json").read())["arguments"] == ["--epochs", "3"]  # type: ignore[union-attr]
        assert "code/train.py" in tar.getnames()
