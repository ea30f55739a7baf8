"""`--push-to-hub you/model`: checked and asked about before anything is rented, done by the machine, told at the end.

    check() ─> Push ─> into() the template: its command goes through payload/hub_push.py, HF_TOKEN is one more secret
                  └──> make() the repository once the plan was agreed to; words of it for the plan

The token reaches the machine as every secret does: a job's secret, or a file that is its owner's alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator import credentials, preflight_hub
from providers.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.templates import Template
    from providers.hf_jobs.repos import Repos


@dataclass(frozen=True, slots=True)
class Push:
    """Where the artifacts go, and what was found there."""

    repo: str
    private: bool
    found: str
    repos: Repos

    def into(self, template: Template) -> Template:
        """Have a template's artifacts pushed.

        Raises:
            UsageError: it pushes by itself already, or trains nothing.
        """
        if template.bare:
            raise UsageError("a bare machine makes nothing that could be pushed", hint="drop --push-to-hub")
        if template.config.get("push"):
            hint = "drop --push-to-hub, or the template's push"
            raise UsageError(f"the template pushes already, to {template.config['push']['repo']}", hint=hint)
        return _through(template, self.repo, private=self.private, endpoint=self.repos.endpoint)

    def make(self) -> None:
        """Make the repository: the proof that the token may write.

        Raises:
            CredentialsError: it may not; nothing was rented.
        """
        self.repos.make(self.repo, private=self.private)

    def remark(self) -> tuple[str, str]:
        """Give the plan's line."""
        kind = "private" if self.private else "PUBLIC"
        return "push", f"{self.repo} on the Hub, {kind}; {self.found}; {preflight_hub.TOKEN} goes along as a secret"


def unasked(template: Template, repo: str, *, private: bool) -> Template:
    """Have a template's artifacts pushed with a token that is not here: nobody can be asked beforehand.

    Raises:
        UsageError: it is no name of a repository, or the template pushes already.
    """
    from providers.hf_jobs.repos import must_be_name

    must_be_name(repo)
    if template.config.get("push"):
        hint = "drop --push-to-hub, or the template's push"
        raise UsageError(f"the template pushes already, to {template.config['push']['repo']}", hint=hint)
    return _through(template, repo, private=private)


def _through(template: Template, repo: str, *, private: bool, endpoint: str = "") -> Template:
    """Have a template's command go through payload/hub_push.py, with the token as a secret."""
    wish = (repo, "private" if private else "public", *(("--endpoint", endpoint) if endpoint else ()))
    secrets = list(dict.fromkeys([*template.settings.secrets, preflight_hub.TOKEN]))
    return replace(
        template,
        settings=template.settings.model_copy(update={"secrets": secrets}),
        command=("{python}", "payload/hub_push.py", *wish, "--", *template.command),
    )


def check(repo: str, *, public: bool) -> Push:
    """Ask the Hub whether the token may write there; nothing is changed.

    Raises:
        CredentialsError: there is no token, or it may not.
        UsageError, RefusedError: the repository is none, or public where it should not be.
    """
    from providers.hf_jobs.repos import Repos

    repos = Repos.from_environ()
    repos.check(repo, private=not public)
    token = credentials.resolve([preflight_hub.TOKEN])[preflight_hub.TOKEN]
    (found,) = preflight_hub.check([preflight_hub.Wanted("--push-to-hub", "push", repo)], token.reveal())
    return Push(repo, not public, found, repos)
