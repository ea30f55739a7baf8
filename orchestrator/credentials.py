"""Secrets: from the environment into memory, and never out of it again through a log.

The ledger keeps their names; `resume` resolves them again. Values live in `Secret`, whose repr shows four characters.
"""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING

from providers.base import Secret
from providers.errors import CredentialsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PAGES = {
    "HF_TOKEN": "https://huggingface.co/settings/tokens",
    "WANDB_API_KEY": "https://wandb.ai/authorize",
}
_SHORTEST = 8  # a shorter value would blot out half of every line


def resolve(names: Iterable[str], environ: Mapping[str, str] | None = None) -> dict[str, Secret]:
    """Read the named secrets from the environment.

    Raises:
        CredentialsError: one is not set; names it and the page where it is made.
    """
    environ = os.environ if environ is None else environ
    found: dict[str, Secret] = {}
    for name in names:
        value = environ.get(name, "").strip() or _saved(name, environ)
        if not value:
            page = f" (make one at {PAGES[name]})" if name in PAGES else ""
            raise CredentialsError(f"the secret {name} is not set{page}", hint=f"export {name}=…")
        found[name] = Secret(value)
    return found


def _saved(name: str, environ: Mapping[str, str]) -> str:
    """Read what the vendor's own login left; "" = nothing."""
    if name != "HF_TOKEN":
        return ""
    from providers.hf_jobs.provider import saved_token

    return saved_token(environ)


_A_KEY = re.compile(r"(_|^)(KEY|TOKEN|SECRET|PASSWORD)(_|$)")


class Redactor(logging.Filter):
    """Puts `…abcd` in the place of every known secret, in messages, arguments and tracebacks."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[str, str] = {}

    def learn(self, secrets: Iterable[Secret]) -> None:
        """Know more values from now on."""
        for secret in secrets:
            value = secret.reveal()
            if len(value) >= _SHORTEST:
                self._shown[value] = f"…{value[-4:]}" if len(value) >= 12 else "…"

    def hide(self, text: str) -> str:
        """Replace every known value in a text; the longest first, so that none shows the tail of another."""
        for value in sorted(self._shown, key=len, reverse=True):
            text = text.replace(value, self._shown[value])
        return text

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record before any handler sees it."""
        record.msg, record.args = self.hide(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self.hide(record.exc_text)
        return True


def in_environment() -> list[Secret]:
    """Give every value of the environment that is somebody's key by its name."""
    return [Secret(value) for name, value in os.environ.items() if _A_KEY.search(name)]


def guard_logs(redactor: Redactor) -> None:
    """Hang the redactor on the root logger's handlers: a filter on a logger does not see its children's records."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.NullHandler())
    for handler in root.handlers:
        if redactor not in handler.filters:
            handler.addFilter(redactor)
