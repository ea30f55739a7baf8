"""Run a training, then put what it made on the Hub. What the agent starts where --push-to-hub was asked for.

    python payload/hub_push.py you/model private [--endpoint URL] -- {python} payload/train_sft.py config.json

It leaves with the training's own exit code, or dies of its signal. Pushed is only what ended well; a push that fails is
told, in the log and as metrics, and loses nothing: the artifacts come home as ever. A SIGTERM after the
training's end ends the push. HF_TOKEN is in the environment, as a secret of the job. export.py takes `put` and `tell`
from here. Standard library only, Python 3.9; the push itself needs huggingface_hub.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

NEEDS = "huggingface_hub>=1,<3"
PLACES = (("artifacts", ""), ("code/artifacts", ""), ("code/outputs", "outputs"))  # and where they go in the repository


class PushError(Exception):
    """It is not there; the message says why."""


class GivenUpError(PushError):
    """We are told to end."""


# --- the training


def run(command):
    """Run the training and wait for it; gives its return code as `Popen` does.

    The agent's SIGTERM goes to the whole process group, the training included: not passed on, or it came twice.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)
    return subprocess.Popen(command).wait()


def leave_as(code):
    """End as the training did: by the same signal, which the agent reads."""
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no other way
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


# --- the push


def give_up(*_):
    """Leave the push, in the midst of whatever it does."""
    raise GivenUpError("there was no time left for it")


def put(folder, repo, *, private=True, within="", endpoint=None):
    """Put a folder into a repository that is made where it is not there; gives the commit's name.

    Raises:
        PushError: it is not there.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    # The library's bases: OSError, and whatever its HTTP client of this version raises.
    troubles = (*HfHubHTTPError.__bases__, OfflineModeIsEnabled, RuntimeError, ValueError)
    try:
        api = HfApi(endpoint=endpoint, token=os.environ["HF_TOKEN"])
        api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.model_info(repo).private:
            raise PushError(f"{repo} is public, and private was asked for")
        done = api.upload_folder(
            repo_id=repo, folder_path=folder, path_in_repo=within or None, commit_message="Upload by gpurun"
        )
    except troubles as error:
        words = " ".join(str(error).split()).replace(os.environ["HF_TOKEN"], "…")
        raise PushError(words or type(error).__name__) from error
    return done.oid


def bring_library():
    """Make huggingface_hub importable.

    Raises:
        PushError: it can't be had.
    """
    with contextlib.suppress(ImportError):
        import huggingface_hub  # noqa: F401 (whether it is there is the question)

        return
    into = tempfile.mkdtemp(prefix="gpurun-push-")
    pip = ["uv", "pip", "install", "--python", sys.executable] if shutil.which("uv") else []
    pip = pip or [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "-q", "--target", into, NEEDS], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PushError(f"huggingface_hub can't be installed: {(done.stderr or done.stdout).strip()[-300:]}")
    sys.path.insert(0, into)


def push(repo, *, private, endpoint):
    """Put all that the training made on the Hub; gives the last commit's name.

    Raises:
        PushError: not all of it is there.
    """
    places = [(Path(place), within) for place, within in PLACES]
    full = [(place, within) for place, within in places if place.is_dir() and any(place.iterdir())]
    if not full:
        raise PushError("the training left nothing in artifacts/")
    bring_library()
    commit = ""
    for place, within in full:
        commit = put(place, repo, private=private, within=within, endpoint=endpoint)
    return commit


def tell(repo, *, private, commit="", error=""):
    """Say how it went: a line for people, a metrics line for the plan's other end."""
    kind = "private" if private else "public"
    told = f"failed, the artifacts are kept here: {error}" if error else f"{repo} on the Hub, {kind}, commit {commit}"
    print(f"push: {told}", flush=True)
    facts = {"push_repo": repo, "push_private": private, "push_commit": commit, "push_error": error[:300]}
    print("::metrics " + json.dumps(facts), flush=True)


def main():
    """Train, push, leave as the training did."""
    split = sys.argv.index("--")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("repo")
    parser.add_argument("visibility", choices=["private", "public"])
    parser.add_argument("--endpoint")
    wish = parser.parse_args(sys.argv[1:split])
    code = run(sys.argv[split + 1 :])
    if code:
        leave_as(code)
    private = wish.visibility == "private"
    print('::metrics {"stage": "push"}', flush=True)
    signal.signal(signal.SIGTERM, give_up)
    try:
        commit, error = push(wish.repo, private=private, endpoint=wish.endpoint), ""
    except PushError as failed:
        commit, error = "", str(failed)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tell(wish.repo, private=private, commit=commit, error=error)
    sys.stdout.flush()
    os._exit(0)  # the library's threads may still be at it


if __name__ == "__main__":
    main()
