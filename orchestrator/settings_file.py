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
from urllib.parse import urlsplit

from orchestrator.home import write_private
from providers.errors import ConfigError, StateError
from providers.table import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "config.toml"
Value = str | bool | int | float | Decimal
_MOST = {"hours": 720, "minutes": 60 * 24 * 31, "count": 9, "dollars": 100_000}  # as Limits has them (config.py)


class Key(NamedTuple):
    """What a key takes."""

    kind: str  # provider, path, hours, minutes, count, dollars, yes, leave, guard, targets, url
    about: str
    built_in: str = ""  # what holds where it is not set


KEYS = {
    "provider": Key("provider", "where to launch without --provider", "local"),
    "python": Key("path", "trains on local where gpurun's own has no torch"),
    "max-hours": Key("hours", "the deadline where a template sets none", "4"),
    "extendable-to": Key("hours", "how far extend may go, from the launch on", "max-hours"),
    "max-cost": Key("dollars", "the most that one run may cost, USD", "100"),
    "max-idle": Key("minutes", "minutes without a step that mean hung", "30"),
    "max-attempts": Key("count", "machines that a run may rent, one by one", "3"),
    "monthly-cap": Key("dollars", "no launch that could pass this in a month", "300"),
    "accept-risk": Key("yes", "launch though only this computer can end it", "false"),
    "key-on-machine": Key("leave", "yes: your key may go to the machine (lambda)", "no"),
    "store": Key("store", "where results go as it trains: s3://… or hf://buckets/…"),
    "s3-endpoint": Key("endpoint", "the store's server where it is not AWS: https://…"),
    "guard-elsewhere": Key("guard", "a guard on another machine: ssh://user@box"),
    "notify": Key("targets", "where to tell ends and trouble: ntfy://…, https://…"),
    "heartbeat": Key("url", "pinged after each pass of the guard: https://…"),
}
_WANTED = {
    "provider": f"one of {' '.join(PROVIDERS)}",
    "path": "the path of a file",
    "hours": f"a number of hours above 0, at most {_MOST['hours']}",
    "minutes": f"a number of minutes above 0, at most {_MOST['minutes']}",
    "count": f"a whole number from 1 to {_MOST['count']}",
    "dollars": f"an amount in USD above 0, at most {_MOST['dollars']}",
    "yes": "true or false",
    "leave": 'the word "yes", or unset it,',
    "guard": "ssh://user@box, or an https:// address without a password in it,",
    "store": "an address like s3://bucket/prefix or hf://buckets/you/name/prefix",
    "endpoint": "an address that begins with https:// or http://",
    "targets": "at least one target",
    "url": "an address that begins with https://",
}
_EXAMPLES = {  # of what to type instead
    "provider": "local",
    "path": "/path/to/bin/python",
    "hours": "4",
    "minutes": "30",
    "count": "3",
    "dollars": "50",
    "yes": "yes",
    "leave": "yes",
    "guard": "ssh://user@box",
    "store": "s3://my-bucket/runs",
    "endpoint": "https://my-account.r2.cloudflarestorage.com",
    "targets": "ntfy://my-topic",
    "url": "https://hc-ping.com/my-check",
}
_PRIVATE = ("targets", "url")  # may hold a token: shown in part only


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
        is_text = "" if known.kind in _PRIVATE else f' is "{text}"'
        raise ConfigError(f"{key}{is_text}: {_WANTED[known.kind]} is needed", hint=_example(key, known))
    return value


def _example(key: str, known: Key) -> str:
    """Spell a command that would do."""
    return f"for example: gpurun config set {_spelt(key)} {_EXAMPLES[known.kind]}"


def _value(kind: str, text: str) -> Value | None:
    if kind == "provider":
        return text if text in PROVIDERS else None
    if kind == "path":
        return str(Path(text).expanduser().absolute()) if text else None
    if kind in _PRIVATE:
        return _private(kind, text)
    if kind == "yes":
        return {"true": True, "yes": True, "false": False, "no": False}.get(text.lower())
    if kind == "leave":  # nobody gives the key away by a slip of "true"
        return text if text == "yes" else None
    if kind == "guard":
        return text if is_address(text) else None
    if kind in {"store", "endpoint"}:
        return _place(kind, text)
    return _number(kind, text)


def _place(kind: str, text: str) -> str | None:
    from orchestrator import store

    return text if (store.is_address(text) if kind == "store" else store.is_endpoint(text)) else None


def _number(kind: str, text: str) -> Value | None:
    try:
        number = Decimal(text.removeprefix("$"))
    except InvalidOperation:
        return None
    if not number.is_finite() or not 0 < number <= _MOST[kind]:
        return None
    if kind == "count":
        return int(number) if number == int(number) else None
    return number if kind == "dollars" else float(number)


def dollars(name: str, text: str) -> Decimal:
    """Read an amount that was typed as `name`.

    Raises:
        ConfigError: it is none.
    """
    value = _number("dollars", text.strip())
    if not isinstance(value, Decimal):
        raise ConfigError(f'{name} is "{text}": {_WANTED["dollars"]} is needed')
    return value


def is_address(text: str) -> bool:
    """Say whether a guard elsewhere can be asked there: by ssh, over https (http on this computer only), or at hf."""
    try:
        url = urlsplit(text)
        host, user, _ = url.hostname or "", url.username or "", url.port
    except ValueError:
        return False
    if url.scheme == "hf":  # as `guard install --on hf` spells it
        return bool(re.fullmatch(r"hf://[A-Za-z0-9][A-Za-z0-9._-]*/[0-9a-f]{4}", text))
    plain = text.isascii() and text.isprintable() and not set(text) & set(" '\"\\")
    if not plain or url.password is not None or not re.fullmatch(r"[a-z0-9:][a-z0-9.:-]*", host):
        return False
    if url.scheme == "ssh":  # what begins with a hyphen would be an option of ssh
        return not (url.path.strip("/") or url.query) and bool(re.fullmatch(r"([A-Za-z0-9_][A-Za-z0-9._-]*)?", user))
    return not user and (url.scheme == "https" or (url.scheme == "http" and host in {"127.0.0.1", "localhost", "::1"}))


def _private(kind: str, text: str) -> str | None:
    from orchestrator import targets

    if kind == "targets":
        return text if targets.several(text) else None
    return text if targets.is_url(text) else None


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


def shown(key: str, value: Value | None) -> str:
    """Spell a value for a list or a screen: what may hold a token only in part."""
    if value is None or KEYS[key].kind not in _PRIVATE:
        return spell(value)
    from orchestrator import targets

    return ", ".join(one.shown for one in targets.several(str(value)))


def set_value(path: Path, key: str, text: str) -> Value:
    """Change one default; the file is replaced whole.

    Raises:
        ConfigError: the key or the value is not one.
    """
    value = parse(key, text)
    if KEYS[_spelt(key)].kind == "path" and not Path(str(value)).is_file():
        raise ConfigError(f"{key}: there is no file {value}", hint=_example(key, KEYS[_spelt(key)]))
    if KEYS[_spelt(key)].kind == "targets":
        from orchestrator import targets

        targets.need_apprise(targets.several(str(value)))
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
        write_private(path, "".join(lines).encode())
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
