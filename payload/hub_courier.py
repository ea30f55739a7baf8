"""How bytes get from this machine into a bucket of the Hub's: by its own client, or through a mounted folder.

    of({"hub": {"endpoint", "bucket", "token"}, …})   HubCourier: huggingface_hub and hf_xet, installed where they lack
    of({"mount": "/gpurun-store", …})                 MountCourier: files, on Hugging Face Jobs; no token is there

All have courier.py's one verb, `send`: one object, one try. Standard library only, Python 3.9; the client needs more.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import site
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, List

from courier import BLOCK, PLAIN, SEALS, ChangedError, Courier, FailedError, RefusedError, StuckError

NEEDS = ("huggingface_hub>=2.4,<3", "hf_xet>=1.6")  # buckets came with 2, stores that need no account's cache with 1.6
INSTALL = 600.0  # seconds
CALL, SLOWEST = 120.0, 200e3  # seconds of one call, and bytes a second that a larger file is given time for
REFUSALS = (400, 401, 403, 404)


def of(grant: Dict[str, Any], folder: Path) -> Courier:
    """Give who carries by this leave; `folder` is the job's."""
    return HubCourier(grant, folder) if "hub" in grant else MountCourier(grant)


class HubCourier(Courier):
    """By a token that opens one bucket."""

    def __init__(self, grant: Dict[str, Any], folder: Path) -> None:
        self.place = folder / ".hub"
        self.api: Any = None
        super().__init__(grant)

    def take(self, grant: Dict[str, Any]) -> None:
        """Write by this leave from now on."""
        super().take(grant)
        hub = grant["hub"]
        self.endpoint, self.bucket, self.token = (str(hub[name]) for name in ("endpoint", "bucket", "token"))
        self.post, self.api = {}, None

    def takes(self, name: str) -> bool:
        """Whether there is leave to write an object of this name."""
        return is_plain(name)

    def send(self, name: str, file: BinaryIO, start: int, size: int, digest: Any = None) -> str:
        """Write a file as one object, checked by the hash that the Hub tells; gives that hash."""
        self.place.mkdir(mode=0o700, exist_ok=True)
        seen: List[str] = []
        if self.api is None:
            self.within(INSTALL + CALL, self.open)
        with source(file, start, size, self.place) as path:
            read(path, size, digest, self.count)
            self.within(CALL + size / SLOWEST, lambda: seen.append(self.lay(name, path, size)))
        if not seen:
            raise FailedError("the client broke in a way that nobody knows")
        return seen[0]

    def count(self, size: int) -> None:
        """Count bytes that were read to be sent."""
        self.sent += size
        self.tick()

    def lay(self, name: str, path: str, size: int) -> str:
        """Upload, give it its name, and ask what is there under that name."""
        import hf_xet  # type: ignore[import-untyped]

        api, key = self.api, self.prefix + name
        if size:
            api.batch_bucket_files(self.bucket, add=[(path, key)])
            ours = str(hf_xet.hash_files([path])[0].hash)
        else:
            api.batch_bucket_files(self.bucket, add=[(b"", key)])
            ours = ""
        found = [one for one in api.get_bucket_paths_info(self.bucket, [key]) if one.path == key]
        if not found or found[0].size != size or (ours and found[0].xet_hash != ours):
            kept = f"{found[0].size} bytes, {found[0].xet_hash[:16]}…" if found else "nothing"
            raise FailedError(f"the store keeps {kept} as {name}, not what was sent")
        return str(found[0].xet_hash)

    def open(self) -> None:
        """Make the Hub's client, brought here first where it is not.

        Raises:
            FailedError: it can't be had.
        """
        settle_environment(self.place)
        bring_library(self.place / "lib")
        from huggingface_hub import HfApi

        limit_client()
        self.api = HfApi(endpoint=self.endpoint, token=self.token)

    def within(self, seconds: float, call: Callable[[], None]) -> None:
        """Do a call of the client's, which has no limits of its own, and wait for it so long.

        Raises:
            FailedError, RefusedError: it failed.
            StuckError: it has not ended. It may lay an old seal over a newer one later, or read another file's bytes.
        """
        failed: List[Exception] = []

        def run() -> None:
            try:
                call()
            except troubles() as error:
                failed.append(error)

        worker = threading.Thread(target=run, daemon=True)
        worker.start()
        worker.join(seconds)
        if worker.is_alive():
            raise StuckError(f"no answer within {seconds:.0f} s")
        if failed:
            raise self.said(failed[0]) from None  # its own exception holds the request, and that the token

    def said(self, error: Exception) -> FailedError:
        """Say in our words what the client raised."""
        if isinstance(error, FailedError):
            return error
        status = getattr(getattr(error, "response", None), "status_code", 0)
        if status:
            kind = RefusedError if status in REFUSALS else FailedError
            return kind(f"the store says {status}")
        words = " ".join(str(error).split()).replace(self.token, "…")
        return FailedError(f"{type(error).__name__}: {words}"[:200])


