"""The Hub through `huggingface_hub`, with what that client lacks: deadlines, a clock, errors of our tree.

    Hub.run(what, call) -> the call's result, within so many seconds, or an error       401, 403  CredentialsError
                                                                                        402       QuotaError
    429, 5xx, no answer: UnreachableError    404: MissingError    other 4xx: RefusalError

The client has no time limits of its own and follows redirects; it is given both limits and a look at each `Date`.
The namespace is always passed: without one, nearly every call asks whoami first, and that is strictly limited.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from providers.errors import CredentialsError, GpurunError, ProviderError, QuotaError, UnreachableError, UsageError
from providers.http import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import httpx2
    from huggingface_hub import HfApi, JobInfo

    from providers.base import Secret

Result = TypeVar("Result")

TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105 - a name
TOKEN_PAGE = "https://huggingface.co/settings/tokens"  # noqa: S105 - a page
NEW_TOKEN = f"make a token that may manage Jobs and write buckets at {TOKEN_PAGE}, export {TOKEN_VARIABLE}=…"
_CREDIT = "add credits at https://huggingface.co/settings/billing, then launch again"
_CONNECT_SECONDS = 10.0
_READ_SECONDS = 20.0
_CALL_SECONDS = 45.0  # the client itself waits for up to 31 s between its tries
_SLOWEST_BYTES = 200_000  # a second, that an upload is given time for
_SKEW_SECONDS = 2.0
_PIECE = 2**20
_SENSELESS = (ValueError, KeyError, TypeError, AttributeError)


class MissingError(ProviderError):
    """The Hub's own "no such thing"."""


class RefusalError(ProviderError):
    """The Hub understood, and said no for good."""


