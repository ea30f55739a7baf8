"""A store in a bucket of the Hub's, `hf://buckets/you/name/prefix`, by huggingface_hub and hf_xet.

    here          HF_TOKEN, or what `hf auth login` left
    a machine     HF_STORE_TOKEN: a fine-grained token for this bucket; proven and looked at before anything is rented
    a job there   no token: the bucket's folder is mounted

The Hub signs no leave for one prefix, so a machine's token opens its whole bucket: a bucket of its own is best.
"""

from __future__ import annotations

import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.store import Ability, Address, Kept
from providers.base import Secret
from providers.errors import CredentialsError, ProviderError, RefusedError, UsageError
from providers.hf_jobs.hub import TOKEN_PAGE, TOKEN_VARIABLE, Hub, MissingError
from providers.hf_jobs.provider import URL, saved_token
from providers.http import base_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from huggingface_hub import HfApi

MACHINE_TOKEN = "HF_STORE_TOKEN"  # noqa: S105 (the name of a variable)
PART_BYTES = 50 * 10**9  # a file goes whole: xet sends its chunks again one by one
_LIST_SECONDS = 180.0
_AT_ONCE = 500  # deletions in one request
_SPENDS = ("job.", "inference.", "inference-api", "billing")  # permissions that can cost money


class HubStore:
    """One address in a bucket of the Hub's."""

    def __init__(self, address: Address, endpoint: str, token: Secret) -> None:
        self.address = address
        self._hub = Hub(endpoint, token)

    @classmethod
    def open(cls, address: Address, environ: Mapping[str, str] | None = None) -> HubStore:
        """Open it with the token of this computer.

        Raises:
            CredentialsError: there is none.
            UsageError: hf_xet is not here.
        """
        token = own_token(environ)
        if not token:
            words = f"no token opens {address}: {TOKEN_VARIABLE} is not set"
            raise CredentialsError(words, hint=f"make one at {TOKEN_PAGE}, export {TOKEN_VARIABLE}=…")
        try:
            import hf_xet  # type: ignore[import-untyped]  # noqa: F401 (whether it is there is the question)
        except ImportError as error:
            raise UsageError("a store in a bucket of the Hub's takes hf_xet", hint="pip install hf_xet") from error
        return cls(address, endpoint_of(environ), Secret(token))

    # ── what a machine may do ───────────────────────────────────────────────────────────────────

    def try_out(self) -> Ability:
        """Put, read back and delete a test object.

        Raises:
            CredentialsError, ProviderError, UsageError: it can't be written, read or deleted, or everybody can read it.
        """
        if not self._is_private():
            page = f"{self._hub.endpoint}/buckets/{self.address.bucket}/settings"
            raise UsageError(
                f"the bucket {self.address.bucket} is public: results would be everybody's",
                hint=f"make it private at {page}",
            )
        key, content = self.address.key(f".gpurun-test-{secrets.token_hex(6)}"), secrets.token_hex(500).encode()
        try:
            self.put(key, content)
            if self.get(key) != content:
                raise ProviderError(f"{self.address} gives another object than it took")
        finally:
            self.delete([key])
        if self.size(key) is not None:
            raise ProviderError(f"{self.address} does not delete: nothing there could be tidied up")
        return Ability(policies=False, checksums=True)

    def whoami(self) -> dict[str, Any]:
        """Tell whose token it is, and what the Hub says of it."""
        found = self._run("whoami", lambda api: api.whoami())
        return found if isinstance(found, dict) else {}

    def _is_private(self) -> bool:
        return bool(self._run("look", lambda api: api.bucket_info(self.address.bucket).private))

    def grant(self, run_id: str, attempt: int, until: datetime, ability: Ability) -> Secret:  # noqa: ARG002 (a token has no end of its own)
        """Give the leave to write under an attempt's prefix: the machine's own token, which opens the bucket."""
        grant = {
            "prefix": self.address.attempt(run_id, attempt),
            "until": until.timestamp(),
            "part_bytes": PART_BYTES,
            "checksums": True,
            "hub": {"endpoint": self._hub.endpoint, "bucket": self.address.bucket, "token": self._hub.token.reveal()},
        }
        return Secret(json.dumps(grant))

    def link(self, key: str, until: datetime) -> dict[str, str]:  # noqa: ARG002 (a token has no end of its own)
        """Give an object's address, and the token that opens it."""
        return {"url": self._hub.address(self.address.bucket, key), "token": self._hub.token.reveal()}

    # ── objects ─────────────────────────────────────────────────────────────────────────────────

    def get(self, key: str) -> bytes | None:
        """Read a small object whole; None = the store's own "no such key"."""
        try:
            return b"".join(self._hub.stream(self.address.bucket, key))
        except MissingError:
            self._is_private()  # a bucket that is not there says nothing about its objects
            return None

    def stream(self, key: str, start: int = 0) -> Iterator[bytes]:
        """Read an object from a byte on."""
        yield from self._hub.stream(self.address.bucket, key, start)

    def put(self, key: str, content: bytes) -> None:
        """Write a small object."""
        self._upload([(content, key)])

    def upload(self, key: str, path: str) -> None:
        """Write a file of any size."""
        self._upload([(Path(path), key)])

    def _upload(self, files: list[tuple[Path | bytes, str]]) -> None:
        try:
            self._hub.upload(self.address.bucket, files)
        except MissingError as error:
            raise self._no_bucket() from error

    def size(self, key: str) -> int | None:
        """Tell the size of an object in bytes; None = no such key."""
        found = self._run(key, lambda api: list(api.get_bucket_paths_info(self.address.bucket, [key])))
        return next((int(one.size) for one in found if one.path == key), None)

    def kept(self, prefix: str) -> Iterator[Kept]:
        """List every object whose key begins so, every page of it."""

        def call(api: HfApi) -> list[Any]:
            listed = api.list_bucket_tree(self.address.bucket, prefix.rstrip("/") or None, recursive=True)
            return [one for one in listed if one.type == "file" and one.path.startswith(prefix)]

        try:
            found = self._hub.run(f"list of {self.address.bucket}", call, _LIST_SECONDS)
        except MissingError:
            self._is_private()  # the bucket is there, the folder is not
            return
        for one in found:
            yield Kept(one.path, int(one.size), one.uploaded_at or one.mtime or datetime.now(UTC))

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; one that is not there is no error."""
        for start in range(0, len(keys), _AT_ONCE):
            some = list(keys[start : start + _AT_ONCE])
            self._run("delete", lambda api, some=some: api.batch_bucket_files(self.address.bucket, delete=some))

    def _run(self, what: str, call: Any) -> Any:
        try:
            return self._hub.run(f"{self.address.bucket}: {what}", call)
        except MissingError as error:
            raise self._no_bucket() from error

    def _no_bucket(self) -> ProviderError:
        bucket = self.address.bucket
        words = f"there is no bucket {bucket} that this token may see"
        return ProviderError(words, hint=f"make it first: hf buckets create {bucket} --private")


# ── tokens ──────────────────────────────────────────────────────────────────────────────────────


def own_token(environ: Mapping[str, str] | None = None) -> str:
    """Give the token of this computer; "" = there is none."""
    environ = os.environ if environ is None else environ
    return environ.get(TOKEN_VARIABLE, "").strip() or saved_token(environ)


def endpoint_of(environ: Mapping[str, str] | None = None) -> str:
    """Give the Hub's address, as its own client finds it."""
    environ = os.environ if environ is None else environ
    return base_url(environ.get("HF_ENDPOINT") or URL, "HF_ENDPOINT")


