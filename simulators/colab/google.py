"""Google's own door, as far as Colab needs it: access tokens for an hour, and what one is good for.

POST /token      a refresh token, or a service account's signed claim -> an access token
GET  /tokeninfo  whose it is, its scopes, how long it lasts yet
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from simulators.server import Reply, Request, as_json

if TYPE_CHECKING:
    import random

EMAIL = "alice@example.com"
ROBOT = "robot@example.iam.gserviceaccount.com"
CLIENT = "1234567890-simulated.apps.googleusercontent.com"
_AUTH = "https://www.googleapis.com/auth/"
SCOPES = ("openid", f"{_AUTH}userinfo.email", f"{_AUTH}cloud-platform", f"{_AUTH}colaboratory")
_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token is good for. `ends` by our monotonic clock: a hurried vendor does not hurry Google's logins."""

    email: str
    scopes: tuple[str, ...]
    ends: float

    @property
    def may_colab(self) -> bool:
        """Whether Colab lets it in: its host asks for the address of whoever comes."""
        return not {f"{_AUTH}userinfo.email", "email"}.isdisjoint(self.scopes)


class Google:
    """The tokens of one account. Its owner holds the world's lock."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._grants: dict[str, Grant] = {}
        self.refresh_token = f"1//{self._word(40)}"
        self.secret = f"GOCSPX-{self._word(28)}"

    def mint(self, scopes: tuple[str, ...] = SCOPES, *, email: str = EMAIL, seconds: float = _SECONDS) -> str:
        """Make an access token."""
        token = f"ya29.{self._word(60)}"
        self._grants[token] = Grant(email, scopes, time.monotonic() + seconds)
        return token

    def grant(self, token: str) -> Grant | None:
        """Say what a token is good for now; None = nothing."""
        found = self._grants.get(token)
        return found if found is not None and found.ends > time.monotonic() else None

    def end_all(self) -> None:
        """Let every token that was minted so far be good for nothing; a refresh gives another."""
        self._grants.clear()

    def refresh(self, request: Request) -> Reply:
        """Answer /token."""
        form = {name: values[-1] for name, values in parse_qs(request.body.decode()).items()}
        kind = form.get("grant_type", "")
        if kind == "refresh_token" and form.get("refresh_token") == self.refresh_token:
            if (form.get("client_id"), form.get("client_secret")) != (CLIENT, self.secret):
                return as_json(401, {"error": "invalid_client", "error_description": "Unauthorized"})
            return self._told(EMAIL, SCOPES)
        if kind.endswith("jwt-bearer"):
            claims = _claims(form.get("assertion", ""))
            if claims.get("iss") == ROBOT:  # its signature is not looked at
                return self._told(ROBOT, tuple(str(claims.get("scope", "")).split()))
        return refusal()

    def _told(self, email: str, scopes: tuple[str, ...]) -> Reply:
        token = self.mint(scopes, email=email)
        body: dict[str, object] = {"access_token": token, "expires_in": int(_SECONDS) - 1, "token_type": "Bearer"}
        body["scope"] = " ".join(scopes)
        if "openid" in scopes:
            body["id_token"] = ".".join(map(_coded, ({"alg": "none"}, {"email": email, "sub": "1070"}, {})))
        return as_json(200, body)

    def info(self, request: Request) -> Reply:
        """Answer /tokeninfo."""
        grant = self.grant(request.query.get("access_token", ""))
        if grant is None:
            return as_json(400, {"error": "invalid_token", "error_description": "Invalid Value"})
        left = int(grant.ends - time.monotonic())
        return as_json(
            200, {"aud": CLIENT, "scope": " ".join(grant.scopes), "expires_in": str(left), "email": grant.email}
        )

    def _word(self, count: int) -> str:
        return f"{self._dice.getrandbits(4 * count):0{count}x}"

    def user_file(self, token_uri: str, token: str = "", expiry: str = "") -> str:
        """Write a login of the user's, as gcloud and the official command keep theirs."""
        login = {
            "type": "authorized_user",
            "client_id": CLIENT,
            "client_secret": self.secret,
            "refresh_token": self.refresh_token,
            "token_uri": token_uri,
            "scopes": list(SCOPES),
        }
        return json.dumps(login | ({"token": token, "expiry": expiry} if token else {}), indent=1)


def refusal() -> Reply:
    """Say that a login is good for nothing."""
    return as_json(400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."})


def _coded(claims: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")


def _claims(assertion: str) -> dict[str, object]:
    try:
        body = assertion.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
