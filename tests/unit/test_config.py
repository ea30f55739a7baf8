"""Settings: `--set` puts a value where it belongs, unharmed; what is wrong is told in sentences with the right key."""

from __future__ import annotations

import os
import stat
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import settings_file, templates, yaml12
from providers.errors import ConfigError, GpurunError, StateError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def refusal(name: str, *sets: str) -> GpurunError:
    with pytest.raises(GpurunError) as caught:
        templates.load(name, sets)
    assert caught.value.exit_code == 2
    return caught.value


# ── --set ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "key", "place"),
    [
        ("demo", "epochs", ("training", "epochs")),
        ("demo", "training.epochs", ("training", "epochs")),
        ("demo", "max_hours", ("limits", "max_hours")),
        ("demo", "data.max_rows", ("training", "data", "max_rows")),
        ("demo", "max_rows", ("training", "data", "max_rows")),
        ("lora-8bit", "alpha", ("training", "lora", "alpha")),
        ("full-sft", "lora.r", ("training", "lora", "r")),
        ("chain", "steps.sft.batch_size", ("training", "steps", "sft", "batch_size")),
    ],
)
def test_a_short_key_lands_where_it_belongs(name: str, key: str, place: tuple[str, ...]) -> None:
    node = templates.load(name, [f"{key}=3"]).settings.model_dump()
    for part in place:
        node = node[part]
    assert node == 3


def test_a_short_key_with_several_places_is_refused_with_all_of_them() -> None:
    error = refusal("chain", "epochs=3")
    assert isinstance(error, UsageError)
    assert "training.steps.pretrain.epochs training.steps.sft.epochs" in str(error)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("epoch", "training.epochs"),
        ("lr", "training.learning_rate"),
        ("max-hours", "limits.max_hours"),
        ("per_device_train_batch_size", "training.batch_size"),
        ("trian", "training.data.train"),
        ("training.epochz", "epochs"),
        ("data.trian", "train"),
    ],
)
def test_a_misspelt_flag_gets_the_right_key(key: str, meant: str) -> None:
    assert f"did you mean {meant}?" in str(refusal("demo", f"{key}=3"))


@pytest.mark.parametrize("text", ["epochs", "=3", "", "batch_size.x=3"])
def test_a_flag_that_can_not_be_placed_is_a_usage_error(text: str) -> None:
    assert isinstance(refusal("demo", text), UsageError)


@pytest.mark.parametrize("value", ["[1, 2", "{a: 1", '"open', "'open"])
def test_an_open_bracket_or_quote_is_told(value: str) -> None:
    assert "is not closed" in str(refusal("loop", f"layers={value}"))


def test_a_nasty_value_arrives_unharmed(nasty: str) -> None:
    assert templates.load("demo", [f"about={nasty}"]).settings.about == nasty


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_text_that_does_not_look_like_yaml_stays_as_typed(text: str) -> None:
    value = yaml12.scalar("x " + text)
    assert value == "x " + text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3.5", -3.5),
        ("2e-5", 2e-5),
        ("true", True),
        ("null", None),
        ("", None),
        ("yes", "yes"),
        ("off", "off"),
        ("010", 10),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("2026-01-02", "2026-01-02"),
        ("[1, a]", [1, "a"]),
        ("{a: 1}", {"a": 1}),
        ('"3"', "3"),
        ("a: b", "a: b"),
        ("a #b", "a #b"),
        ("- a", "- a"),
        ("!!int x", "!!int x"),
        ("*alias", "*alias"),
    ],
)
def test_a_value_is_read_as_its_spelling_says(text: str, value: object) -> None:
    read = yaml12.scalar(text)
    assert (read, type(read)) == (value, type(value))


# ── wrong values ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("batch_size=many", 'training.batch_size is "many": a whole number is needed'),
        ("batch_size=2.5", "training.batch_size is 2.5: a whole number is needed"),
        ("batch_size=true", "training.batch_size is true: a whole number is needed"),
        ("max_hours=true", "limits.max_hours is true: a number is needed"),
        ("max_hours=-3", "limits.max_hours is -3: a number above 0 is needed"),
        ("max_hours=999", "limits.max_hours is 999: a number up to 720 is needed"),
        ("max_hours=.inf", "limits.max_hours is inf"),
        ("learning_rate=.nan", "training.learning_rate is nan: a number is needed"),
        ("max_cost=x", 'limits.max_cost is "x": a number is needed'),
        ("seed=-1", "training.seed is -1: a number from 0 is needed"),
        ("warmup=1", "training.warmup is 1: a number below 1 is needed"),
        ("schedule=cosin", 'training.schedule is "cosin": one of linear cosine constant is needed'),
        ("model=3", "training.model is 3: a text is needed"),
        ("name=Ünï", "lower-case letters, digits and inner hyphens"),
        ("name=" + "a" * 25, "no longer than 24"),
        ("training.method=sfft", "did you mean sft?"),
        ("training=5", "training is 5: a mapping of keys is needed"),
        ("secrets=HF_TOKEN", "a list of texts is needed"),
        ("data.train=null", "training.data.train is empty: a text is needed"),
    ],
)
def test_a_wrong_value_is_told_with_what_was_given_and_what_is_wanted(flag: str, words: str) -> None:
    error = str(refusal("demo", flag))
    assert words in error
    assert error.startswith(f"--set {flag.split('=', maxsplit=1)[0]}: ")


