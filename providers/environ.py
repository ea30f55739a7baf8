"""What a vendor's adapter reads of the environment: its key, and numbers; each named where it makes no sense."""

from __future__ import annotations

from typing import TYPE_CHECKING

from providers.base import Secret
from providers.errors import CredentialsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


def key(environ: Mapping[str, str], variable: str, vendor: str, hint: str) -> Secret:
    """Read a key.

    Raises:
        CredentialsError: it is missing, or can't be one.
    """
    text = environ.get(variable, "").strip()
    if not text:
        raise CredentialsError(f"no key for {vendor}: {variable} is not set", hint=hint)
    if not text.isascii() or not text.isprintable() or " " in text:
        raise CredentialsError(f"{variable} holds characters that no key has", hint=hint)
    return Secret(text)


def number(environ: Mapping[str, str], variable: str, default: float, least: float, most: float) -> float:
    """Read a number.

    Raises:
        UsageError: it is none, or out of bounds.
    """
    text = environ.get(variable) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise UsageError(f"{variable} is not a number from {least:g} to {most:g}", hint=f"unset {variable}")
    return value
