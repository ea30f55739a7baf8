"""Lambda's replies: `{"data": …}` or `{"error": {"code", "message", "suggestion"}}`, judged by `code` alone.

401                         CredentialsError          insufficient-capacity   NoCapacityError
account inactive, forbidden CredentialsError          quota, billing address  QuotaError
429, 5xx, provider/*        UnreachableError          403 that is no JSON     UnreachableError: Cloudflare's, not auth
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from providers.errors import (
    CredentialsError,
    NoCapacityError,
    ProviderError,
    QuotaError,
    UnreachableError,
)
from providers.http import printable
from providers.lambdalabs import reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime, timedelta

    from providers.http import Http, Reply

KEY_VARIABLE = "LAMBDA_API_KEY"
KEY_PAGE = "https://cloud.lambda.ai/api-keys"
NEW_KEY = f"make a key at {KEY_PAGE}, export {KEY_VARIABLE}=…, then: gpurun doctor"
NO_SUCH_INSTANCE = "global/object-does-not-exist"
NOTHING_THERE = "global/not-found"
_PAGES = 200

_KINDS: dict[str, tuple[type[ProviderError], str]] = {
    "global/invalid-api-key": (CredentialsError, NEW_KEY),
    "global/account-inactive": (CredentialsError, "verify the account's e-mail and payment at https://cloud.lambda.ai"),
    "global/forbidden": (CredentialsError, "use a key of the workspace that the machines are in"),
    "global/invalid-address": (QuotaError, "correct the billing address at https://cloud.lambda.ai"),
    "global/quota-exceeded": (QuotaError, "ask Lambda's support for more, or end something: gpurun ps"),
    "instance-operations/launch/insufficient-capacity": (NoCapacityError, "wait for it: --wait-for-capacity 2h"),
    "global/internal-error": (UnreachableError, "try again shortly"),
}


class Api:
    """The endpoints that gpurun uses."""

    def __init__(self, http: Http) -> None:
        self._http = http

    @property
    def skew(self) -> timedelta:
        """Lambda's clock minus ours."""
        return self._http.skew

    def reply(self, method: str, path: str, **how: Any) -> Reply:
        """Ask, and leave the judging to the caller; see `Http.call`."""
        return self._http.call(method, path, **how)

    def instance_types(self) -> tuple[Any, datetime]:
        """Read the catalogue, and when it was told."""
        reply = self.reply("GET", "/instance-types")
        return data_of(reply), reply.at

    def instances(self) -> list[reading.Instance]:
        """List every machine of the account, every page of it."""
        return [reading.instance(row) for row in self._rows("/instances")]

    def images(self) -> list[reading.Image]:
        """List images by region."""
        return [reading.image(row) for row in self._rows("/images")]

    def list_keys(self) -> list[reading.Key]:
        """List the registered keys."""
        return [reading.key(row) for row in self._rows("/ssh-keys")]

    def drop_key(self, key_id: str) -> None:
        """Delete a registered key; one that is gone already is fine."""
        reply = self.reply("DELETE", f"/ssh-keys/{key_id}")
        if code_of(reply) not in {NO_SUCH_INSTANCE, NOTHING_THERE}:
            ok(reply)

    def _rows(self, path: str) -> Iterator[Any]:
        """Follow `page_token`, which lists got in 2026-09; a list that was not followed to its end is an error."""
        params: dict[str, str] = {}
        seen: set[str] = set()
        while True:
            reply = self.reply("GET", path, params=params)
            rows = data_of(reply)
            if not isinstance(rows, list):
                raise ProviderError(f"{reply.what} answered with something that is no list")
            yield from rows
            token = (reply.body or {}).get("page_token")
            if not token:
                return
            if not isinstance(token, str) or token in seen or len(seen) >= _PAGES:
                raise ProviderError(f"{reply.what}: the list goes on in a way that can't be followed")
            seen.add(token)
            params = {"page_token": token}


def data_of(reply: Reply) -> Any:
    """Give what an answer is about.

    Raises:
        GpurunError: it is a refusal, or makes no sense.
    """
    body = ok(reply)
    if body.get("data") is None:
        raise ProviderError(f"{reply.what} answered without data")
    return body["data"]


def ok(reply: Reply) -> Mapping[str, Any]:
    """Give the body of an answer that says yes."""
    if not 200 <= reply.status < 300:
        raise error_of(reply)
    if reply.body is None:
        raise ProviderError(f"{reply.what} answered with something that is no JSON object ({reply.kind})")
    return reply.body


def code_of(reply: Reply) -> str:
    """Give the code of a refusal; "" = it is none, or not in Lambda's words."""
    return "" if 200 <= reply.status < 300 else _envelope(reply)[0]


def error_of(reply: Reply) -> ProviderError:
    """Turn a refusal into an error of our tree."""
    code, words = _envelope(reply)
    text = f"{reply.what} answered {reply.status}{f' {code}' if code else ''}{f': {words}' if words else ''}"
    if code in _KINDS:
        kind, hint = _KINDS[code]
        return kind(text, hint=hint)
    if reply.status == 401 and code:
        return CredentialsError(text, hint=NEW_KEY)
    if reply.may_pass or reply.status == 408 or code.startswith("provider/"):
        return UnreachableError(text, hint="try again shortly")
    if reply.status == 403 and not code:
        text = (
            f"{reply.what} answered 403 with {reply.kind}: Lambda's front door, not the key, turned this computer away"
        )
        return UnreachableError(text, hint="try another network, without a VPN or a proxy")
    if not code:
        return ProviderError(f"{text}, in words that are not its own ({reply.kind})")
    return ProviderError(text)


def _envelope(reply: Reply) -> tuple[str, str]:
    """Read code and words of a refusal; ("", "") = it is not Lambda's."""
    error = (reply.body or {}).get("error")
    if not isinstance(error, dict) or not isinstance(error.get("code"), str):
        return "", ""
    words = (error.get(part) for part in ("message", "suggestion"))
    return printable(error["code"], 80), _shown(" ".join(word for word in words if isinstance(word, str)))


def _shown(words: str) -> str:
    """Keep a refusal's words, unless it quotes what was sent: `user_data` holds a private key."""
    if re.search(r"PRIVATE KEY|ssh_keys|cloud-config", words):
        return "(it quotes what was sent, which is not shown)"
    return printable(re.sub(r"[A-Za-z0-9+/=]{40,}", "…", words))
