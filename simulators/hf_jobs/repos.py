"""Repositories of models and data sets, as far as a push and a snapshot download need them.

    create ─> preupload ("regular" for every file) ─> commit, the bytes inline ─> revision, tree, resolve by commit

Each commit is a whole tree in memory. What is "regular" needs neither LFS nor xet, whichever client pushes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simulators.clock import iso
from simulators.hf_jobs.operations import ProblemError, read_object
from simulators.server import Reply, Request, as_json

if TYPE_CHECKING:
    from simulators.hf_jobs.operations import Operations
    from simulators.hf_jobs.world import HubWorld

_MAIN = "main"
Tree = dict[str, bytes]


@dataclass(slots=True)
class Repo:
    """One repository: its commits in their order, each a whole tree."""

    id: str
    private: bool
    created: float
    commits: dict[str, Tree] = field(default_factory=dict)
    gated: bool = False  # its terms were accepted by nobody here
    card: dict[str, Any] = field(default_factory=dict)  # the front matter of its README

    @property
    def head(self) -> str:
        """The newest commit."""
        return next(reversed(self.commits))

    def commit(self, tree: Tree, name: str) -> str:
        """Add a commit; gives its name."""
        self.commits[name] = tree
        return name

    def state(self) -> dict[str, Any]:
        """Tell what is in it, without its bytes."""
        files = {name: hashlib.sha256(data).hexdigest() for name, data in self.commits[self.head].items()}
        return {"private": self.private, "head": self.head, "commits": len(self.commits), "files": files}


class RepoOperations:
    """One method an operation: request and the parts of its path -> reply. Raises `ProblemError`."""

    ROUTES = (
        ("POST", "/api/repos/create", "create_repo"),
        ("DELETE", "/api/repos/delete", "delete_repo"),
        ("GET", "/api/{kind}/{ns}/{id}", "repo"),
        ("GET", "/api/{kind}/{ns}/{id}/auth-check", "auth_check"),
        ("GET", "/api/{kind}/{ns}/{id}/auth-check/write", "auth_check_write"),
        ("GET", "/api/{kind}/{ns}/{id}/revision/{rev}", "repo"),
        ("POST", "/api/{kind}/{ns}/{id}/preupload/{rev}", "preupload"),
        ("POST", "/api/{kind}/{ns}/{id}/commit/{rev}", "commit"),
        ("GET", "/api/{kind}/{ns}/{id}/tree/{rev}", "repo_tree"),
        ("HEAD", "/{ns}/{id}/resolve/{rev}/{path}", "repo_file"),
        ("GET", "/{ns}/{id}/resolve/{rev}/{path}", "repo_file"),
        ("HEAD", "/{kind}/{ns}/{id}/resolve/{rev}/{path}", "repo_file"),
        ("GET", "/{kind}/{ns}/{id}/resolve/{rev}/{path}", "repo_file"),
        ("GET", "/api/{kind}/{id}", "old_repo"),
        ("GET", "/api/{kind}/{id}/revision/{rev}", "old_repo"),
        ("HEAD", "/{id}/resolve/{rev}/{path}", "old_repo"),
        ("GET", "/{id}/resolve/{rev}/{path}", "old_repo"),
    )

    def __init__(self, jobs: Operations, world: HubWorld) -> None:
        self._jobs = jobs
        self._world = world

    def is_public(self, parts: dict[str, str]) -> bool:
        """Whether somebody without a token is told of it."""
        repo = self._find(parts)
        return repo is not None and not repo.private

    def do_create_repo(self, request: Request, _parts: dict[str, str]) -> Reply:
        """Make one; whoever may not write in a namespace makes none there."""
        wish = read_object(request)
        owner = str(wish.get("organization") or self._jobs.user)
        self._jobs.check_namespace(owner)
        self._may_write()
        kind = "datasets/" if wish.get("type") == "dataset" else ""
        name = f"{kind}{owner}/{wish['name']}"
        told = {"url": f"http://{request.headers['host']}/{name}"}
        if name in self._world.repos:
            return as_json(409, {**told, "error": "You already created this repo"})
        repo = Repo(name, wish.get("visibility") == "private", self._world.clock.now())
        repo.commit({".gitattributes": b""}, self._world.hexes(40))
        self._world.repos[name] = repo
        return as_json(200, {**told, "name": f"{owner}/{wish['name']}"})

    def do_old_repo(self, _request: Request, _parts: dict[str, str]) -> Reply:
        """Look for one of the names without an owner, "imdb": there are none here."""
        raise ProblemError(404, "Repository not found", "RepoNotFound")

    def do_delete_repo(self, request: Request, _parts: dict[str, str]) -> Reply:
        """Remove one."""
        wish = read_object(request)
        kind = "datasets/" if wish.get("type") == "dataset" else ""
        self._world.repos.pop(f"{kind}{wish.get('organization') or self._jobs.user}/{wish['name']}", None)
        return as_json(200, {})

    def do_auth_check(self, _request: Request, parts: dict[str, str]) -> Reply:
        """Say whether it can be read."""
        self._open(parts)
        return as_json(200, {})

    def do_auth_check_write(self, _request: Request, parts: dict[str, str]) -> Reply:
        """Say whether it can be written."""
        self._repo(parts)
        self._jobs.check_namespace(parts["ns"])
        self._may_write()
        return as_json(200, {})

    def _may_write(self) -> None:
        if self._world.faults.take("read_only_token"):
            raise ProblemError(403, "You have read access but not the required permissions for this operation")

    def do_repo(self, _request: Request, parts: dict[str, str]) -> Reply:
        """Show one."""
        repo = self._repo(parts)
        commit, tree = self._tree(parts)
        facts = {"id": f"{parts['ns']}/{parts['id']}", "private": repo.private, "createdAt": iso(repo.created)}
        siblings = [{"rfilename": name} for name in tree]
        facts |= {"gated": "manual" if repo.gated else False, **({"cardData": repo.card} if repo.card else {})}
        return as_json(200, {**facts, "sha": commit, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0})

    def do_preupload(self, request: Request, parts: dict[str, str]) -> Reply:
        """Ask for every file inline."""
        self._repo(parts)
        files = [
            {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
            for one in read_object(request)["files"]
        ]
        return as_json(200, {"files": files})

    def do_commit(self, request: Request, parts: dict[str, str]) -> Reply:
        """Make a commit on the newest one."""
        repo = self._repo(parts)
        self._jobs.check_namespace(parts["ns"])
        self._may_write()
        tree = dict(repo.commits[repo.head])
        for line in filter(bytes.strip, request.body.splitlines()):
            row = json.loads(line)
            value = row["value"]
            if row["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif row["key"] in {"deletedFile", "deletedFolder"}:
                gone = value["path"].rstrip("/")
                tree = {name: data for name, data in tree.items() if name != gone and not name.startswith(f"{gone}/")}
            elif row["key"] != "header":
                raise ProblemError(400, f"{row['key']} is not simulated: every file is regular here")
        commit = repo.commit(tree, self._world.hexes(40))
        url = f"http://{request.headers['host']}/{repo.id}/commit/{commit}"
        return as_json(200, {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def do_repo_tree(self, _request: Request, parts: dict[str, str]) -> Reply:
        """List a commit's files."""
        _, tree = self._tree(parts)
        rows = [{"type": "file", "path": name, "size": len(data), "oid": _oid(data)} for name, data in tree.items()]
        return as_json(200, rows)

    def do_repo_file(self, request: Request, parts: dict[str, str]) -> Reply:
        """Give a file of a commit; a HEAD is answered with its size and its name by content."""
        self._open(parts)
        commit, tree = self._tree(parts)
        if parts["path"] not in tree:
            raise ProblemError(404, "Entry not found", "EntryNotFound")
        data = tree[parts["path"]]
        headers = {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": commit, "Content-Length": str(len(data))}
        return Reply(200, b"" if request.method == "HEAD" else data, "application/octet-stream", headers=headers)

    def _find(self, parts: dict[str, str]) -> Repo | None:
        kind = "datasets/" if parts.get("kind") == "datasets" else ""
        return self._world.repos.get(f"{kind}{parts['ns']}/{parts['id']}")

    def _repo(self, parts: dict[str, str]) -> Repo:
        repo = self._find(parts)
        if repo is None:
            raise ProblemError(404, "Repository not found", "RepoNotFound")
        return repo

    def _open(self, parts: dict[str, str]) -> None:
        """Refuse what is behind a gate: its facts everybody may read, its files nobody who did not accept the terms."""
        repo = self._repo(parts)
        if repo.gated:
            raise ProblemError(403, f"Access to {repo.id} is restricted: you are not in its list", "GatedRepo")

    def _tree(self, parts: dict[str, str]) -> tuple[str, Tree]:
        repo, wanted = self._repo(parts), parts.get("rev", _MAIN)
        commit = repo.head if wanted == _MAIN else wanted
        if commit not in repo.commits:
            raise ProblemError(404, "Revision not found", "RevisionNotFound")
        return commit, repo.commits[commit]


def _oid(data: bytes) -> str:
    """Give the name that git has for a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
