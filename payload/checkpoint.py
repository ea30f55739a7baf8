"""Checkpoints that are whole or not there: written aside, fsynced, hashed, then moved into place.

    checkpoints/.partial-step-200/ -> CHECKPOINT.json written last -> os.replace -> checkpoints/step-200/

Plain loops:   save(step, state), newest_whole(), load(path)
HF Trainer:    output_dir = staging; in `on_save`: seal(staging / "checkpoint-200", 200); resume from newest_whole()

The two newest are kept. One that is partial or whose bytes are not the ones written is skipped, and said.
"""

import errno
import hashlib
import json
import os
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

from report import EXIT_DISK, leave, say, tell_chain, write_json

FOLDER = Path("checkpoints")
STAGING = Path("checkpoints/.staging")  # same disk as FOLDER, so that a move is atomic; readers skip dotted names
SEAL = "CHECKPOINT.json"
BEGUN = "begun.json"
HOLDS = {}  # what a run keeps to on whatever machine it goes on: {"dtype": "bfloat16"}; lies in each checkpoint
KEEP = 2
MARGIN_BYTES = 64 * 2**20  # left for log, metrics and artifacts' beginnings


# --- writing


def save(step, state, *, folder=FOLDER, keep=KEEP, protect=()):
    """Save a dict of tensors, state dicts and plain values as one torch file; gives the checkpoint's folder.

    Leaves with 4 where the disk can't hold it; the older checkpoints stay.
    """
    import torch

    folder = Path(folder)
    ensure_room(bytes_of(state), folder)
    aside = _fresh(folder / f".partial-step-{step}")
    with _disk_full_is_4(aside):
        torch.save(state, aside / "state.pt")
        return seal(aside, step, folder=folder, keep=keep, protect=protect)


def load(path, map_location="cpu"):
    """Read back what `save` wrote. Only tensors and plain values: a checkpoint can't run code."""
    import torch

    return torch.load(Path(path) / "state.pt", map_location=map_location, weights_only=True)


def seal(made, step, *, folder=FOLDER, keep=KEEP, protect=(), known=None):
    """Turn a folder that somebody filled (`made`, on the same disk) into the checkpoint `step-<step>`; gives its path.

    Every file is fsynced and hashed, CHECKPOINT.json is written last, the folder is moved; then all but the newest
    `keep` and the steps in `protect` are deleted. `known` spares the hashing of files that were sealed before.
    """
    started, made, folder = time.monotonic(), Path(made), Path(folder)
    with _disk_full_is_4(made):
        if HOLDS:
            write_json(made / BEGUN, HOLDS)
        files = {name: (known or {}).get(name) or fingerprint(made / name, sync=True) for name in files_in(made)}
        write_json(made / SEAL, {"step": step, "files": files})
        for inner in {made, *(path.parent for path in made.rglob("*"))}:
            _sync_folder(inner)
    final, stale = folder / f"step-{step}", folder / f".stale-step-{step}"
    if final.exists():  # steps done again after a restart from an older one
        shutil.rmtree(stale, ignore_errors=True)
        final.replace(stale)
    made.replace(final)
    _sync_folder(folder)
    prune(folder, newest=step, keep=keep, protect=protect)
    size = sum(fact["size"] for fact in files.values())
    say(f"checkpoint: {final.name} saved, {size / 1e6:.1f} MB in {time.monotonic() - started:.2f} s")
    tell_chain("saved", step)
    return final


def prune(folder, *, newest, keep=KEEP, protect=()):
    """Delete all but the newest `keep` checkpoints, and what an interrupted save left; steps in `protect` stay.

    `newest` was just sealed: what claims a later step was skipped as broken when this run started.
    """
    folder = Path(folder)
    kept = [path for path in all_steps(folder) if step_of(path) <= newest][:keep]
    for path in all_steps(folder):
        if path not in kept and step_of(path) not in protect:
            # Renamed first: a half-deleted checkpoint must not bear a whole one's name.
            doomed = folder / f".stale-{path.name}"
            shutil.rmtree(doomed, ignore_errors=True)
            path.replace(doomed)
    for path in [*folder.glob(".stale-*"), *folder.glob(".partial-*")]:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def written_aside(final):
    """Give an empty folder to fill; it takes the place of `final` when the block ends well, and never half-filled."""
    final = Path(final)
    aside = _fresh(final.with_name(final.name + ".partial"))
    with _disk_full_is_4(aside):
        yield aside
    shutil.rmtree(final, ignore_errors=True)
    aside.replace(final)


