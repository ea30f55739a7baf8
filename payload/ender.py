"""The ender: ends the machine that it runs on at its vendor, by a key that only its folder's owner can read.

    python3 -I -S -B ender.py keep <folder>     the orders from standard input, into <folder>/ender.json, 0600
    python3 -I -S -B ender.py look <folder>     ask the vendor about this machine, change nothing: a line of JSON
    python3 -I -S -B ender.py fire <folder>     end it: every route in order, again and again, until it is gone

    ender.json: {"routes": [request, …], "look": request, "alive": [rule, …], "gone": [rule, …], "pace_seconds": 1.1,
                 "there": [rule, …]     somebody answers, who can't be asked more than that without ending the machine
                 "more": [{"look", "alive", "gone"}, …]}     asked in turn, until one says alive or gone
    request: {"method", "url", "headers": {…}, "body": any JSON}      "{env:NAME}" stands for the machine's own value
             or, as a route, {"argv": […]}: a command;      "last": true: only where nobody took an earlier route
    rule: {"status": [200], "at": ["data", "status"], "in": ["terminated"], "without": ["errors"]}   left out = holds

It knows no vendor, follows no redirect, writes nothing while it fires, and never says a word of what it sends.
Standard library only, Python 3.9; nothing beside this file: it is copied to where only root writes.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional

LONGEST_ASK = 12.0  # seconds for one request, name resolution and a dribbling answer included
LONGEST_WAIT = 15.0  # seconds between two rounds
SURE = 3  # a machine that can still ask is not gone: the vendor must say it so often, a round apart
MOST = 1 << 20  # bytes of an answer that are read
NOT_YET, EXPIRED = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: the certificate's chain and name are still checked
ERRORS = (
    OSError,
    http.client.HTTPException,
    subprocess.SubprocessError,
    ValueError,
    KeyError,
    TypeError,
    RecursionError,
    MemoryError,
)
TELLS = ("alive", "gone", "there")  # an answer after which nobody is asked any more
MISSING = object()  # what is not in an answer is no null in it
_NAMED = re.compile(r"\{env:([A-Za-z_][A-Za-z0-9_]*)\}")


class Answer(NamedTuple):
    """What a vendor answered; `status` 0 = nothing, and `body` says why in words."""

    status: int
    body: Any


# ---- one request -----------------------------------------------------------------------------------------------------


def ask(request: Dict[str, Any]) -> Answer:
    """Send one request and give what came; never raises, never takes longer than `LONGEST_ASK`."""
    box: List[Answer] = []

    def run() -> None:
        try:
            box.append(send(request))
        except ERRORS as error:  # its text may hold what was sent
            box.append(Answer(0, getattr(error, "strerror", None) or type(error).__name__))

    thread = threading.Thread(target=run, daemon=True)
    with contextlib.suppress(RuntimeError):  # no memory for a thread: the next round
        thread.start()
        thread.join(LONGEST_ASK)
    return box[0] if box else Answer(0, f"no answer within {LONGEST_ASK:.0f} s")


def send(request: Dict[str, Any]) -> Answer:
    """Send it as it stands; where only the certificate's time is wrong, the clock here is to blame."""
    if "argv" in request:
        return command(filled(request["argv"]))
    try:
        return exchange(request, ssl.create_default_context())
    except ssl.SSLCertVerificationError as error:
        if error.verify_code not in (NOT_YET, EXPIRED):
            raise
        context = ssl.create_default_context()
        context.verify_flags |= NO_CHECK_TIME
        return exchange(request, context)


def command(argv: List[str]) -> Answer:
    """Run a vendor's own program: 200 = it says that it went well, 500 = it does not. Nothing of it is heard."""
    null = subprocess.DEVNULL
    done = subprocess.run(argv, stdin=null, stdout=null, stderr=null, timeout=LONGEST_ASK, check=False)
    return Answer(500 if done.returncode else 200, None)


def exchange(request: Dict[str, Any], context: ssl.SSLContext) -> Answer:
    """One connection, one request, one answer; a redirect is an answer like any other."""
    request = filled(request)
    url = urllib.parse.urlsplit(request["url"])
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        connection = http.client.HTTPSConnection(url.hostname or "", url.port, timeout=LONGEST_ASK, context=context)
    else:
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=LONGEST_ASK)
    body = None if request.get("body") is None else json.dumps(request["body"]).encode()
    headers = {"Accept": "application/json", **request.get("headers", {})}
    if body is not None:
        headers["Content-Type"] = "application/json"
    with contextlib.closing(connection):
        connection.request(request["method"], f"{url.path}{'?' + url.query if url.query else ''}", body, headers)
        answer = connection.getresponse()
        text = answer.read(MOST)
    try:
        return Answer(answer.status, json.loads(text))
    except (ValueError, RecursionError):
        return Answer(answer.status, None)


def filled(value: Any) -> Any:
    """Put the machine's own values where their names stand.

    Raises:
        KeyError: the machine has no such value.
    """
    if isinstance(value, dict):
        return {key: filled(one) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one) for one in value]
    return _NAMED.sub(lambda name: own(name[1]), value) if isinstance(value, str) else value


def own(name: str) -> str:
    """Read a value of the environment: ours, else the first process's, which a container's keys are given to."""
    if name in os.environ:
        return os.environ[name]
    with contextlib.suppress(OSError):  # not ours to read
        for pair in Path("/proc/1/environ").read_bytes().split(b"\0"):
            if pair.startswith(name.encode() + b"="):
                return pair.decode().partition("=")[2]
    raise KeyError(name)


# ---- what it says ----------------------------------------------------------------------------------------------------


