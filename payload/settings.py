"""config.json, read and checked: unknown keys, wrong types and a wrong script end with 2 and a message.

The controller sends every key filled in; a config written by hand may leave out what has a default.
"""

import difflib
import json
from pathlib import Path

from report import EXIT_CONFIG, leave

# What every training script reads; the scripts add their own. `orchestrator/config.py` explains each key,
# and a test holds both to the same values.
COMMON = {
    "seed": 0,
    "epochs": 1.0,
    "max_steps": None,
    "batch_size": 8,
    "gradient_accumulation": 1,
    "learning_rate": 2e-5,
    "schedule": "linear",
    "warmup": 0.0,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "log_every_steps": 10,
    "checkpoint_every_steps": 200,
    "optimizer": "auto",
    "dtype": "auto",
    "device": "auto",
}
DATA = {
    "train": None,
    "eval": None,
    "eval_fraction": 0.0,
    "split": "train",
    "eval_split": "test",
    "text_field": "text",
    "label_field": "label",
    "format": "auto",
    "max_rows": None,
}
REQUIRED = object()  # a key without a default


def read(path, method, defaults):
    """Read the config of one training; `defaults` holds every key that the script knows.

    A whole template is taken too: its `training` part counts. Leaves with 2 on what it can't use.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        leave(EXIT_CONFIG, f"{path}: no such file; the config is the script's only argument")
    except ValueError as error:
        leave(EXIT_CONFIG, f"{path}: not JSON ({error})")
    if isinstance(content, dict) and isinstance(content.get("training"), dict):
        content = content["training"]
    if not isinstance(content, dict):
        leave(EXIT_CONFIG, f"{path}: a config is an object with keys")
    if content.get("method", method) != method:
        leave(EXIT_CONFIG, f"{path}: method is {content['method']!r}, but this script does {method!r}")
    given = {key: value for key, value in content.items() if key != "method"}
    return {"method": method, **_filled(path, given, defaults)}


def _filled(path, given, defaults, prefix=""):
    """Merge what is given over the defaults, `data` and other sections included."""
    for key in given:
        if key not in defaults:
            near = difflib.get_close_matches(key, defaults, 1)
            leave(EXIT_CONFIG, f"{path}: unknown key {prefix}{key}" + (f"; did you mean {near[0]}?" if near else ""))
    filled = {**defaults, **given}
    for key, value in filled.items():
        if value is REQUIRED:
            leave(EXIT_CONFIG, f"{path}: {prefix}{key} is missing")
        _check_type(path, prefix + key, value, defaults[key])
    if not prefix and isinstance(filled.get("data"), dict):
        filled["data"] = _filled(path, filled["data"], DATA, "data.")
        if not filled["data"]["train"]:
            leave(EXIT_CONFIG, f"{path}: data.train is missing: a file of rows or a hub name")
    return filled


def _check_type(path, key, value, default):
    """Compare with the default's type; a whole number serves where a fraction is meant."""
    if default is None or default is REQUIRED or value is None:
        return
    number = isinstance(default, (int, float)) and not isinstance(default, bool)
    fits = (int, float) if isinstance(default, float) else type(default)
    if not isinstance(value, fits) or (number and isinstance(value, bool)):
        leave(EXIT_CONFIG, f"{path}: {key} is {value!r}, but must be a {type(default).__name__} like {default!r}")