class Hub:
    """One account at one endpoint. Opens no connection before the first call."""

    def __init__(self, endpoint: str, token: Secret) -> None:
        self.endpoint = endpoint.rstrip("/")
        self.token = token
        self._made: HfApi | None = None

    @property
    def skew(self) -> timedelta:
        """The Hub's clock minus ours, at its last answer."""
        return _skews.get(urlsplit(self.endpoint).netloc, timedelta(0))

    @property
    def api(self) -> HfApi:
        """The vendor's client, made at the first need: its import takes a third of a second."""
        if self._made is None:
            from huggingface_hub import HfApi, constants

            if constants.is_offline_mode():
                raise UnreachableError("huggingface_hub is offline by HF_HUB_OFFLINE", hint="unset HF_HUB_OFFLINE")
            _prepare()
            self._made = HfApi(endpoint=self.endpoint, token=self.token.reveal() or False)
        return self._made

    def run(self, what: str, call: Callable[[HfApi], Result], seconds: float = _CALL_SECONDS) -> Result:
        """Do one call of the client's in a thread, and wait for it so long.

        Raises:
            ProviderError: it failed, see the head of this file; a call that was given up may still happen.
        """
        api, done = self.api, _Call(call)
        worker = threading.Thread(target=done.run, args=(api,), name=f"hub {what}", daemon=True)
        worker.start()
        worker.join(seconds)
        if worker.is_alive():
            raise UnreachableError(f"Hugging Face: {what}: no answer within {seconds:.0f} s", hint="gpurun doctor")
        if done.error is not None:
            raise self.error_of(what, done.error) from None  # its own exception holds the request, and that the token
        if not done.ended:
            raise ProviderError(f"Hugging Face: {what}: the client broke in a way that nobody knows")
        return done.result  # type: ignore[no-any-return]

    def error_of(self, what: str, error: Exception) -> GpurunError:
        """Say in our words what the client raised."""
        from huggingface_hub.errors import HfHubHTTPError

        name = f"Hugging Face: {what}"
        if isinstance(error, HfHubHTTPError):
            return self._refusal(name, error)
        if isinstance(error, GpurunError):
            return error
        if isinstance(error, ImportError):
            return ProviderError(f"{name}: {error.name} is not installed", hint=f"pip install {error.name}")
        if isinstance(error, _SENSELESS):
            return ProviderError(f"{name}: the answer can't be read ({type(error).__name__})")
        return UnreachableError(f"{name}: {_in_words(error)}", hint="try again shortly; https://status.huggingface.co")

    def _refusal(self, name: str, error: Any) -> ProviderError:
        status = error.response.status_code
        text = f"{name} answered {status}: {self._words(str(error.server_message or error))}"
        if status == 402:
            return QuotaError(text, hint=_CREDIT)
        if status in {401, 403}:
            return CredentialsError(text, hint=NEW_TOKEN)
        if status == 404:
            return MissingError(text)
        if status in {408, 429} or status >= 500:
            return UnreachableError(text, hint="try again shortly")
        return RefusalError(text)

    def _words(self, text: str) -> str:
        return printable(text.replace(self.token.reveal() or "\0", "…"))

    # ── jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def whoami(self) -> str:
        """Name the account of the token."""
        return str(self.run("whoami", lambda api: api.whoami()["name"]))

    def hardware(self) -> list[Any]:
        """List what is rented."""
        return self.run("hardware", lambda api: api.list_jobs_hardware())

    def job(self, namespace: str, job_id: str) -> JobInfo:
        """Look at one job; its `timeout` stands in the object too, where the Hub told one.

        Raises:
            MissingError: there is none of that id.
        """

        def call(api: HfApi) -> JobInfo:
            from huggingface_hub import JobInfo
            from huggingface_hub.utils._headers import build_hf_headers
            from huggingface_hub.utils._http import get_session, hf_raise_for_status

            # As the client's own inspect_job does, whose JobInfo drops the time limit (2.4.0): it is to be read back.
            address = f"{api.endpoint}/api/jobs/{namespace}/{job_id}"
            answer = get_session().get(address, headers=build_hf_headers(token=self.token.reveal() or False))
            hf_raise_for_status(answer)
            told = answer.json()
            found = JobInfo(**told, endpoint=api.endpoint)
            vars(found)["timeout"] = told.get("timeout")
            return found

        return self.run(f"job {job_id}", call)

    def jobs(
        self, namespace: str, *, labels: Mapping[str, str] | None = None, stages: list[str] | None = None
    ) -> list[JobInfo]:
        """List jobs, every page of it."""

        def call(api: HfApi) -> list[JobInfo]:
            wanted = None if labels is None else dict(labels)
            return list(api.list_jobs(namespace=namespace, labels=wanted, status=stages, timeout=int(_READ_SECONDS)))

        return self.run("list of jobs", call, 4 * _CALL_SECONDS)

    def cancel(self, namespace: str, job_id: str) -> None:
        """End one job."""
        self.run(f"cancel {job_id}", lambda api: api.cancel_job(job_id=job_id, namespace=namespace))

    # ── buckets ──────────────────────────────────────────────────────────────────────────────────────────────────

    def make_bucket(self, bucket: str) -> None:
        """Make it, private, unless it is there.

        Raises:
            UsageError: it is there, and everybody can read it.
        """

        def call(api: HfApi) -> bool:
            api.create_bucket(bucket, private=True, exist_ok=True)
            return bool(api.bucket_info(bucket).private)

        if not self.run(f"bucket {bucket}", call):
            raise UsageError(
                f"the bucket {bucket} is public: code and data would be everybody's",
                hint=f"make it private at {self.endpoint}/buckets/{bucket}",
            )

    def upload(self, bucket: str, files: list[tuple[Path | bytes, str]]) -> None:
        """Put files into a bucket: pairs of a file or bytes, and a path there."""
        size = sum(len(one) if isinstance(one, bytes) else one.stat().st_size for one, _ in files)
        seconds = _CALL_SECONDS + size / _SLOWEST_BYTES
        self.run("upload", lambda api: api.batch_bucket_files(bucket, add=list(files)), seconds)

    def delete(self, bucket: str, paths: list[str]) -> None:
        """Remove files from a bucket."""
        self.run("delete", lambda api: api.batch_bucket_files(bucket, delete=paths))

    def sizes(self, bucket: str, prefix: str) -> dict[str, int]:
        """List the files below a prefix, with their sizes in bytes; the Hub's own prefix is lexical."""

        def call(api: HfApi) -> dict[str, int]:
            listed = api.list_bucket_tree(bucket, prefix, recursive=True)
            return {one.path: one.size for one in listed if one.type == "file"}

        found = self.run(f"list of {bucket}", call, 4 * _CALL_SECONDS)
        return {path: size for path, size in found.items() if path.startswith(f"{prefix}/")}

    def read(self, bucket: str, path: str) -> bytes | None:
        """Read a small file; None = it is not there."""
        try:
            return b"".join(self.stream(bucket, path))
        except MissingError:
            return None

    def address(self, bucket: str, path: str) -> str:
        """Give a file's address, for whoever has a token that opens it."""
        return f"{self.endpoint}/buckets/{bucket}/resolve/{quote(path, safe='')}"

    def stream(self, bucket: str, path: str, offset: int = 0) -> Iterator[bytes]:
        """Read a file in pieces, from an offset: plain HTTP, as the client's own file system does.

        Raises:
            MissingError: it is not there.
            UnreachableError: it broke off.
        """
        from huggingface_hub import get_session
        from huggingface_hub.utils._headers import build_hf_headers
        from huggingface_hub.utils._http import hf_raise_for_status

        self.api  # noqa: B018 (it gives the library its limits)
        url = self.address(bucket, path)
        headers = build_hf_headers(token=self.token.reveal()) | {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        began = time.monotonic()
        try:
            with get_session().stream("GET", url, headers=headers) as response:
                if response.status_code >= 400:
                    response.read()
                hf_raise_for_status(response)
                if offset and response.status_code != 206:
                    raise UnreachableError(f"Hugging Face: {path}: the answer does not begin at {offset}")
                for size, piece in enumerate(response.iter_bytes(_PIECE)):
                    if time.monotonic() - began > _CALL_SECONDS + size * _PIECE / _SLOWEST_BYTES:
                        raise UnreachableError(f"Hugging Face: {path}: it trickles")
                    yield piece
        except troubles() as error:
            raise self.error_of(printable(path, 120), error) from None


def _in_words(error: Exception) -> str:
    """Say how an exchange failed; the client's own words may hold what was sent."""
    import httpx2

    if isinstance(error, httpx2.TimeoutException | TimeoutError):
        return "no answer in time"
    if isinstance(error, httpx2.TransportError | OSError):
        return "no connection, or it broke off"
    return f"the exchange failed ({type(error).__name__})"


class _Call:
    """A call in a thread, and how it went."""

    def __init__(self, call: Callable[[HfApi], Any]) -> None:
        self._call = call
        self.result: Any = None
        self.error: Exception | None = None
        self.ended = False

    def run(self, api: HfApi) -> None:
        """Do it; what it raises is raised again by who waits."""
        try:
            self.result = self._call(api)
            self.ended = True
        except troubles() as error:
            self.error = error


def troubles() -> tuple[type[Exception], ...]:
    """Name all that the client is known to raise."""
    import httpx2

    return (
        GpurunError,
        OSError,
        RuntimeError,
        ImportError,
        *_SENSELESS,
        httpx2.HTTPError,
        httpx2.StreamError,
        httpx2.InvalidURL,
    )


# ── one client for the whole process: the library has but one ────────────────────────────────────────────────────

_skews: dict[str, timedelta] = {}
_prepared = threading.Lock()


def _prepare() -> None:
    """Give the library a client with limits, once."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if _prepared.acquire(blocking=False):  # never let go: once is enough
        disable_progress_bars()
        set_client_factory(_client)


def _client() -> httpx2.Client:
    import httpx2
    from huggingface_hub.utils._http import hf_request_event_hook

    return httpx2.Client(
        event_hooks={"request": [hf_request_event_hook], "response": [_read_clock, log_streams.note]},
        follow_redirects=True,
        timeout=httpx2.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
    )


def _read_clock(response: httpx2.Response) -> None:
    try:
        there = parsedate_to_datetime(response.headers.get("date", ""))
    except ValueError:
        return
    skew = there.replace(tzinfo=there.tzinfo or UTC) + timedelta(milliseconds=500) - datetime.now(UTC)
    place = (
        f"{response.request.url.host}:{response.request.url.port}"
        if response.request.url.port
        else response.request.url.host
    )
    _skews[place] = skew if abs(skew) > timedelta(seconds=_SKEW_SECONDS) else timedelta(0)


class _Streams(threading.local):
    """The stream that this thread reads, so that another may break it off."""

    keep: Callable[[httpx2.Response], None] | None = None

    def note(self, response: httpx2.Response) -> None:
        """Hand a fresh response to who wants to be able to break it off."""
        if self.keep is not None:
            self.keep(response)


log_streams = _Streams()
