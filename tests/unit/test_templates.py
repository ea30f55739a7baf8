"""Templates: every one is whole and keeps its recipe's classic values; what is wrong is said before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from orchestrator import templates
from orchestrator.config import Classify, Export, Loop, Pretrain, Sft
from providers.errors import ConfigError, GpurunError, UsageError

NAMES = [listed.name for listed in templates.names()]
PAYLOAD = Path(__file__).parents[2] / "payload"
CLASSIC = {"loop", "text-classification", "lora-8bit", "qlora-sft", "full-sft", "pretrain", "quantize", "chain", "demo"}


def refusal(*args: str, **options: object) -> GpurunError:
    with pytest.raises(GpurunError) as caught:
        templates.load(args[0], args[1:], **options)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    return caught.value


def written(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


# ── the ready ones ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_classic_recipes_are_all_there() -> None:
    assert set(NAMES) >= CLASSIC


@pytest.mark.parametrize("name", NAMES)
def test_a_ready_template_loads_with_its_data_and_runs_a_script_that_exists(name: str) -> None:
    template = templates.load(name)
    assert template.settings.name == name
    assert template.settings.about
    assert (PAYLOAD / template.command[1].removeprefix("payload/")).is_file()
    assert all(file.path.is_file() and file.name.startswith("data/") for file in template.files)
    assert json.loads(json.dumps(template.config)) == template.config


@pytest.mark.parametrize("name", NAMES)
def test_a_ready_template_opens_with_what_it_assumes_how_it_runs_and_what_it_costs(name: str) -> None:
    head = templates.find(name).read_text(encoding="utf-8").split("\nname:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    for words in ("# Assumes:", "# Run with:", "# Costs about:", f"gpurun launch {name}"):
        assert words in head


@pytest.mark.parametrize("name", NAMES)
def test_the_one_line_of_a_template_fits_the_list(name: str) -> None:
    assert len(templates.load(name).settings.about) <= 80 - 2 - max(map(len, NAMES))


def test_loop_is_the_64_128_10_network() -> None:
    training = templates.load("loop").settings.training
    assert isinstance(training, Loop)
    assert training.layers == [64, 128, 10]


def test_text_classification_is_distilbert_on_imdb() -> None:
    training = templates.load("text-classification").settings.training
    assert isinstance(training, Classify)
    assert (training.model, training.data.train, training.data.eval) == ("distilbert-base-uncased", "imdb", "imdb")
    assert (training.epochs, training.learning_rate) == (3, 2e-5)


def test_lora_8bit_trains_8_388_608_parameters_of_llama_2_7b() -> None:
    training = templates.load("lora-8bit").settings.training
    assert isinstance(training, Sft)
    assert training.lora is not None
    assert (training.model, training.quantization) == ("meta-llama/Llama-2-7b-hf", "8bit")
    assert (training.lora.r, training.lora.alpha) == (8, 32)
    assert training.lora.targets == ["q_proj", "k_proj", "v_proj", "o_proj"]
    layers, hidden = 32, 4096  # of Llama-2-7b, whose four projections are all hidden x hidden
    assert layers * len(training.lora.targets) * training.lora.r * 2 * hidden == 8_388_608


def test_qlora_sft_is_mistral_7b_in_nf4_with_paged_adamw() -> None:
    training = templates.load("qlora-sft").settings.training
    assert isinstance(training, Sft)
    assert training.lora is not None
    assert (training.model, training.quantization) == ("mistralai/Mistral-7B-v0.1", "4bit")
    assert (training.lora.r, training.learning_rate, training.epochs) == (16, 2e-4, 3)
    assert training.optimizer == "paged_adamw_8bit"


def test_full_sft_trains_every_weight() -> None:
    training = templates.load("full-sft").settings.training
    assert isinstance(training, Sft)
    assert (training.lora, training.quantization) == (None, "none")


def test_pretrain_and_quantize_do_what_they_are_called() -> None:
    assert isinstance(templates.load("pretrain").settings.training, Pretrain)
    export = templates.load("quantize").settings.training
    assert isinstance(export, Export)
    assert export.quantization == "4bit"


def test_chain_goes_from_pretraining_to_4_bits_on_its_own_model_and_says_so() -> None:
    template = templates.load("chain")
    steps = template.config["steps"]
    assert list(steps) == ["pretrain", "sft", "merge", "quantize"]
    assert steps["sft"]["model"] == "step:pretrain"
    assert steps["sft"]["lora"] is not None
    assert (steps["merge"]["model"], steps["merge"]["adapter"]) == ("step:pretrain", "step:sft")
    assert (steps["quantize"]["model"], steps["quantize"]["quantization"]) == ("step:merge", "4bit")
    assert "the model it pretrained itself" in template.source.read_text(encoding="utf-8")


def test_a_file_that_two_steps_use_is_shipped_once() -> None:
    template = templates.load("chain")
    assert [file.name for file in template.files] == ["data/glosses.jsonl"]
    assert template.config["steps"]["sft"]["data"]["train"] == "data/glosses.jsonl"


def test_the_payload_gets_every_default_spelt_out_and_its_paths_as_they_will_be() -> None:
    config = templates.load("demo").config
    assert config["method"] == "classify"
    assert config["max_grad_norm"] == 1.0
    assert (config["data"]["train"], config["data"]["eval"]) == ("data/train.jsonl", "data/eval.jsonl")


# ── finding ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_unknown_template_names_the_near_one_and_all() -> None:
    error = refusal("dmo")
    assert "did you mean demo?" in str(error)
    assert all(name in str(error) for name in NAMES)
    assert error.hint == "gpurun templates", "a launch is no answer to a typo: it may be one of compare's"


def test_a_missing_template_file_is_named() -> None:
    assert "no/such.yaml" in str(refusal("no/such.yaml"))


def test_the_users_own_template_wins_over_a_ready_one(tmp_path: Path) -> None:
    written(tmp_path, "name: demo\nabout: mine\ntraining: {method: loop}\n", "demo.yaml")
    assert templates.load("demo", own=tmp_path).settings.about == "mine"


def test_a_broken_template_does_not_hide_the_others(tmp_path: Path) -> None:
    written(tmp_path, "a: [\n", "broken.yaml")
    listed = {one.name: one.about for one in templates.listing(tmp_path)}
    assert listed["broken"].startswith("broken: ")
    assert set(listed) >= set(NAMES)


# ── YAML ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_yaml_1_1_traps_are_no_traps(tmp_path: Path) -> None:
    keys = "  method: pretrain\n  compile: on\n  learning_rate: 6e-4\n  data: {train: no, text_field: 1:30}\n"
    text = f"name: a\ntraining:\n{keys}"
    training = templates.load(written(tmp_path, text)).settings.training
    assert isinstance(training, Pretrain)
    assert (training.compile, training.learning_rate) == ("on", 6e-4)
    assert (training.data.train, training.data.text_field) == ("no", "1:30")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not a template"),
        ("- a\n", "is not a template"),
        ("name: a\n\ttraining: b\n", "line 2"),
        ("name: [a\n", "is not YAML"),
        ("name: a\nname: b\n", "line 2: name stands twice; the first is in line 1"),
        ("name: !!python/object/apply:os.system [ls]\n", "is not YAML"),
        ("name: a\ntraining: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("name: a\ntraining: {method: script, command: []}\n", "command is []: a length of at least 1 is needed"),
        ("name: a\ntraining: {method: chain, steps: {}}\n", "steps is {}: a length of at least 1 is needed"),
        ("name: a\ntraining: {method: loop, layers: [3]}\n", "layers is [3]: a length of at least 2 is needed"),
        ("name: a\ntraining: &t {method: loop, data: *t}\n", "data"),
    ],
)
def test_what_is_no_template_is_told_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    assert words in str(refusal(written(tmp_path, text)))


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    assert "can't be read" in str(refusal(str(tmp_path / "a.yaml")))


# ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

SFT = "name: a\ntraining: {method: sft, model: some/model, data: {train: rows.jsonl}}\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no file"),
        (b"", "is empty"),
        (b"\n \n", "has no rows"),
        (
            b'{"text": "a"}\n{"txt": "b"}\n',
            'row 2 has no "text" or "prompt" and "completion" or "messages"; it has "txt"',
        ),
        (b'{"text": "a"}\n{"text": }\n', "row 2 is not JSON"),
        (b'{"text": "a"}\n[1]\n', "row 2 is not a JSON object"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_data_that_can_not_train_is_refused_with_its_file_and_row(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / "rows.jsonl").write_bytes(content)
    error = str(refusal(written(tmp_path, SFT)))
    assert words in error
    assert "rows.jsonl" in error
    assert "mine.yaml line 2" in error


def test_a_csv_without_its_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,class\nhello,1\n")
    text = "name: a\ntraining: {method: classify, model: m, data: {train: rows.csv}}\n"
    error = refusal(written(tmp_path, text))
    assert 'row 2 has no "text" and "label"; it has "text" "class"' in str(error)


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "row.jsonl").write_text('{"text": "a"}\n')
    assert "did you mean row.jsonl?" in str(refusal(written(tmp_path, SFT)))


def test_template_paths_start_at_the_template_and_flag_paths_at_the_working_folder(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "rows.jsonl").write_text('{"text": "a"}\n')
    path = written(there, SFT)
    assert templates.load(path, cwd=here).files[0].path == there / "rows.jsonl"
    assert templates.load(path, ["data.train=rows.jsonl"], cwd=here).files[0].path == here / "rows.jsonl"


def test_a_copied_template_still_finds_the_data_that_come_with_gpurun(tmp_path: Path) -> None:
    copy = written(tmp_path, templates.find("demo").read_text(encoding="utf-8"))
    assert templates.load(copy).files == templates.load("demo").files


def test_two_files_of_one_name_stay_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text('{"text": "a"}\n')
    path = written(tmp_path, SFT.replace("rows.jsonl", "a/rows.jsonl, eval: b/rows.jsonl"))
    template = templates.load(path)
    assert len({file.name for file in template.files}) == 2
    assert {template.config["data"]["train"], template.config["data"]["eval"]} == {file.name for file in template.files}


def test_a_folder_of_data_is_shipped_whole_without_its_hidden_files(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.txt").write_text("a")
    (folder / ".secret").write_text("b")
    template = templates.load(written(tmp_path, SFT.replace("rows.jsonl", "./texts")))
    assert [file.name for file in template.files] == ["data/texts/deep/a.txt"]
    assert template.config["data"]["train"] == "data/texts"


def test_a_model_folder_is_shipped_and_a_hub_name_is_not(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    text = "name: a\ntraining: {method: export, model: ./model, adapter: some/adapter}\n"
    template = templates.load(written(tmp_path, text))
    assert [file.name for file in template.files] == ["data/model/config.json"]
    assert (template.config["model"], template.config["adapter"]) == ("data/model", "some/adapter")


def test_a_nasty_folder_name_reaches_the_machine_as_a_plain_one(nasty_folder: Path) -> None:
    (nasty_folder / "it's; echo $HOME.jsonl").write_text('{"text": "a"}\n')
    text = yaml.safe_dump(
        {"name": "a", "training": {"method": "sft", "model": "m", "data": {"train": "./it's; echo $HOME.jsonl"}}}
    )
    template = templates.load(written(nasty_folder, text))
    assert template.files[0].path.parent == nasty_folder
    assert template.files[0].name == "data/it_s_echo_HOME.jsonl"


def test_a_script_keeps_its_command_and_ships_its_code(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("print(1)\n")
    text = 'name: a\ntraining: {method: script, code: mine.py, command: ["{python}", code/mine.py]}\n'
    template = templates.load(written(tmp_path, text))
    assert template.command == ("{python}", "code/mine.py")
    assert template.code == tmp_path / "mine.py"
    assert "there is no file or folder" in str(refusal(written(tmp_path, text.replace("code: mine", "code: yours"))))


def test_defaults_fill_only_what_the_template_leaves_open(tmp_path: Path) -> None:
    path = written(tmp_path, "name: a\ntraining: {method: loop}\nlimits: {max_hours: 2}\n")
    defaults = {("limits", "max_hours"): 9.0, ("limits", "max_idle_minutes"): 7.0}
    limits = templates.load(path, defaults=defaults).settings.limits
    assert (limits.max_hours, limits.max_idle_minutes) == (2, 7)


def test_no_template_error_ever_shows_pydantics_words(tmp_path: Path) -> None:
    path = written(tmp_path, "name: 3\nabout: {}\ntraining: {method: sft, data: 5, lora: [1]}\nsecrets: a\n")
    error = str(refusal(path))
    assert isinstance(refusal(path), ConfigError)
    assert not any(word in error for word in ("Input should", "pydantic", "validation", "type="))


def test_a_flag_that_is_no_pair_is_a_usage_error() -> None:
    assert isinstance(refusal("demo", "epochs"), UsageError)
