"""The sender: takes one notice over stdin, tells every target, writes into the ledger how it went.

    python -m orchestrator.deliver < {"notice": {…}, "targets": ["ntfy://…"], "run_id": "…", "attempt": 1}

A process of its own, so that what hangs or breaks here harms nobody. Each target has a thread and three tries; after a
minute the process leaves, whatever hangs. No error's own words are kept: they may hold the address, and so a token.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator import targets
from orchestrator.home import Home
from orchestrator.targets import Target, Way
from providers.errors import GpurunError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

AGENT = "gpurun"
_PAUSES = (2.0, 8.0)  # seconds before the second and the third try


class Pace(NamedTuple):
    """How long is waited, seconds."""

    one_try: float = 10.0
    whole: float = 60.0
    pauses: tuple[float, ...] = _PAUSES


class NotTold(Exception):  # noqa: N818 (it is no error of gpurun's: how a try ended)
    """A try failed. The message holds no address; `again` = another try may help."""

    def __init__(self, why: str, *, again: bool = False) -> None:
        super().__init__(why)
        self.again = again


def deliver(notice: Mapping[str, Any], places: Sequence[Target], pace: Pace | None = None) -> dict[Target, str]:
    """Tell every target at once; gives for each "" or why it was not told."""
    pace = pace or Pace()
    outcomes = dict.fromkeys(places, "the sender broke")

    def one(place: Target) -> None:
        outcomes[place] = _told(place, notice, pace)

    threads = {place: threading.Thread(target=one, args=(place,), daemon=True) for place in places}
    until = time.monotonic() + pace.whole
    for thread in threads.values():
        thread.start()
    for place, thread in threads.items():
        thread.join(max(until - time.monotonic(), 0.0))
        if thread.is_alive():
            outcomes[place] = f"no answer within {pace.whole:.0f} s"
    return dict(outcomes)


def _told(place: Target, notice: Mapping[str, Any], pace: Pace) -> str:
    for pause in (*pace.pauses, None):
        try:
            _WAYS[place.way](place, notice, pace.one_try)
        except NotTold as error:
            if pause is None or not error.again:
                return str(error)
            time.sleep(pause)
        else:
            return ""
    return "not tried"


# ── the ways ────────────────────────────────────────────────────────────────────────────────────


def _webhook(place: Target, notice: Mapping[str, Any], seconds: float) -> None:
    _post(place.text, seconds, json=dict(notice))


def _ntfy(place: Target, notice: Mapping[str, Any], seconds: float) -> None:
    """Publish as JSON: https://docs.ntfy.sh/publish/#publish-as-json."""
    server, topic, login = targets.ntfy_of(place.text)
    body = {
        "topic": topic,
        "title": notice["title"],
        "message": notice["text"],
        "priority": 4 if notice["urgent"] else 3,
        "tags": ["warning" if notice["urgent"] else "information_source"],
        **({"click": notice["console_url"]} if notice.get("console_url") else {}),
    }
    bearer = {"Authorization": f"Bearer {login[1]}"} if login and not login[0] else {}
    _post(server, seconds, json=body, headers=bearer, auth=login if login and login[0] else None)


def _post(url: str, seconds: float, **content: Any) -> None:
    import requests

    headers = {"User-Agent": AGENT, **(content.pop("headers", None) or {})}
    content["auth"] = content.get("auth") or (lambda request: request)  # or ~/.netrc would put a login in
    try:
        # A redirect could carry the notice, and its token, elsewhere.
        with requests.post(url, timeout=seconds, headers=headers, allow_redirects=False, **content) as reply:
            status = reply.status_code
    except requests.Timeout as error:
        raise NotTold(f"no answer within {seconds:.0f} s", again=True) from error
    except requests.ConnectionError as error:
        raise NotTold("can't be reached", again=True) from error
    except (requests.RequestException, ValueError) as error:
        raise NotTold(f"can't be asked: {type(error).__name__}") from error
    if not 200 <= status < 300:
        raise NotTold(f"answered {status}", again=status >= 500 or status == 429)


