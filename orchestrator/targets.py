"""Where notices go: one line a target, checked when it is written down, never shown whole.

    https://…  a webhook        ntfy://topic  ntfy://host/topic  a phone, by ntfy
    desktop    this computer    command:…     a program of yours   and any other URL that apprise knows

Not here: sending (deliver.py). Standard library only.
"""

from __future__ import annotations

import re
import shlex
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from providers.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

NTFY = "ntfy.sh"
MOST_TARGETS = 8
_LONGEST = 1000  # characters of one target: all of them go through a pipe at once
_TOPIC = re.compile(r"[-_A-Za-z0-9]{1,64}")  # docs.ntfy.sh/publish
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_HINT = "https://…, ntfy://topic, desktop, command:…, or any apprise URL"


class Way(StrEnum):
    """How a target is reached."""

    WEBHOOK = "webhook"
    NTFY = "ntfy"
    DESKTOP = "desktop"
    COMMAND = "command"
    APPRISE = "apprise"


class Target(NamedTuple):
    """One place to tell. Whole, it may hold a token: `shown` is for people and the ledger."""

    way: Way
    text: str  # as it was typed
    shown: str

    def __repr__(self) -> str:
        """Show no token."""
        return f"Target({self.shown!r})"


def parse(text: str) -> Target:
    """Read one target.

    Raises:
        ConfigError: it is none; the message holds no token.
    """
    text = text.strip()
    scheme = text.partition(":")[0].lower()
    if not text.isprintable() or len(text) > _LONGEST:
        raise ConfigError(f"a target of notices is one line of at most {_LONGEST} characters", hint=_HINT)
    if text.lower() == "desktop":
        return Target(Way.DESKTOP, text, "desktop")
    if scheme == "command":
        return Target(Way.COMMAND, text, f"command {words_of(text)[0].rpartition('/')[2]}")
    if "://" not in text:
        raise ConfigError(f'"{_start(text)}" is no target of notices', hint=_HINT)
    if scheme in {"https", "http"}:
        return _web(text)
    if scheme == "ntfy":
        server, topic, _ = ntfy_of(text)
        return Target(Way.NTFY, text, f"ntfy {urlsplit(server).hostname}/{_start(topic)}")
    return Target(Way.APPRISE, text, scheme)


def _web(text: str) -> Target:
    host = _split(text)[0]
    if host == NTFY:
        ntfy_of(text)
        return Target(Way.NTFY, text, f"ntfy {host}")
    return Target(Way.WEBHOOK, text, f"webhook {host}")


def _split(text: str) -> tuple[str, str]:
    """Give host and path of a URL."""
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises where it is no number
    except ValueError:
        parts = urlsplit("")
    if not parts.hostname:
        raise ConfigError(f"a target of notices names no host: {text.partition(':')[0]}://…", hint=_HINT)
    return parts.hostname, parts.path


def is_url(text: str) -> bool:
    """Say whether it is the address of a page."""
    try:
        return parse(text).way is Way.WEBHOOK
    except ConfigError:
        return False


def ntfy_of(text: str) -> tuple[str, str, tuple[str, str] | None]:
    """Give an ntfy server's URL, the topic, and user and password, or ("", token).

    Raises:
        ConfigError: there is no topic in it.
    """
    host, path = _split(text)
    parts = urlsplit(text)
    folder, _, topic = path.strip("/").rpartition("/")
    server = parts.netloc.rpartition("@")[2]
    if not topic:  # ntfy://topic: the host is the topic, which has capitals where typed so
        server, folder, topic = NTFY, "", server
    if not _TOPIC.fullmatch(topic):
        raise ConfigError("ntfy needs a topic of letters, digits, - and _", hint="ntfy://my-topic")
    safe = "http" if host in _LOOPBACK and server != NTFY else "https"
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    login = None if not user else (user, password) if password else ("", user)
    return f"{safe}://{server}/{folder}".rstrip("/"), topic, login


def words_of(text: str) -> list[str]:
    """Give the argv of `command:…`.

    Raises:
        ConfigError: there is none.
    """
    try:
        words = shlex.split(text.partition(":")[2])
    except ValueError as error:
        raise ConfigError(f"command: can't be read: {error}", hint="command:/path/to/program --its-option") from error
    if not words:
        raise ConfigError("command: names no program", hint="command:/path/to/program --its-option")
    return words


def several(text: str) -> tuple[Target, ...]:
    """Read targets with a blank between them, as the defaults hold them; `command:` takes the rest of the line.

    Raises:
        ConfigError: one is none.
    """
    found, rest = [], text.strip()
    while rest:
        if rest.lower().startswith("command:"):
            found.append(rest)
            break
        one, _, rest = rest.partition(" ")
        found.append(one)
        rest = rest.strip()
    return all_of(found)


def all_of(texts: list[str] | tuple[str, ...]) -> tuple[Target, ...]:
    """Read a list of targets, each once.

    Raises:
        ConfigError: one is none, or there are too many.
    """
    found = tuple(dict.fromkeys(parse(text) for text in texts))
    if len(found) > MOST_TARGETS:
        raise ConfigError(f"{len(found)} targets of notices; {MOST_TARGETS} is the most")
    return found


def need_apprise(found: Iterable[Target]) -> None:
    """Say while it can still be mended that a target needs the library for it.

    Raises:
        ConfigError: it is not installed.
    """
    from importlib.util import find_spec

    schemes = [one.shown for one in found if one.way is Way.APPRISE]
    if schemes and find_spec("apprise") is None:
        raise ConfigError(
            f"{schemes[0]}:// is told through apprise, which is not installed",
            hint="pip install 'gpurun[notify]'; without it: https://…, ntfy://topic, desktop, command:…",
        )


def _start(text: str) -> str:
    """Enough of a text to know it by: an ntfy topic is as good as a password."""
    return f"{text[:4]}…" if len(text) > 6 else "…"
