"""Whether a push to the Hub will be taken: asked before anything is rented. The push itself: payload/hub_push.py."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from providers.base import Secret
from providers.errors import CredentialsError, RefusedError, UsageError
from providers.hf_jobs.hub import TOKEN_PAGE, TOKEN_VARIABLE, Hub, MissingError
from providers.hf_jobs.provider import URL, saved_token
from providers.http import base_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from huggingface_hub import HfApi

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}")
_HINT = f"make a token that may write there at {TOKEN_PAGE}, export {TOKEN_VARIABLE}=…"


def must_be_name(repo: str) -> None:
    """Hold a repository's name to what the Hub takes.

    Raises:
        UsageError: it is none.
    """
    if not _REPO.fullmatch(repo) or ".." in repo or "--" in repo:
        raise UsageError(f'"{repo}" is no repository', hint="--push-to-hub you/model")


class Repos:
    """Model repositories at the Hub, through one token."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Repos:
        """Open the Hub of `HF_ENDPOINT` with `HF_TOKEN`, else with the token that `hf auth login` left.

        Raises:
            CredentialsError: there is neither.
        """
        environ = os.environ if environ is None else environ
        token = environ.get(TOKEN_VARIABLE, "").strip() or saved_token(environ)
        if not token:
            raise CredentialsError(f"a push needs a token, and {TOKEN_VARIABLE} is not set", hint=_HINT)
        return cls(Hub(base_url(environ.get("HF_ENDPOINT") or URL, "HF_ENDPOINT"), Secret(token)))

    @property
    def endpoint(self) -> str:
        """The Hub's address where it is not the vendor's own; "" = it is."""
        return "" if urlsplit(self._hub.endpoint).hostname == urlsplit(URL).hostname else self._hub.endpoint

    def check(self, repo: str, *, private: bool) -> None:
        """Look whether a push may go there, and change nothing.

        Raises:
            UsageError: it is no name of a repository.
            RefusedError: it is there and public, and private was asked for.
        """
        must_be_name(repo)
        try:
            public = private and not self._hub.run(repo, lambda api: bool(api.model_info(repo).private))
        except MissingError:
            return
        if public:
            hint = "another name, or --push-public, or make it private on its page"
            raise RefusedError(f"{repo} is there, and everybody can read it", hint=hint)

    def make(self, repo: str, *, private: bool) -> None:
        """Make it, unless it is there: what the job needs no right for any more, and the proof of write access.

        Raises:
            CredentialsError: the token may not.
        """

        def call(api: HfApi) -> None:
            api.create_repo(repo, private=private, exist_ok=True)
            api.auth_check(repo, write=True)

        try:
            self._hub.run(f"repository {repo}", call)
        except (CredentialsError, MissingError) as error:
            raise CredentialsError(str(error), hint=_HINT) from None
        self.check(repo, private=private)