def _desktop(_place: Target, notice: Mapping[str, Any], seconds: float) -> None:
    title, text = str(notice["title"]), str(notice["text"])
    if sys.platform == "darwin":
        script = ("on run argv", "display notification (item 2 of argv) with title (item 1 of argv)", "end run")
        argv = ["osascript", *(word for line in script for word in ("-e", line)), title, text]
    else:
        urgency = "critical" if notice["urgent"] else "normal"
        argv = ["notify-send", f"--app-name={AGENT}", f"--urgency={urgency}", "--", title, text]
    if shutil.which(argv[0]) is None:
        raise NotTold(f"this computer has no {argv[0]}")
    _run(argv, b"", os.environ, seconds)


def _command(place: Target, notice: Mapping[str, Any], seconds: float) -> None:
    """Run the user's program: what happened stands in its environment, and whole, as JSON, on its stdin."""
    facts = {f"GPURUN_{key.upper()}": str(value) for key, value in notice.items() if value is not None}
    _run(targets.words_of(place.text), json.dumps(dict(notice)).encode(), {**os.environ, **facts}, 3 * seconds)


def _run(argv: list[str], given: bytes, environ: Mapping[str, str], seconds: float) -> None:
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environ,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise NotTold(f"can't be run: {getattr(error, 'strerror', None) or type(error).__name__}") from error
    try:
        process.communicate(given, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise NotTold(f"did not end within {seconds:.0f} s") from error
    if process.returncode:
        raise NotTold(f"left with {process.returncode}", again=True)


def _apprise(place: Target, notice: Mapping[str, Any], _seconds: float) -> None:
    try:
        import apprise
    except ImportError as error:
        raise NotTold("needs apprise: pip install 'gpurun[notify]'") from error
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # its words hold addresses
    service = apprise.Apprise(asset=apprise.AppriseAsset(app_id=AGENT, app_desc=AGENT, async_mode=False))
    if not service.add(place.text):
        raise NotTold("apprise does not know such an address")
    kind = apprise.NotifyType.WARNING if notice["urgent"] else apprise.NotifyType.INFO
    if not service.notify(body=str(notice["text"]), title=str(notice["title"]), notify_type=kind):
        raise NotTold("apprise could not tell it", again=True)


_WAYS: dict[Way, Callable[[Target, Mapping[str, Any], float], None]] = {
    Way.WEBHOOK: _webhook,
    Way.NTFY: _ntfy,
    Way.DESKTOP: _desktop,
    Way.COMMAND: _command,
    Way.APPRISE: _apprise,
}


# ── the process ─────────────────────────────────────────────────────────────────────────────────


def main() -> None:
    """Send what stdin holds; leave when it is told or the time is up, whatever hangs."""
    logging.disable(logging.CRITICAL)
    told = json.loads(sys.stdin.buffer.read())
    pace = Pace(*told.get("pace", ()))
    if "heartbeat" in told:
        _beat(told["heartbeat"], told["text"], pace)
    else:
        _record(told, deliver(told["notice"], targets.all_of(told["targets"]), pace))
    os._exit(0)  # a thread that hangs would be waited for


def _beat(url: str, text: str, pace: Pace) -> None:
    for pause in (*pace.pauses, 0.0):
        try:
            _post(url, pace.one_try, data=text.encode())
        except NotTold as error:
            if not error.again:
                return
            time.sleep(pause)
        else:
            return


def _record(told: Mapping[str, Any], outcomes: Mapping[Target, str]) -> None:
    from orchestrator.ledger import Ledger

    home, notice, run_id = Home.default(), told["notice"], told["run_id"]
    with suppress(GpurunError), closing(Ledger(home.ledger)) as ledger:
        for place, why in outcomes.items():
            kind, text = ("failed" if why else "done"), f"{notice['key']} {place.shown}{': ' if why else ''}{why}"
            ledger.note(run_id, told["attempt"], "notifier", "notify", kind, text, datetime.now(UTC))
    if run_id and notice["event"] == "end":
        home.run(run_id).notify.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
