"""The environment of a user's own script, on a bare Debian whose python3 may have a torch, and a notebook's over it."""

from __future__ import annotations

import json
import subprocess

import pytest
from debian import Debian, Index, make_wheel, unpack


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    served = Index(tmp_path_factory.mktemp("index"))
    make_wheel(served.folder, "tinynb", "1.0", {"tinynb.py": "where = 'index'\n"})
    yield served
    served.close()


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    path = unpack(tmp_path_factory.mktemp("debian") / "root")
    yield path
    subprocess.run(["rm", "-rf", "--one-file-system", path], check=True)


@pytest.fixture
def own(tmp_path, tree, index):
    """Set a box up for a script: `own(config)` gives the box and how its setup ended."""
    made = Debian(tmp_path / "root", tree, index)

    def setup(config: dict, *, torch: str = "", again: bool = False):
        made.write("job/config.json", json.dumps({"method": "script", "script": "x.py", **config}))
        made.write("job/code/requirements.txt", "tinydep<1.2  # the older one\n")
        if torch and not again:
            made.install(f"torch-{torch}-py3-none-any.whl")
        index.asked.clear()
        return made, made.setup("own")

    yield setup
    subprocess.run(["rm", "-rf", "--one-file-system", made.root], check=True)


FACTS = "import torch, tinydep; print(torch.__version__, '/kept/' in torch.__file__, tinydep.where)"


def test_the_machines_torch_is_kept_where_it_fits_what_is_asked(own):
    box, done = own({"dependencies": ["torch>=2.6", "tinydep"]}, torch="2.8.0")
    assert done.code == 0, done
    assert box.python(FACTS) == "2.8.0 True lock"
    assert "setup: keeping torch 2.8.0\n" in done.out
    assert "setup: check " in done.out
    assert "/root/.gpurun/envs/own-" in str((box.root / "job/env").readlink())


def test_another_torch_is_installed_where_it_does_not_fit(own):
    box, done = own({"dependencies": ["torch>=2.9", "tinydep"]}, torch="2.8.0")
    assert done.code == 0, done
    assert box.python(FACTS) == "2.13.0 False lock"
    assert "setup: not with the machine's torch: " in done.out


def test_a_torch_of_the_machines_that_does_not_import_is_replaced(own):
    box, _ = own({"dependencies": []}, torch="2.8.0")
    box.write("usr/local/lib/python3.11/dist-packages/torch/__init__.py", "import libcudart_is_gone\n")
    box, done = own({"dependencies": ["torch", "tinydep"]}, again=True)
    assert done.code == 0, done
    assert "setup: torch can't be imported: No module named 'libcudart_is_gone'" in done.out
    assert box.python(FACTS) == "2.13.0 False lock"


def test_a_script_without_torch_gets_none_and_a_second_one_like_it_the_same_environment(own):
    box, done = own({"requirements": "requirements.txt"}, torch="2.8.0")
    assert done.code == 0, done
    assert box.python("import importlib.util as u, tinydep; print(u.find_spec('torch'), tinydep.where)") == "None image"
    assert "setup: check " not in done.out
    link = (box.root / "job/env").readlink()
    (box.root / "job/env").unlink()
    box, done = own({"requirements": "requirements.txt"}, again=True)
    assert (done.code, (box.root / "job/env").readlink()) == (0, link)
    assert [path for path in box.index.asked if "tinydep" in path] == []


def test_what_no_index_has_is_the_last_word(own):
    box, done = own({"dependencies": ["tinydep>=9"]})
    assert done.code == 1
    assert done.last.startswith("setup: the dependencies can't be installed: ")
    assert "tinydep" in done.last
    assert not (box.root / "job/env").exists()


def test_a_notebook_that_names_nothing_gets_the_stack_with_its_own_over_it(own):
    box, done = own({"extras": ["tinynb"]}, torch="2.8.0")
    assert done.code == 0, done
    told = box.python("import torch, tinydep, tinynb; print(torch.__version__, tinydep.where, tinynb.where)")
    assert told == "2.8.0 lock index"
    assert "/root/.gpurun/envs/over-" in str((box.root / "job/env").readlink())