def fits(rule: Dict[str, Any], answer: Answer) -> bool:
    """Whether an answer is what a rule speaks of."""
    if answer.status not in rule.get("status", [answer.status]):
        return False
    value = answer.body
    if isinstance(value, dict) and any(value.get(key) for key in rule.get("without", [])):
        return False
    for key in rule.get("at", []):
        value = value.get(key, MISSING) if isinstance(value, dict) else MISSING
    return "in" not in rule or value in rule["in"]


def look(orders: Dict[str, Any]) -> Dict[str, str]:
    """Ask about this machine, in every way that there is until one tells; refused = no way is open to the key."""
    told = []
    for way in (orders, *orders.get("more", [])):
        told.append(look_once(way))
        if told[-1]["said"] in TELLS:
            break
    said = told[-1]["said"] if told[-1]["said"] in TELLS else "unclear"
    if all(one["said"] == "refused" for one in told):
        said = "refused"
    return {"said": said, "evidence": "; ".join(one["evidence"] for one in told)}


def look_once(way: Dict[str, Any]) -> Dict[str, str]:
    """Ask in one way; says alive, gone, there, refused (the key opens nothing) or unclear, and on what evidence."""
    answer = ask(way["look"])
    said = "refused" if answer.status in (401, 403) else "unclear"
    for word in ("there", "alive", "gone"):
        with contextlib.suppress(KeyError):  # a rule that names a value which this machine lacks
            if answer.status and any(fits(filled(rule), answer) for rule in way.get(word, [])):
                said = word
    url = urllib.parse.urlsplit(way["look"]["url"])
    place = url.netloc if "{env:" in url.netloc else url.hostname
    place, path = (_NAMED.sub("…", one or "") for one in (place, url.path))  # never a value: it may be a secret
    words = f"{answer.status}" if answer.status else str(answer.body)
    return {"said": said, "evidence": f"{way['look']['method']} {place}{path} → {words}, {said}"}


def fire(
    folder: Path,
    tell: Callable[[Dict[str, str]], None],
    sleep: Callable[[float], None],
    read: Callable[[Path], Dict[str, Any]],
) -> None:
    """End this machine: never gives up, and comes back only when its vendor insists that it is gone."""
    orders: Optional[Dict[str, Any]] = None
    gone, wait = 0, 1.0
    while gone < SURE:
        try:
            orders = orders or read(folder)
        except ERRORS as error:  # a disk that is away for a while
            tell({"said": "unclear", "evidence": f"its orders can't be read: {type(error).__name__}"})
        else:
            said = end_once(orders, sleep)
            tell(said)
            gone = gone + 1 if said["said"] == "gone" else 0
        sleep(LONGEST_WAIT if gone else min(wait, LONGEST_WAIT))
        wait = min(2 * wait, LONGEST_WAIT)


def end_once(orders: Dict[str, Any], sleep: Callable[[float], None]) -> Dict[str, str]:
    """Go all routes once, each until the vendor says that it worked."""
    pace = float(orders.get("pace_seconds", 1.1))
    said, taken = {"said": "unclear", "evidence": "it has no route"}, False
    for route in orders["routes"]:
        if taken and route.get("last"):
            continue
        answer = ask(route)
        taken = taken or fits({"status": [200, 201, 202, 204], "without": ["errors"]}, answer)
        sleep(pace)
        if not answer.status:  # nobody there: a look would only take time
            said = {"said": "unclear", "evidence": f"{name_of(route)}: {answer.body}"}
            continue
        said = look(orders)
        sleep(pace)
        if said["said"] == "gone":
            break
    return said


def name_of(route: Dict[str, Any]) -> str:
    """Name a route without what it sends."""
    return str(route.get("method") or " ".join(route.get("argv", [])[:2]))


# ---- files -----------------------------------------------------------------------------------------------------------


def read(folder: Path) -> Dict[str, Any]:
    """Read the orders."""
    orders = json.loads((folder / "ender.json").read_bytes())
    for way in (orders, *orders.get("more", [])):
        for key in ("look", "alive", "gone"):
            way[key]
    orders["routes"]
    return dict(orders)


def keep(folder: Path, orders: bytes) -> None:
    """Keep the orders for our own eyes, and this program beside them, where nobody else can change it."""
    json.loads(orders)
    for made in (folder.parent, folder):
        made.mkdir(mode=0o755, exist_ok=True)  # who may not read the file may know that it is there
    write(folder / ".lock", b"", 0o600)
    write(folder / "ender.py", Path(__file__).read_bytes(), 0o644)
    write(folder / "ender.json", orders, 0o600)


def write(path: Path, content: bytes, mode: int) -> None:
    """Write aside, durably, then move into place."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        aside.unlink()
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def is_first(folder: Path) -> bool:
    """Whether no other one fires here already; where a disk can't say, two do no harm."""
    try:
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held by the handle that stays open until our end
    except OSError:
        return False
    return True


def tell(said: Dict[str, str]) -> None:
    """Say a line; nobody may be left to hear it."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps({"time": time.time(), **said}).encode() + b"\n")


def main(argv: List[str]) -> int:
    """Read the command line."""
    if len(argv) != 3 or argv[1] not in ("keep", "look", "fire", "drop"):
        print("usage: ender.py keep|look|fire|drop <folder>", file=sys.stderr)
        return 2
    verb, folder = argv[1], Path(argv[2])
    if verb == "keep":
        keep(folder, sys.stdin.buffer.read())
    elif verb == "look":
        try:
            tell(look(read(folder)))
        except ERRORS as error:  # of a broken file: its text may hold what stands in it
            tell({"said": "unclear", "evidence": f"its orders make no sense: {type(error).__name__}"})
    elif verb == "drop":
        shutil.rmtree(folder)
    else:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        if is_first(folder):
            fire(folder, tell, time.sleep, read)
            return 0
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
