"""Notebooks under lint: cells, magics, what is no notebook."""

from __future__ import annotations

import json

import pytest

from orchestrator import lint
from orchestrator.lint import notebooks


def notebook(*cells: str, language: str = "python") -> str:
    made = [{"cell_type": "markdown", "source": "# words", "metadata": {}}]
    made += [{"cell_type": "code", "source": cell.splitlines(keepends=True), "metadata": {}} for cell in cells]
    return json.dumps({"cells": made, "metadata": {"kernelspec": {"language": language}}, "nbformat": 4})


def found(*cells: str, error: bool = True, **more) -> list[str]:
    report = lint.check("x.ipynb", notebook(*cells), **more)
    return [one.sentence("x.ipynb") for one in (report.errors if error else report.warnings)]


def test_a_finding_names_the_code_cell_and_its_line():
    cells = ("import torch", "from trl import SFTTrainer as T\nimport os", "\nT(\n  packing=True)", "def f(:")
    assert [one.partition(":")[0] for one in found(*cells)] == ["x.ipynb cell 3 line 3", "x.ipynb cell 4 line 1"]


@pytest.mark.parametrize(
    "cell",
    [
        "%matplotlib inline\nx = 1",
        "!nvidia-smi | head -1\nx = 1",
        "if True:\n    !ls\n    %time x = 2",
        "files = !ls *.py\nlen(files)",
        "a, b = %timeit -o 1 + 1",
        "%%bash\nfor x in a b; do echo $x; done",
        "%%time\nx = 1",
        "?print\nlen?\nx = 1",
        "!pip install a \\\n  b c\nx = 1",
        "await thing()",
        "async with a as b:\n    pass",
        'text = """\n% of it\n! yes\n"""',
        "",
    ],
)
def test_magics_and_top_level_await_are_no_errors(cell):
    assert found("x = 0", cell) == []


def test_lines_stay_where_they_are_when_magics_go():
    text = notebooks.as_python("%time 1\n!ls\nfiles = !ls\nx = 1")
    assert text == "pass\npass\nfiles = None\nx = 1"


def test_what_cells_install_by_themselves_is_there():
    assert (
        found("%pip install -q polars 'pandas>=2'\n!pip3 install plotnine", "import polars, plotnine", error=False)
        == []
    )
    assert found("import polars", error=False) != []


def test_the_block_of_packages_may_stand_in_any_cell():
    block = '# /// script\n# dependencies = ["torch==2"]\n# ///'
    packages = lint.check("x.ipynb", notebook("x = 1", block)).packages
    assert [(one.name, one.cell, one.line) for one in packages.wanted] == [("torch", 2, 2)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "it is no notebook"),
        ("[]", "it is no notebook of format 4"),
        ('{"worksheets": []}', "it is no notebook of format 4"),
        (notebook("x <- 1", language="R"), "its language is r, and only Python is run"),
    ],
)
def test_what_can_not_be_executed_is_said(text, said):
    (one,) = lint.check("x.ipynb", text).errors
    assert said in one.text
