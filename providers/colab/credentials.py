"""Google's tokens for Colab: from the user's own files, refreshed through google-auth, their scopes checked up front.

    GOOGLE_APPLICATION_CREDENTIALS ─┐
    the official CLI's token.json ──┼──> Login ── freshen() ──> a token with minutes left ── reveal() ──> the header
    gcloud's application default ───┘

No client id of anybody's is shipped, and no file is written. `reveal` does no I/O: a token is never asked for between
an order and its answer.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from providers.base import Secret
from providers.errors import CredentialsError, UnreachableError
from providers.http import base_url, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger("gpurun.colab")

VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
CLI_TOKEN = "~/.config/colab-cli/token.json"  # noqa: S105 - a path
GOOGLE = "https://oauth2.googleapis.com/token"
_AUTH = "https://www.googleapis.com/auth/"
EMAIL = f"{_AUTH}userinfo.email"
SCOPES = ("openid", f"{_AUTH}cloud-platform", EMAIL, f"{_AUTH}colaboratory")
SIGN_IN = f"gcloud auth application-default login --scopes={','.join(SCOPES)}"
INSTALL = "pip install 'gpurun[colab]'"
_SPARE = timedelta(minutes=4)  # that a token must last yet: google-auth itself takes 3 min 45 s for the end
_SECONDS = 20.0
_TRIES = 3
_NOT_ITS_OWN = frozenset({502, 504})  # google-auth tries again after 500, 503, 429 and 408, not after these
_PAUSE_SECONDS = 0.5


class Login(Secret):
    """One identity at Google. As a `Secret` it is the access token of now."""

    __slots__ = ("_credentials", "_file", "_granted", "_heard", "_lock", "_status")

    def __init__(self, credentials: Any, file: str, granted: tuple[str, ...], *, fingerprint: str) -> None:
        super().__init__(fingerprint)
        self._credentials = credentials
        self._file = file  # whence, for a person
        self._granted = granted  # () = not told yet
        self._heard: dict[str, Any] = {}  # what the last refresh answered
        self._status = 0  # of Google's last answer
        self._lock = threading.RLock()

    def reveal(self) -> str:
        """Give the token as it is; "" before the first `freshen`."""
        return str(self._credentials.token or "")

    def __repr__(self) -> str:
        """Show nothing."""
        return "Login('…')"

    __str__ = __repr__

    @property
    def fingerprint(self) -> str:
        """What this identity is known by before anybody is asked."""
        return super().reveal()

    def freshen(self, *, now: bool = False) -> None:
        """See to it that the token lasts for minutes yet; `now` = whatever it says of itself.

        Raises:
            CredentialsError: it can't be refreshed any more, or may not do what Colab asks for.
            UnreachableError: Google does not answer.
        """
        with self._lock:
            if now or not self._credentials.token or self._ends_soon():
                self._refresh()
            self._check_scopes()

    def _ends_soon(self) -> bool:
        expiry = self._credentials.expiry  # UTC, and naive
        return expiry is not None and expiry.replace(tzinfo=UTC) - datetime.now(UTC) < _SPARE

    def _refresh(self) -> None:
        for left in reversed(range(_TRIES)):
            error = self._try()
            if error is None:
                break
            if not left or self._status not in _NOT_ITS_OWN:
                raise error
            time.sleep(_PAUSE_SECONDS)
        granted = self._heard.get("scope")
        if isinstance(granted, str) and granted:
            self._granted = tuple(granted.split())

    def _try(self) -> UnreachableError | CredentialsError | None:
        """Refresh once; gives what went wrong."""
        from google.auth import exceptions

        self._status = 0
        try:
            self._credentials.refresh(self._ask)
        except exceptions.TransportError as error:
            return UnreachableError(f"Google gives no token: {type(error).__name__}", hint="gpurun doctor")
        except exceptions.GoogleAuthError as error:
            words = printable(error.args[0] if error.args else type(error).__name__, 160)
            if getattr(error, "retryable", False) or self._status >= 500 or self._status in {408, 429}:
                return UnreachableError(f"Google gives no token: {self._status}", hint="try again shortly")
            return CredentialsError(f"Google refuses what is in {self._file}: {words}", hint=SIGN_IN)
        return None

    def _ask(self, *args: Any, **how: Any) -> Any:
        """Send what google-auth asks for, and keep the answer: it tells scopes and account besides."""
        from google.auth.transport.requests import Request

        how["timeout"] = _SECONDS
        with _session() as session:
            response = Request(session)(*args, **how)
            self._status = int(response.status)
            try:
                heard = json.loads(response.data)
            except ValueError:
                heard = {}
        self._heard = heard if isinstance(heard, dict) else {}
        return response

    def _check_scopes(self) -> None:
        """Colab's own host answers 401 to a token without the e-mail's scope; better said before."""
        if self._granted and not {EMAIL, "email"} & set(self._granted):
            raise CredentialsError(f"the login in {self._file} lacks the scope userinfo.email", hint=SIGN_IN)

    def account(self) -> str:
        """Name the account: its address where Google told it, else a fingerprint of the login."""
        self.freshen()
        if not self._heard.get("id_token") and getattr(self._credentials, "refresh_token", None):
            self.freshen(now=True)  # a token that was still good told nothing of its account
        claims = _claims(self._heard.get("id_token"))
        named = claims.get("email") or claims.get("sub") or getattr(self._credentials, "service_account_email", "")
        return str(named or self.fingerprint)


def _session() -> Any:
    import requests

    return requests.Session()


def _claims(token: object) -> Mapping[str, Any]:
    """Read who a token names; it came from Google itself, over TLS, so its signature proves nothing more."""
    try:
        body = str(token).split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError, binascii.Error):
        return {}
    return found if isinstance(found, dict) else {}


# ── where a login lies ───────────────────────────────────────────────────────────────────────────────────────────


def find(environ: Mapping[str, str] | None = None) -> Login:
    """Open the first login that there is; nothing is sent.

    Raises:
        CredentialsError: there is none, it can't be read, or google-auth is not installed.
    """
    environ = os.environ if environ is None else environ
    if environ.get(VARIABLE):
        return _open(Path(environ[VARIABLE]).expanduser())
    home = Path(environ.get("HOME") or "~").expanduser()
    gcloud = (
        Path(environ.get("CLOUDSDK_CONFIG") or home / ".config" / "gcloud") / "application_default_credentials.json"
    )
    for path in (home / CLI_TOKEN.removeprefix("~/"), gcloud):
        if path.is_file():
            return _open(path)
    raise CredentialsError(
        f"no login for Google Colab: {VARIABLE} is not set, and there is no {CLI_TOKEN} of the official colab command",
        hint=SIGN_IN,
    )


def _open(path: Path) -> Login:
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CredentialsError(f"{path} can't be read: {type(error).__name__}", hint=SIGN_IN) from None
    if not isinstance(info, dict):
        raise CredentialsError(f"{path} holds no login", hint=SIGN_IN)
    try:
        return _service(info, str(path)) if info.get("type") == "service_account" else _user(info, str(path))
    except ImportError:
        raise CredentialsError("a login at Google takes the package google-auth", hint=INSTALL) from None
    except (ValueError, TypeError, KeyError):
        raise CredentialsError(
            f"{path} is no login that Colab takes: of a user, or a service account", hint=SIGN_IN
        ) from None


def _user(info: Mapping[str, Any], file: str) -> Login:
    from google.oauth2.credentials import Credentials

    if not info.get("refresh_token") or not info.get("client_id"):
        raise ValueError(file)
    scopes = info.get("scopes") or ()
    told = tuple(scopes.split() if isinstance(scopes, str) else scopes)
    made = Credentials(  # type: ignore[no-untyped-call]  # google-auth's
        token=info.get("token"),
        refresh_token=info["refresh_token"],
        token_uri=_token_uri(info),
        client_id=info["client_id"],
        client_secret=info.get("client_secret"),
        expiry=_expiry(info),
    )
    mark = sha256(f"{info['client_id']} {info['refresh_token']}".encode()).hexdigest()[:12]
    return Login(made, file, told, fingerprint=f"login-{mark}")


def _service(info: Mapping[str, Any], file: str) -> Login:
    from google.oauth2.service_account import Credentials

    made = Credentials.from_service_account_info(info, scopes=list(SCOPES))  # type: ignore[no-untyped-call]  # google-auth's
    return Login(made, file, (), fingerprint=str(info["client_email"]))


def _token_uri(info: Mapping[str, Any]) -> str:
    """Google's own address, as google-auth has it; another only on this computer: a simulator's."""
    named = str(info.get("token_uri") or GOOGLE)
    host = urlsplit(named).hostname
    return base_url(named, "token_uri") if host in {"127.0.0.1", "localhost", "::1"} else GOOGLE


def _expiry(info: Mapping[str, Any]) -> datetime:
    """When a kept token ends; one without a date has ended. Naive UTC, as google-auth wants it."""
    try:
        return datetime.fromisoformat(str(info.get("expiry") or "")).astimezone(UTC).replace(tzinfo=None)
    except ValueError:
        return datetime.min  # noqa: DTZ901 - as google-auth compares it