# --- reading


def all_steps(folder=FOLDER):
    """List the folders named step-<n>, newest first, whole or not."""
    named = [path for path in Path(folder).glob("step-*") if path.name[5:].isdigit() and path.is_dir()]
    return sorted(named, key=step_of, reverse=True)


def step_of(path):
    """Give the step in a checkpoint's name."""
    return int(Path(path).name[5:])


def newest_whole(folder=FOLDER):
    """Find the newest checkpoint whose every file has the size and the sha256 it was written with, or None."""
    for path in all_steps(folder):
        fault = fault_of(path)
        if not fault:
            print(f"checkpoint: carrying on from {path.name}", flush=True)
            return path
        print(f"checkpoint: {path.name} skipped, {fault}", flush=True)
    return None


def begun(folder=FOLDER):
    """Tell what the run that is carried on from here holds to; {} = it begins here, or does not say."""
    for path in all_steps(folder):
        try:
            content = json.loads((path / BEGUN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict):
            return content
    return {}


def fault_of(path):
    """Say what is wrong with a checkpoint; empty = it is whole."""
    try:
        content = json.loads((Path(path) / SEAL).read_text(encoding="utf-8"))
        files = content["files"].items()
        for name, fact in files:
            if (Path(path) / name).stat().st_size != fact["size"]:  # cheap, so before the hashing
                return f"{name} has not the size it was written with"
        for name, fact in files:
            if fingerprint(Path(path) / name)["sha256"] != fact["sha256"]:
                return f"{name} has not the bytes it was written with"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{SEAL} can't be read ({error})"
    return ""


# --- room on the disk


def free_bytes(folder):
    """Ask the disk under `folder` how much room it has."""
    return shutil.disk_usage(folder).free


def ensure_room(needed_bytes, folder=FOLDER):
    """Leave with 4 before a save that can't fit; the message says how much is missing."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    free = free_bytes(folder)
    if free < needed_bytes + MARGIN_BYTES:
        leave(
            EXIT_DISK,
            f"no room for the next checkpoint: it needs {(needed_bytes + MARGIN_BYTES) / 1e9:.2f} GB, "
            f"the disk has {free / 1e9:.2f} GB free; older checkpoints are untouched",
        )


def bytes_of(state):
    """Add up the bytes of all tensors in nested dicts and lists."""
    if hasattr(state, "nbytes"):
        return state.nbytes
    inner = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return sum(bytes_of(value) for value in inner)


@contextmanager
def _disk_full_is_4(aside):
    """Take the half-written folder away and leave with 4 when the disk fills up all the same."""
    try:
        yield
    except Exception as error:
        if not is_disk_full(error):
            raise
        shutil.rmtree(aside, ignore_errors=True)
        leave(EXIT_DISK, f"the disk filled up while saving {aside.name}: older checkpoints are untouched")


def is_disk_full(error):
    """Tell whether an error of any library means that the disk is full."""
    # Seen 2026-11: torch.save to a path hides the OSError in its own words, safetensors tells the number as text.
    words = ("iostream error", "inline_container.cc", "No space left on device")
    while error:
        if getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT} or any(word in str(error) for word in words):
            return True
        error = error.__cause__ or error.__context__
    return False


# --- small parts


def _fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def files_in(folder):
    """List the files below a folder by their relative names, its own CHECKPOINT.json left out."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != SEAL)


def fingerprint(path, *, sync=False):
    """Give a file's size and sha256; `sync` makes sure that the disk has it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if sync:
            os.fsync(file.fileno())
    return {"size": path.stat().st_size, "sha256": digest}


def _sync_folder(folder):
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