def test_a_wrong_item_of_a_list_is_named() -> None:
    assert 'training.layers.1 is "a": a whole number in the list is needed' in str(refusal("loop", "layers=[1, a]"))


def test_an_error_in_a_file_names_its_line_and_the_valid_keys(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: a\ntraining:\n  method: loop\n  epoch: 3\nlimit:\n  max_hours: 3\n")
    error = str(refusal(str(path)))
    assert 'mine.yaml line 4: "epoch" is not a key in training; did you mean epochs? Keys here: ' in error
    assert 'mine.yaml line 5: "limit" is not a key; did you mean limits? Keys here: name about training' in error


def test_a_key_in_the_wrong_place_is_told_its_right_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: a\nepochs: 3\ntraining: {method: loop}\n")
    assert '"epochs" is not a key; training.epochs is.' in str(refusal(str(path)))


def test_a_misspelt_key_is_told_once_though_its_right_name_is_missing_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: a\ntraining: {method: sft, modell: x, data: {train: imdb}}\n")
    error = str(refusal(str(path)))
    assert "did you mean model?" in error
    assert "is missing" not in error


def test_a_missing_key_is_named_with_what_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: a\ntraining: {method: sft, data: {train: imdb}}\n")
    assert "training.model is missing: a text is needed" in str(refusal(str(path)))


def test_money_is_taken_as_it_was_written() -> None:
    limits = templates.load("demo", ["max_cost=3.10"]).settings.limits
    assert limits.max_cost == Decimal("3.1")


# ── the user's defaults ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "home" / "config.toml"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("monthly-cap", "25", Decimal(25)),
        ("max-cost", "$3.50", Decimal("3.50")),
        ("max_hours", "2", 2.0),
        ("accept-risk", "yes", True),
        ("provider", "local", "local"),
    ],
)
def test_a_default_comes_back_as_it_was_set(config: Path, key: str, text: str, value: object) -> None:
    settings_file.set_value(config, key, text)
    assert settings_file.get(config, key) == value
    assert settings_file.load(config) == {key.replace("_", "-"): value}


def test_a_path_with_nasty_characters_survives_the_file(config: Path, nasty_folder: Path) -> None:
    python = nasty_folder / "python"
    python.write_text("")
    settings_file.set_value(config, "python", str(python))
    assert settings_file.load(config) == {"python": str(python)}


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("monthly_cup", "3", "did you mean monthly-cap?"),
        ("color", "red", "Keys: provider"),
        ("max-hours", "0", "a number of hours above 0"),
        ("max-hours", "nan", "a number of hours above 0"),
        ("max-hours", "721", "at most 720"),
        ("max-cost", "free", "an amount in USD above 0"),
        ("accept-risk", "maybe", "true or false"),
        ("provider", "aws", "one of local lambda hf runpod colab is needed"),
        ("python", "/no/such/python", "there is no file"),
    ],
)
def test_a_wrong_default_is_refused_and_not_written(config: Path, key: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
        settings_file.set_value(config, key, text)
    assert not config.exists()


def test_unset_forgets_one_key_even_one_that_is_none(config: Path) -> None:
    config.parent.mkdir()
    config.write_text('max-hours = 2.0\ncolour = "red"\n')
    with pytest.raises(ConfigError, match="colour"):
        settings_file.load(config)
    assert settings_file.unset(config, "colour")
    assert not settings_file.unset(config, "monthly-cap")
    assert settings_file.load(config) == {"max-hours": 2.0}


def test_a_damaged_file_is_told_with_the_way_out(config: Path) -> None:
    config.parent.mkdir()
    config.write_text("= what")
    with pytest.raises(ConfigError, match="is not TOML") as caught:
        settings_file.load(config)
    assert str(config) in caught.value.hint


def test_a_file_that_can_not_be_read_is_an_error_of_the_home(config: Path) -> None:
    config.mkdir(parents=True)
    with pytest.raises(StateError):
        settings_file.load(config)


def test_the_home_made_for_the_file_is_the_users_alone(config: Path) -> None:
    settings_file.set_value(config, "max-hours", "2")
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700


def test_the_users_python_reaches_controllers_unless_the_environment_names_one(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GPURUN_PYTHON", raising=False)
    settings_file.export_python(config)
    assert "GPURUN_PYTHON" not in os.environ
    (tmp_path / "python").write_text("")
    settings_file.set_value(config, "python", str(tmp_path / "python"))
    monkeypatch.setenv("GPURUN_PYTHON", "mine")
    settings_file.export_python(config)
    assert os.environ["GPURUN_PYTHON"] == "mine"
    monkeypatch.delenv("GPURUN_PYTHON")
    settings_file.export_python(config)
    assert os.environ["GPURUN_PYTHON"] == str(tmp_path / "python")