def for_machine(address: Address, provider: str) -> HubStore:
    """Open a store with the token that a machine gets; a local machine has this computer's.

    Raises:
        CredentialsError: there is none, or this computer's own was taken for it.
    """
    token, own = os.environ.get(MACHINE_TOKEN, "").strip(), own_token()
    if not token and provider == "local":
        return HubStore.open(address)
    if not token:
        raise CredentialsError(
            f"a machine needs a token that opens {address.bucket} and nothing else: {MACHINE_TOKEN} is not set",
            hint=f"make a fine-grained one for it at {TOKEN_PAGE}, export {MACHINE_TOKEN}=…; or --store none",
        )
    if token == own and provider != "local":
        raise CredentialsError(
            f"{MACHINE_TOKEN} is {TOKEN_VARIABLE} itself, which opens more than one bucket",
            hint=f"make a fine-grained one for {address.bucket} at {TOKEN_PAGE}",
        )
    return HubStore(address, endpoint_of(), Secret(token))


def leave(address: Address, provider: str, run_id: str, attempt: int, until: datetime) -> Secret:
    """Give an attempt's leave to write: a token for the bucket, or on HF Jobs the folder that is mounted."""
    if provider != "hf":
        return for_machine(address, provider).grant(run_id, attempt, until, Ability(policies=False, checksums=True))
    path = address.attempt(run_id, attempt).rstrip("/")
    mount = {"bucket": address.bucket, "path": path}
    grant = {"prefix": "", "until": until.timestamp(), "part_bytes": PART_BYTES, "checksums": False, "mount": mount}
    return Secret(json.dumps(grant))