class MountCourier(Courier):
    """Through a folder that the vendor brings away, late and in no order that is promised: seals wait for that."""

    def __init__(self, grant: Dict[str, Any]) -> None:
        self.last = -1e9  # when a file was written, steady seconds
        super().__init__(grant)

    def take(self, grant: Dict[str, Any]) -> None:
        """Write by this leave from now on."""
        super().take(grant)
        self.post, self.mount = {}, Path(str(grant["mount"]))
        self.settle = float(grant.get("settle_seconds") or 0.0)

    def takes(self, name: str) -> bool:
        """Whether there is leave to write an object of this name."""
        return is_plain(name)

    def send(self, name: str, file: BinaryIO, start: int, size: int, digest: Any = None) -> str:
        """Write a file from its beginning to its end; gives the MD5 of its bytes."""
        if name in SEALS:
            time.sleep(max(self.last + self.settle - time.monotonic(), 0.0))
        seen, target = hashlib.new("md5", usedforsecurity=False), self.mount / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                for block in blocks(file, start, size):
                    out.write(block)
                    seen.update(block)
                    if digest is not None:
                        digest.update(block)
                    self.sent += len(block)
                    self.tick()
                out.flush()
                os.fsync(out.fileno())
            if target.stat().st_size != size:
                raise FailedError(f"the mounted folder keeps other bytes of {name}")
        except OSError as error:
            raise FailedError(f"the mounted folder does not take it: {error}"[:200]) from error
        self.last = time.monotonic()
        return seen.hexdigest()


def troubles() -> Any:
    """Name all that the client is known to raise."""
    known = (FailedError, OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, ImportError)
    try:
        import httpx2
    except ImportError:
        return (*known, subprocess.SubprocessError)
    return (*known, subprocess.SubprocessError, httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL)


# ---- bytes -----------------------------------------------------------------------------------------------------------


def is_plain(name: str) -> bool:
    """Whether a name serves as it is."""
    return bool(PLAIN.fullmatch(name)) and not any(part.strip(".") == "" for part in name.split("/"))


def blocks(file: BinaryIO, start: int, size: int) -> Any:
    """Read so many bytes from there on.

    Raises:
        ChangedError: the file is shorter.
    """
    file.seek(start)
    while size:
        block = file.read(min(BLOCK, size))
        if not block:
            raise ChangedError(f"{size} bytes are missing")
        size -= len(block)
        yield block


@contextlib.contextmanager
def source(file: BinaryIO, start: int, size: int, place: Path) -> Any:
    """Give a path that holds just these bytes: the open file's own, deleted or not, else a copy."""
    path = open_path(file)
    if path and start == 0 and os.fstat(file.fileno()).st_size == size:
        yield path
        return
    with tempfile.NamedTemporaryFile(dir=str(place), prefix="part-") as copy:
        for block in blocks(file, start, size):
            copy.write(block)
        copy.flush()
        yield copy.name


def open_path(file: BinaryIO) -> str:
    """Name an open file for another reader in this process; "" = it has no name."""
    try:
        path = f"/proc/self/fd/{file.fileno()}"
    except OSError:
        return ""
    return path if Path(path).exists() else ""


def read(path: str, size: int, digest: Any, count: Callable[[int], None]) -> None:
    """Have `digest` see what will be sent."""
    with Path(path).open("rb") as file:
        for block in blocks(file, 0, size):
            if digest is not None:
                digest.update(block)
            count(len(block))


# ---- the client ------------------------------------------------------------------------------------------------------


def settle_environment(place: Path) -> None:
    """Keep the client to itself: no cache of chunks on the training's disk, no words to a terminal."""
    os.environ.update(
        HF_HUB_OFFLINE="0",  # the training may want it offline
        HF_HOME=str(place),
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        HF_XET_CHUNK_CACHE_SIZE_BYTES="0",
    )
    os.environ.pop("HF_TOKEN", None)


def is_here() -> bool:
    """Whether a client that knows buckets can be imported."""
    try:
        major = int(importlib.metadata.version("huggingface_hub").split(".")[0])
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False
    return major >= 2 and importlib.util.find_spec("hf_xet") is not None


def bring_library(into: Path) -> None:
    """Make the client importable.

    Raises:
        FailedError: it can't be installed.
    """
    site.main()  # we were started without this Python's own packages
    if is_here():
        return
    sys.path.insert(0, str(into))
    importlib.invalidate_caches()
    if is_here():
        return
    own = Path.home() / ".local" / "bin" / "uv"  # where setup.sh puts it
    uv = shutil.which("uv") or (str(own) if own.exists() else "")
    argv = [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
    done = subprocess.run(
        [*argv, "-q", "--target", str(into), *NEEDS],
        capture_output=True,
        text=True,
        timeout=INSTALL,
        check=False,
    )
    importlib.invalidate_caches()
    if done.returncode or not is_here():
        raise FailedError(f"huggingface_hub can't be installed: {(done.stderr or done.stdout).strip()[-120:]}")


def limit_client() -> None:
    """Give the library's one HTTP client limits of time."""
    import httpx2
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import hf_request_event_hook

    set_client_factory(
        lambda: httpx2.Client(
            event_hooks={"request": [hf_request_event_hook]},
            follow_redirects=True,
            timeout=httpx2.Timeout(30.0, connect=10.0),
        )
    )
