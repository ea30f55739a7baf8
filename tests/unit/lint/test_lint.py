"""What lint finds in a script, and what it leaves in peace."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import lint
from orchestrator.lint import rows

CLASSIC = (Path(__file__).parent / "classic_qlora_2024.txt").read_text()
HEAD = "import transformers, peft, datasets, trl\nfrom transformers import *\nfrom trl import *\n"


def errors(text: str, **more) -> list[str]:
    return [one.sentence("x.py") for one in lint.check("x.py", text, **more).errors]


def warnings(text: str, **more) -> list[str]:
    return [one.sentence("x.py") for one in lint.check("x.py", text, **more).warnings]


# ── what the libraries took away ─────────────────────────────────────────────────────────────────────────────────────


def test_the_classic_qlora_script_of_2024_is_caught_whole_in_one_go():
    found = {(one.line, one.text.partition(" is gone")[0]) for one in lint.check("x.py", CLASSIC).errors}
    assert found == {
        (3, "datasets.load_metric"),
        (4, "peft.prepare_model_for_int8_training"),
        (6, "transformers.AdamW"),
        (11, "trl.DataCollatorForCompletionOnlyLM"),
        (11, "trl.setup_chat_format"),
        (14, "load_dataset(use_auth_token=)"),
        (17, "from_pretrained(load_in_4bit=)"),
        (21, "from_pretrained(use_auth_token=)"),
        (31, "TrainingArguments(overwrite_output_dir=)"),
        (33, "TrainingArguments(evaluation_strategy=)"),
        (35, "TrainingArguments(warmup_ratio=)"),
        (36, "TrainingArguments(group_by_length=)"),
        (37, "TrainingArguments(logging_dir=)"),
        (38, "TrainingArguments(no_cuda=)"),
        (43, "TrainingArguments(push_to_hub_token=)"),
        (50, "SFTTrainer(dataset_text_field=)"),
        (51, "SFTTrainer(max_seq_length=)"),
        (52, "SFTTrainer(tokenizer=)"),
        (54, "SFTTrainer(packing=)"),
    }


def test_each_finding_names_its_fix_and_whence_it_is_known():
    found = lint.check("x.py", CLASSIC).errors
    assert [one for one in found if not one.fix] == []
    assert [one for one in found if " is gone" in one.text and " had it, " not in one.source] == []
    assert "x.py:33: TrainingArguments(evaluation_strategy=) is gone → eval_strategy=" in errors(CLASSIC)


@pytest.mark.parametrize("row", [*rows.KEYWORDS], ids=lambda row: f"{row.place}({row.argument})")
def test_every_argument_of_the_table_is_found(row):
    called = row.place.replace("*.", "AutoModelForCausalLM.").replace("trl.*", "trl.KTO")
    (found,) = errors(f"{HEAD}{called}(**{{'other': 1}}, {row.argument}=1)")
    assert found.startswith("x.py:4: ")
    assert f"({row.argument}=) is gone → {row.fix}" in found


@pytest.mark.parametrize("row", [*rows.NAMES], ids=lambda row: row.place)
def test_every_name_of_the_table_is_found_where_it_is_imported_and_where_it_is_used(row):
    package, _, name = row.place.partition(".")
    assert errors(f"from {package} import {name}") == [f"x.py:1: {row.place} is gone → {row.fix}"]
    assert errors(f"import {package} as p\n\np.{name}()") == [f"x.py:3: {row.place} is gone → {row.fix}"]


@pytest.mark.parametrize(
    "text",
    [
        "from trl import SFTTrainer as T\nT(tokenizer=1)",
        "import trl as t\nt.SFTTrainer(tokenizer=1)",
        "import trl.trainer.sft_trainer\ntrl.trainer.sft_trainer.SFTTrainer(tokenizer=1)",
        "from trl.trainer.sft_trainer import SFTTrainer\nSFTTrainer(tokenizer=1)",
        "from trl import *\nSFTTrainer(tokenizer=1)",
        "import trl\nT = trl.SFTTrainer\nT(tokenizer=1)",
        "from trl import SFTTrainer\nsettings = {'tokenizer': 1}\nSFTTrainer(**settings)",
        "from trl import SFTTrainer\nsettings = dict(tokenizer=1)\nSFTTrainer(**settings)",
        "from trl import SFTTrainer\nsettings = {}\nsettings['tokenizer'] = 1\nSFTTrainer(**settings)",
        "from trl import SFTTrainer\nclass Mine(SFTTrainer):\n    pass\nMine(tokenizer=1)",
        "from trl import SFTTrainer\nclass A(SFTTrainer):\n  def __init__(self):\n    super().__init__(tokenizer=1)",
    ],
)
def test_an_argument_is_found_by_whatever_name_the_class_goes(text):
    assert ["(tokenizer=) is gone" in found for found in errors(text)] == [True]


@pytest.mark.parametrize(
    "text",
    [
        "from transformers import BitsAndBytesConfig\nBitsAndBytesConfig(load_in_4bit=True)",
        "from unsloth import FastLanguageModel\nFastLanguageModel.from_pretrained('x', load_in_4bit=True)",
        "from transformers import AutoTokenizer\nAutoTokenizer.from_pretrained('x', load_in_4bit=True)",
        "from trl import SFTConfig, SFTTrainer\nSFTTrainer(processing_class=1, args=SFTConfig(max_length=9))",
        "def SFTTrainer(tokenizer): ...\nSFTTrainer(tokenizer=1)",
        "from trl import DPOConfig\nDPOConfig(max_length=9, beta=0.1)",
        "try:\n    from transformers import AdamW\nexcept ImportError:\n    from torch.optim import AdamW",
    ],
)
def test_what_works_today_is_left_in_peace(text):
    assert errors(text, requirements="torch\ntransformers\ntrl\nunsloth\n") == []


@pytest.mark.parametrize(
    ("reporters", "requirements", "caught"),
    [
        ("'tensorboard'", "trl", ["tensorboard"]),
        ("'tensorboard'", None, []),
        ("['wandb', 'tensorboard']", "transformers\nwandb", ["tensorboard"]),
        ("'none'", "transformers", []),
        ("'all'", "transformers", []),
        ("'mlflow'", "transformers\nmlflow", []),
        ("'mlflow'", "-r other.txt", []),
    ],
)
def test_a_reporter_whose_package_nobody_names_ends_the_trainer_at_once(reporters, requirements, caught):
    text = f"from transformers import TrainingArguments\nTrainingArguments('outputs', report_to={reporters})"
    found = errors(text, requirements=requirements)
    assert [line.split("needs the package ")[1].split(" ")[0] for line in found] == caught
    assert requirements or "needs the package" in warnings(text)[0]


@pytest.mark.parametrize(
    "parser", ["from transformers import HfArgumentParser", "from trl import TrlParser", "import argparse"]
)
def test_what_a_command_line_hands_to_training_arguments_is_looked_at_too(parser):
    given = ["--evaluation-strategy", "steps", "--warmup_ratio=0.1", "--eval_strategy", "no", "evaluation_strategy"]
    known = [] if "argparse" in parser else ["--evaluation-strategy", "--warmup_ratio"]
    assert [one.partition(" is gone")[0] for one in errors(parser, arguments=given)] == [
        f"x.py: the argument {name}" for name in known
    ]


def test_a_model_of_which_nothing_is_known_is_only_warned_about():
    text = "def load(cls):\n    return cls.from_pretrained('x', load_in_8bit=True)"
    assert errors(text) == []
    assert "from_pretrained(load_in_8bit=) is gone" in warnings(text)[0]


@pytest.mark.parametrize(
    ("asked", "caught"),
    [
        ("trl==0.8.6", False),
        ("trl<0.13", False),
        ("trl<=0.12.2", False),
        ("trl~=0.12.1", False),
        ("trl==0.12.*", False),
        ("trl>=0.8,<0.13", False),
        ("trl==0.13.0", True),
        ("trl<0.14", True),
        ("trl~=0.12", True),
        ("trl>=0.8", True),
        ("trl", True),
        ("torch", True),
    ],
)
def test_a_version_that_still_had_it_is_left_in_peace(asked, caught):
    text = f'# /// script\n# dependencies = ["{asked}"]\n# ///\nfrom trl import SFTTrainer\nSFTTrainer(packing=True)'
    assert bool(errors(text)) is caught


# ── syntax ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = 1\nprint(a\n", 2), ("x = 1\n\nreturn x\n", 3), ("def f():\npass\n", 2), ("print 'old'\n", 1)],
)
def test_what_is_no_python_is_told_with_its_line(text, line):
    (found,) = errors(text)
    assert found.startswith(f"x.py:{line}: syntax: ")


def test_a_null_byte_is_no_python_either():
    assert "syntax" in errors("a = '\0'")[0]


def test_syntax_that_a_newer_python_may_know_is_no_error():
    text = '# /// script\n# requires-python = ">=3.99"\n# ///\nprint(a b)\n'
    assert errors(text) == []
    assert "can't be read by this Python" in warnings(text)[0]


def test_nothing_of_a_script_is_run(tmp_path):
    text = f"open({str(tmp_path / 'made')!r}, 'w')\nimport sys\nsys.exit(3)\n"
    assert errors(text) == []
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=80)
@given(
    st.one_of(
        st.text(max_size=200), st.builds(lambda a, b: CLASSIC[a : a + b], st.integers(0, 2000), st.integers(0, 900))
    )
)
def test_any_text_is_judged_and_breaks_nothing(text):
    for name in ("x.py", "x.ipynb"):
        for one in lint.check(name, text, requirements=text).findings:
            assert one.sentence(name).startswith(name)


# ── packages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ('# /// script\n# dependencies = ["a"]\nprint()', "x.py:1: the block # /// script is never closed"),
        ('# /// script\n# dependencies = ["a"\n# ///\n', "x.py:1: the block # /// script: Unclosed array"),
        ("# /// script\n# dependencies = [a]\n# ///\n", "x.py:2: the block # /// script: Invalid value"),
        ("# /// script\n# dependencies = 'torch'\n# ///\n", "x.py:1: dependencies is no list of texts"),
        (
            '# /// script\n# dependencies = [\n#   "a",\n#   "torch=2.6",\n# ]\n# ///\n',
            'x.py:4: "torch=2.6" is no package',
        ),
        ('# /// script\n# dependencies = ["-e ."]\n# ///\n', 'x.py:2: "-e ." is no package'),
        ('# /// script\n# requires-python = "3.11"\n# ///\n', "x.py:1: requires-python is '3.11'"),
        ("# /// script\n# a = 1\n# ///\n\n# /// script\n# a = 1\n# ///\n", "x.py:5: a second block"),
    ],
)
def test_a_malformed_block_is_told_with_its_line(block, said):
    (found,) = errors(block)
    assert found.startswith(said)


def test_a_block_is_read_whole():
    text = """
# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#   "Torch_Vision[x]>=1,<2; os_name == 'posix'",
#   "b @ https://x/b-1.whl",
# ]
# ///
"""
    packages = lint.check("x.py", text).packages
    assert packages.python == ">=3.11,<3.14"
    assert [(one.name, one.ranges, one.line, one.elsewhere) for one in packages.wanted] == [
        ("torch-vision", ">=1,<2", 5, False),
        ("b", "", 6, True),
    ]


def test_a_requirements_file_beside_it_is_read_where_there_is_no_block():
    lines = "# mine\ntorch>=2 # why\n\n-r more.txt\n--index-url https://x\nbad=1\n"
    lines += "other==1.0 \\\n  --hash=sha256:00\n./a.whl\n"
    report = lint.check("x.py", "print()", requirements=lines)
    assert [one.sentence("x.py") for one in report.errors] == [
        'x.py: requirements.txt:6: "bad=1" is no package and version: == is needed'
    ]
    assert ([one.name for one in report.packages.wanted], report.packages.more) == (["torch", "other"], True)
    block = '# /// script\n# dependencies = ["a"]\n# ///\n'
    assert lint.check("x.py", block, requirements=lines).packages.wanted[0].name == "a"


@pytest.mark.parametrize(
    ("text", "requirements", "said"),
    [
        ("import polars", "pandas", "no package that it names brings the module polars"),
        ("import polars\nimport polars.io", "torch", "no package that it names brings the module polars"),
        ("from PIL import Image", "requests", "no package that it names brings the module PIL"),
        ("import polars", None, "gpurun's own environment lacks the module polars"),
    ],
)
def test_a_module_that_nothing_brings_is_warned_about_once(text, requirements, said):
    package = "pillow" if "PIL" in said else "polars"
    assert warnings(text, requirements=requirements) == [f'x.py:1: {said} → name it: dependencies = ["{package}", …]']
    assert errors(text, requirements=requirements) == []


@pytest.mark.parametrize(
    ("text", "requirements"),
    [
        ("import torch, transformers, yaml, numpy, json, os.path  # outputs", None),
        ("import cv2, sklearn.metrics, pandas  # outputs", "opencv-python-headless\nscikit-learn\ndatasets"),
        ("import anything", "-r other.txt"),
        ("try:\n    import wandb\nexcept ImportError:\n    wandb = None", "requests"),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import polars", "requests"),
        ("from . import sibling", "requests"),
    ],
)
def test_a_module_that_comes_along_or_may_be_missing_is_left_in_peace(text, requirements):
    assert warnings(text, requirements=requirements) == []


def test_a_module_beside_the_script_must_go_along():
    text = "import helper\nfrom pack.inner import x"
    here = ["helper.py", "pack"]
    assert errors(text, here=here) == [
        "x.py:1: helper lies beside the script and would stay here → ship it: --include helper.py",
        "x.py:2: pack lies beside the script and would stay here → ship it: --include pack",
    ]
    assert errors(text, here=here, shipped=["helper.py", "pack/inner.py"]) == []


def test_what_only_colab_has_is_an_error():
    assert "google.colab is on Colab only" in errors("from google.colab import drive")[0]


# ── what would not come home ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("from transformers import TrainingArguments\nTrainingArguments('results')", "results"),
        ("from trl import SFTConfig\nSFTConfig(output_dir='./results/x')", "./results/x"),
        ("from trl import SFTConfig\nout = '/content/drive'\nSFTConfig(output_dir=out + '/x')", "/content/drive"),
        ("import torch\ntorch.save({}, 'model.pt')", "model.pt"),
        ("model.save_pretrained(f'{1}')\nmodel.save_pretrained('my-model')", "my-model"),
        ("import os\ntrainer.save_model(os.path.join('final', 'x'))", "final"),
        ("from pathlib import Path\ntrainer.save_model(Path('../outputs'))", "../outputs"),
    ],
)
def test_what_is_saved_elsewhere_is_warned_about(text, path):
    assert [one for one in warnings(text) if f'"{path}" does not come home' in one] != []


@pytest.mark.parametrize("path", ["outputs", "./outputs/a", "artifacts/model", "outputs/../artifacts"])
def test_what_is_saved_where_it_comes_home_is_not(path):
    assert warnings(f"import torch\ntorch.save({{}}, {path!r})\nx.save_pretrained({path!r})") == []


def test_a_training_that_saves_nothing_is_warned_about_once():
    (found,) = warnings("import torch\nprint(torch.ones(3))")
    assert "only the log comes home" in found


def test_tokens_questions_and_attention_that_is_not_there_are_warned_about():
    text = "x = input()\nm.push_to_hub('a/b')\nf(report_to='wandb')\nf(attn_implementation='flash_attention_2')\n"
    found = warnings(text, requirements="torch")
    for line, words in enumerate(("input()", "--secret HF_TOKEN", "--secret WANDB_API_KEY", "flash_attention_2"), 1):
        assert any(one.startswith(f"x.py:{line}:") and words in one for one in found), words
    assert warnings("m.push_to_hub('a/b')", secrets=["HF_TOKEN"]) == []