def check_machine(address: Address, provider: str) -> tuple[str, ...]:
    """Try what a machine will have, and look at what else it may; gives words for the plan.

    Raises:
        CredentialsError: the token does not open the bucket.
        RefusedError: it opens all of the account, or can spend money.
    """
    if provider in {"hf", "local"}:
        return ()
    store = for_machine(address, provider)
    try:
        store.try_out()
    except CredentialsError as error:
        hint = f"let it write {address.bucket}: {TOKEN_PAGE}"
        raise CredentialsError(f"{MACHINE_TOKEN}: {error}", hint=hint) from error
    return (f"{MACHINE_TOKEN} writes, reads and deletes in {address.bucket}; {_scope(store, address)}",)


def _scope(store: HubStore, address: Address) -> str:
    """Say what else a token may, as far as the Hub tells.

    Raises:
        RefusedError: it is no fine-grained one, or may spend.
    """
    me = store.whoami()
    token = ((me.get("auth") or {}).get("accessToken") or {}) if isinstance(me.get("auth"), dict) else {}
    role, fine = str(token.get("role", "")), token.get("fineGrained")
    hint = f"make a fine-grained one for {address.bucket} alone: {TOKEN_PAGE}"
    if role in {"write", "read"}:
        raise RefusedError(
            f"{MACHINE_TOKEN} opens all of {me.get('name', 'the account')}'s: it is no key for a machine", hint=hint
        )
    if not isinstance(fine, dict):
        return "what else it may the Hub does not tell"
    every, more = [str(one) for one in fine.get("global") or ()], list(_more(fine.get("scoped") or (), address.bucket))
    spends = [one for one in (*every, *(word for _, words in more for word in words)) if one.startswith(_SPENDS)]
    if spends:
        raise RefusedError(f"{MACHINE_TOKEN} may also {', '.join(sorted(set(spends)))}: that can cost money", hint=hint)
    told = [f"{name} ({', '.join(words)})" for name, words in more] + (
        [f"everywhere: {', '.join(every)}"] if every else []
    )
    return f"IT OPENS MORE: {'; '.join(told)}" if told else "nothing else, as the Hub tells of it"


def _more(scoped: Iterable[Any], bucket: str) -> Iterator[tuple[str, list[str]]]:
    """Name what else than the bucket a token was made for."""
    for one in scoped:
        entity = one.get("entity") if isinstance(one, dict) else None
        words = [str(word) for word in one.get("permissions") or ()] if isinstance(one, dict) else []
        kind, name = (str(entity.get(key, "")) for key in ("type", "name")) if isinstance(entity, dict) else ("", "")
        if words and (kind, name) != ("bucket", bucket):
            yield (name if kind == "bucket" else f"{kind} {name}".strip() or "?"), words
