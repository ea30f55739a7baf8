"""Keys that outlive a shell: `GPURUN_HOME/credentials`, 0600, one NAME=value a line. Timers have no others.

What is set in the environment wins. Never printed; who writes it is `gpurun login` and `gpurun guard install`.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from orchestrator.home import write_private
from providers.errors import StateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from pathlib import Path

    from orchestrator.home import Home

NAME = "credentials"
# Of the providers that take a key.
VARIABLES = {"lambda": "LAMBDA_API_KEY", "hf": "HF_TOKEN", "runpod": "RUNPOD_API_KEY"}
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{2,60}")


def variable_of(name: str) -> str:
    """Give the variable that holds a provider's key, or the one that was named itself.

    Raises:
        UsageError: it is neither.
    """
    if name in VARIABLES:
        return VARIABLES[name]
    if _VARIABLE.fullmatch(name) and not name.startswith("GPURUN_"):
        return name
    if name == "colab":
        from providers.colab.credentials import SIGN_IN

        raise UsageError("colab takes no key, but a login at Google, which gpurun only reads", hint=SIGN_IN)
    raise UsageError(f'"{name}" takes no key', hint=f"gpurun login {next(iter(VARIABLES))}, or a variable: HF_TOKEN")


def path_of(home: Home) -> Path:
    """Name the file."""
    return home.root / NAME


def stored(home: Home) -> dict[str, str]:
    """Read every stored key; none when there is no file. A file that others could read is closed to them.

    Raises:
        StateError: it can't be read.
    """
    path = path_of(home)
    try:
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(
            f"{path} can't be read: {type(error).__name__}", hint="another home: export GPURUN_HOME=…"
        ) from error
    pairs = (line.partition("=") for line in lines if not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs if _VARIABLE.fullmatch(name.strip())}


def keep(home: Home, name: str, value: str) -> None:
    """Store one key.

    Raises:
        UsageError: it is empty, or holds what no key holds.
        StateError: the home can't be written.
    """
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise UsageError(f"that is no key: {name} is empty, or holds characters that no key has")
    _write(home.ensure(), {**stored(home), name: value})


def forget(home: Home, name: str) -> bool:
    """Remove one key; False = it was not there."""
    kept = stored(home)
    if kept.pop(name, None) is None:
        return False
    _write(home, kept)
    return True


def _write(home: Home, kept: Mapping[str, str]) -> None:
    path = path_of(home)
    try:
        if not kept:
            path.unlink(missing_ok=True)
            return
        write_private(path, "".join(f"{name}={value}\n" for name, value in kept.items()).encode())
    except OSError as error:
        raise StateError(f"{path} can't be written: {error.strerror}", hint="gpurun doctor") from error


def take_up(home: Home, environ: MutableMapping[str, str] = os.environ) -> None:
    """Put every stored key into the environment that is not set there."""
    for name, value in stored(home).items():
        if not environ.get(name):
            environ[name] = value


def tried(home: Home, name: str, variable: str, value: str) -> str:
    """Store a key once it has opened its account; says what it opened ("" = nothing could be tried).

    Raises:
        CredentialsError: the vendor does not take it; nothing was stored.
        ProviderError: the vendor could not be asked; nothing was stored.
    """
    seen = ""
    if name in VARIABLES:
        from providers.table import open_provider

        before = os.environ.get(variable)
        os.environ[variable] = value
        try:
            provider = open_provider(name, home.root)
            seen = f": it opens {provider.account()}, where {len(provider.allocations())} are listed"
        finally:
            os.environ.pop(variable)
            if before is not None:
                os.environ[variable] = before
    keep(home, variable, value)
    return seen
