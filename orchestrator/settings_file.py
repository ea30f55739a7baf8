"""The user's defaults, `GPURUN_HOME/config.toml`: few flat keys, each checked when it is written and when it is read.

Order of a launch: a flag, then the template, then this file's value, then the built-in default.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.home import write_aside
from providers.errors import ConfigError, StateError

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "config.toml"
Value = str | bool | float | Decimal
_MOST_HOURS = 720


class Key(NamedTuple):
    """What a key takes."""

    kind: str  # text, path, hours, minutes, dollars, yes
    about: str


KEYS = {
    "provider": Key("text", "where to launch without --provider"),
    "python": Key("path", "trains on local where gpurun's own has no torch"),
    "max-hours": Key("hours", "the deadline where a template sets none"),
    "max-cost": Key("dollars", "the most that one run may cost, USD"),
    "max-idle": Key("minutes", "minutes without a step that mean hung"),
    "monthly-cap": Key("dollars", "no launch that could pass this in a month, USD"),
    "accept-risk": Key("yes", "launch though only this computer can stop the meter"),
}
_WANTED = {
    "text": "a name of lower-case letters, digits and hyphens",
    "path": "the path of a file",
    "hours": f"a number of hours above 0, at most {_MOST_HOURS}",
    "minutes": "a number of minutes above 0",
    "dollars": "an amount in USD above 0",
    "yes": "true or false",
}


def load(path: Path) -> dict[str, Value]:
    """Read the defaults; none when there is no file.

    Raises:
        ConfigError: it is not TOML, or holds a key or a value that is not one.
        StateError: it can't be read.
    """
    return {key: parse(key, _text(value)) for key, value in _read(path).items()}


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}", hint=f"mend it, or begin anew: rm {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(
            f"{path} can't be read: {error}", hint="gpurun doctor; another home: export GPURUN_HOME=…"
        ) from error


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse(key: str, text: str) -> Value:
    """Check one value.

    Raises:
        ConfigError: the key is not known, or the value is not of its kind.
    """
    known = KEYS.get(key) or KEYS.get(key.replace("_", "-").lower())
    if known is None:
        close = difflib.get_close_matches(key.replace("_", "-").lower(), KEYS, n=1)
        guess = f"; did you mean {close[0]}?" if close else "."
        raise ConfigError(
            f'"{key}" is not a key of the defaults{guess} Keys: {" ".join(KEYS)}',
            hint=f"gpurun config set {close[0]} {text}" if close else "gpurun config list",
        )
    value = _value(known.kind, text.strip())
    if value is None:
        raise ConfigError(f'{key} is "{text}": {_WANTED[known.kind]} is needed')
    return value


def _value(kind: str, text: str) -> Value | None:
    if kind == "text":
        return text if re.fullmatch(r"[a-z0-9]+(?:-[a-z0-9]+)*", text) else None
    if kind == "path":
        return str(Path(text).expanduser().absolute()) if text else None
    if kind == "yes":
        return {"true": True, "yes": True, "false": False, "no": False}.get(text.lower())
    try:
        number = Decimal(text.removeprefix("$"))
    except InvalidOperation:
        return None
    if not number.is_finite() or number <= 0 or (kind == "hours" and number > _MOST_HOURS):
        return None
    return number if kind == "dollars" else float(number)


def get(path: Path, key: str) -> Value | None:
    """Read one default; None = not set.

    Raises:
        ConfigError: there is no such key.
    """
    if _spelt(key) not in KEYS:
        parse(key, "")
    return load(path).get(_spelt(key))


def spell(value: Value | None) -> str:
    """Spell a value as it is typed; nothing for None."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def set_value(path: Path, key: str, text: str) -> Value:
    """Change one default; the file is replaced whole.

    Raises:
        ConfigError: the key or the value is not one.
    """
    value = parse(key, text)
    if KEYS[_spelt(key)].kind == "path" and not Path(str(value)).is_file():
        raise ConfigError(f"{key}: there is no file {value}")
    _write(path, {**_read(path), _spelt(key): value})
    return value


def unset(path: Path, key: str) -> bool:
    """Forget one default, a key that is none included; False = it was not set."""
    values = _read(path)
    known = key if key in values else _spelt(key)
    if known not in values and known not in KEYS:
        parse(key, "")
    if values.pop(known, None) is None:
        return False
    _write(path, values)
    return True


def _spelt(key: str) -> str:
    return key if key in KEYS else key.replace("_", "-").lower()


def _write(path: Path, values: Mapping[str, object]) -> None:
    lines = [f"{key} = {value if isinstance(value, Decimal) else _toml(value)}\n" for key, value in values.items()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_aside(path, "".join(lines).encode())
    except OSError as error:
        raise StateError(f"{path} can't be written: {error.strerror}", hint="gpurun doctor") from error


def export_python(path: Path) -> None:
    """Let controllers started from here know the user's Python for trainings; the environment wins."""
    if "GPURUN_PYTHON" not in os.environ:
        python = _read(path).get("python")
        if isinstance(python, str):
            os.environ["GPURUN_PYTHON"] = python


def _toml(value: object) -> str:
    # A JSON string is a TOML basic string but for DEL and paired surrogates; numbers and true/false are spelt alike.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
