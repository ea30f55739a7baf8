"""A user's own script as a template: what is shipped, what is refused before money, what the machine is told."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from orchestrator import own
from orchestrator.cli import run as gpurun
from orchestrator.wish import Wish
from providers.errors import BundleError, ConfigError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = '# /// script\n# requires-python = ">=3.11"\n# dependencies = ["tinydb>=4"]\n# ///\n'


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with scripts in it, and no index to ask."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "train.py").write_text("print('hello')")
    return folder


def made(script: str = "train.py", **more: object) -> own.Template:
    return own.template(Wish(script, "local", None, **{"sets": (), **more}), {})


def shipped(**more: object) -> dict[str, Path]:
    return {file.name: file.path for file in made(**more).files}


def test_a_script_that_names_nothing_is_shipped_alone_and_gets_the_usual_environment(work: Path) -> None:
    template = made(arguments=("--lr", "1e-4"))
    content = sha256((work / "train.py").read_bytes()).hexdigest()
    assert template.config == {
        "method": "script", "script": "train.py", "arguments": ["--lr", "1e-4"], "sha256": content
    }  # fmt: skip
    assert (template.code, template.files, template.setup) == (work / "train.py", (), ())
    assert template.command == ("{python}", "payload/own_script.py", "config.json")


def test_what_its_block_names_is_its_own_and_comes_before_a_requirements_file(work: Path) -> None:
    (work / "train.py").write_text(BLOCK)
    (work / "requirements.txt").write_text("other\n")
    template = made()
    assert (template.config["dependencies"], template.config["python"]) == (["tinydb>=4"], ">=3.11")
    assert (template.files, template.setup) == ((), own.SETUP)


def test_a_requirements_file_beside_it_goes_along(work: Path) -> None:
    (work / "requirements.txt").write_text("tinydb>=4\n")
    template = made()
    assert (template.config["requirements"], "dependencies" in template.config) == ("requirements.txt", False)
    assert [file.name for file in template.files] == ["code/requirements.txt"]


def test_a_notebook_needs_what_executes_it(work: Path) -> None:
    (work / "Ein Heft.IPYNB").write_text(json.dumps({"cells": [], "metadata": {}, "nbformat": 4}))
    template = made("Ein Heft.IPYNB")
    assert "nbclient" in template.config["extras"]
    assert (template.setup, template.settings.name) == (own.SETUP, "ein-heft")


@pytest.mark.parametrize(
    ("name", "slug"),
    [("a__B.py", "a-b"), ("9.py", "9"), ("été.py", "t"), ("___.py", "script"), ("x" * 40 + ".py", "x" * 24)],
)
def test_a_run_is_named_after_its_script(work: Path, name: str, slug: str) -> None:
    (work / name).write_text("")
    assert made(name).settings.name == slug


# ── further files ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_included_keeps_its_place_beside_the_script(work: Path, nasty: str) -> None:
    (work / "data" / "deep").mkdir(parents=True)
    (work / "data" / nasty).write_text("1")
    (work / "data" / "deep" / "b").write_text("2")
    (work / "data" / "__pycache__").mkdir()
    (work / "data" / "__pycache__" / "x.pyc").write_text("")
    (work / "data" / ".env").write_text("KEY=1")
    assert shipped(include=("data",)) == {
        f"code/data/{nasty}": work / "data" / nasty,
        "code/data/deep/b": work / "data" / "deep" / "b",
    }


def test_the_whole_folder_leaves_out_what_an_earlier_run_left(work: Path) -> None:
    for name in ("outputs/x", "artifacts/y", "helper.py", "requirements.txt"):
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_text("")
    assert set(shipped(include=(".",))) == {"code/helper.py", "code/requirements.txt"}
    assert set(shipped(include=("outputs",))) == {"code/outputs/x", "code/requirements.txt"}


def test_what_lies_elsewhere_looks_like_a_key_or_is_too_much_is_refused(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far").write_text("1")
    (work / "id_rsa").write_text("1")
    (work / "big").write_bytes(b"x" * 100)
    (work / "link").symlink_to(tmp_path / "far")
    for path, said in (
        ("../far", "does not lie in"),
        ("link", "does not lie in"),
        ("gone", "no such file"),
        ("id_rsa", "key"),
    ):
        with pytest.raises(BundleError, match=said):
            made(include=(path,))
    monkeypatch.setattr(own, "MAX_INCLUDED_BYTES", 99)
    with pytest.raises(BundleError, match="more than"):
        made(include=("big",))


# ── refused before money ─────────────────────────────────────────────────────────────────────────────────────────────


def test_what_will_fail_is_refused_whole_unless_forced_and_then_stands_in_the_plan(work: Path) -> None:
    (work / "train.py").write_text("from trl import SFTTrainer\nimport helper\nSFTTrainer(packing=1,\n tokenizer=1)\n")
    (work / "helper.py").write_text("")
    with pytest.raises(ConfigError) as caught:
        made()
    lines = str(caught.value).splitlines()
    assert lines[0] == "train.py: 3 things will fail there"
    assert [line.partition(" ")[0] for line in lines[1:]] == ["train.py:2:", "train.py:3:", "train.py:4:"]
    assert ("--force" in caught.value.hint, caught.value.exit_code) == (True, 2)
    told = dict(made(force=True).remarks)["lint"]
    assert told.count("WILL FAIL: ") == 3


def test_what_may_fail_stands_in_the_plan(work: Path) -> None:
    (work / "train.py").write_text("import torch\ntorch.save({}, 'model.pt')")
    assert 'torch.save "model.pt" does not come home' in dict(made().remarks)["lint"]


def test_a_script_takes_no_settings_and_a_template_no_files(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="--set changes a template"):
        made(sets=("epochs=1",))
    assert gpurun(["launch", "demo", "--dry-run", "--include", "x"]) == 2
    assert "are for a script or a notebook" in capsys.readouterr().err


def test_a_secret_that_is_not_set_is_named_before_money(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpurun(["launch", "train.py", "--provider", "local", "--dry-run", "--secret", "MADE_UP_TOKEN"]) == 3
    assert "MADE_UP_TOKEN is not set" in capsys.readouterr().err


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_dry_run_shows_packages_hours_and_warnings_and_leaves_nothing(
    work: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "train.py").write_text(f"{BLOCK}import sys, polars\n")
    words = ["launch", "train.py", "--provider", "local", "--max-hours", "2", "--dry-run"]
    assert gpurun([*words, "--json", "--", "--lr", "1"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert "tinydb>=4" in dict(plan["remarks"])["packages"]
    assert "polars" in dict(plan["remarks"])["lint"]
    assert list((home / "runs").iterdir()) == []
    assert gpurun(words) == 0
    assert "ends by itself after 2 h" in capsys.readouterr().out


def test_lint_is_a_command_with_the_code_of_bad_input(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpurun(["lint", "train.py"]) == 0
    assert "nothing found" in capsys.readouterr().err
    (work / "train.py").write_text("import json\nprint(\n")
    assert gpurun(["lint", "train.py", "--json"]) == 2
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["level"], found["line"], found["cell"]) == ("error", 2, None)
    assert gpurun(["lint", "gone.py"]) == 2
    assert gpurun(["lint", "train.yaml"]) == 2


def test_estimate_says_why_it_has_none_for_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpurun(["estimate", "train.py", "--gpu", "a10"]) == 2
    assert "its hours are its quote" in capsys.readouterr().err
