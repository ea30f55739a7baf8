"""Whether a push to the Hub will be taken: asked before anything is rented. The push itself: payload/hub_push.py."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any
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
_WRITES = {"write", "admin", "contributor"}  # roles in an organisation
_HINT = f"make a token that may write there at {TOKEN_PAGE}, export {TOKEN_VARIABLE}=…"


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

    def check(self, repo: str, *, private: bool) -> str:
        """Ask whether this token may write there, and change nothing; gives what was found, in words.

        Raises:
            UsageError: it is no name of a repository.
            CredentialsError: the token may not write there, as far as the Hub tells.
            RefusedError: it is there and public, and private was asked for.
        """
        if not _REPO.fullmatch(repo) or ".." in repo or "--" in repo:
            raise UsageError(f'"{repo}" is no repository', hint="--push-to-hub you/model")
        owner = repo.partition("/")[0]
        try:
            self._hub.run(f"write access to {repo}", lambda api: api.auth_check(repo, write=True))
        except MissingError:
            self._check_owner(owner, self._hub.run("whoami", lambda api: api.whoami()))
            return "it will be made"
        except CredentialsError as error:
            raise CredentialsError(str(error), hint=_HINT) from None
        self._check_visibility(repo, private=private)
        return "it is there, and this token may write to it"

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
        self._check_visibility(repo, private=private)

    def _check_visibility(self, repo: str, *, private: bool) -> None:
        if private and not self._hub.run(repo, lambda api: bool(api.model_info(repo).private)):
            hint = "another name, or --push-public, or make it private on its page"
            raise RefusedError(f"{repo} is there, and everybody can read it", hint=hint)

    def _check_owner(self, owner: str, told: Mapping[str, Any]) -> None:
        """Judge by what the Hub says of the token; what it says nothing of is found out when the repository is made."""
        token = (told.get("auth") or {}).get("accessToken") or {}
        if token.get("role") == "read":
            raise CredentialsError(f"this token of {told.get('name')}'s may only read", hint=_HINT)
        roles = {str(one.get("name")): str(one.get("roleInOrg") or "write") for one in told.get("orgs") or ()}
        roles[str(told.get("name"))] = "admin"
        if roles.get(owner) not in _WRITES:
            raise CredentialsError(f"this token of {told.get('name')}'s may not write to {owner}", hint=_HINT)
