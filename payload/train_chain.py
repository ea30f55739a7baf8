"""Run trainings one after another, each on what an earlier one made: pretrain -> fine-tune -> merge -> quantise.

    python payload/train_chain.py config.json        # {"method": "chain", "steps": {"first": {"method": "pretrain"}}}

    steps/1-first/                      a step's folder, a job in small: config.json checkpoints/ artifacts/ DONE.json
    checkpoints/step-<n>/1-first/       all that a fresh machine needs: finished results, the running step's checkpoint
    artifacts/                          the last step's; the earlier ones' under artifacts/steps/<name>/

A later step names an earlier one's artifacts as `step:<name>` in `model` or `adapter`. Steps are counted through.
"""

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import checkpoint
import settings
from report import EXIT_CONFIG, EXIT_STOPPED, leave, say, write_json

SCRIPTS = {
    "loop": "train_loop.py",
    "pretrain": "train_pretrain.py",
    "classify": "train_classify.py",
    "sft": "train_sft.py",
    "export": "export.py",
}
HERE = Path(__file__).resolve().parent
DONE = "DONE.json"  # in a finished step's folder: {"steps", "files"}
PR_SET_PDEATHSIG = 1  # linux/prctl.h


# --- what a step reads


def checked(path, steps):
    """Check names, methods and references. Leaves with 2."""
    if not isinstance(steps, dict) or not steps:
        leave(EXIT_CONFIG, f"{path}: steps must name at least one step")
    for number, (name, step) in enumerate(steps.items()):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            leave(EXIT_CONFIG, f"{path}: a step's name is letters, digits, '-' and '_', not {name!r}")
        if not isinstance(step, dict) or step.get("method") not in SCRIPTS:
            leave(EXIT_CONFIG, f"{path}: steps.{name}.method must be one of {', '.join(SCRIPTS)}")
        for key in ("model", "adapter"):
            wanted = str(step.get(key) or "")
            if wanted.startswith("step:") and wanted[5:] not in list(steps)[:number]:
                leave(EXIT_CONFIG, f"{path}: steps.{name}.{key} is {wanted!r}, but no earlier step has that name")
    return steps


def config_of(name, step, folders):
    """Write a step's config so that it means the same from inside its folder: paths and `step:` names resolved."""

    def there(value):
        if isinstance(value, str) and value.startswith("step:"):
            return os.path.relpath(folders[value[5:]] / "artifacts", folders[name])
        # What exists here is a file of the job's; what does not is a name on the Hub.
        return os.path.relpath(value, folders[name]) if isinstance(value, str) and Path(value).exists() else value

    moved = {key: there(step[key]) for key in ("model", "adapter") if key in step}
    if isinstance(step.get("data"), dict):
        moved["data"] = {**step["data"], **{key: there(step["data"].get(key)) for key in ("train", "eval")}}
    return {**step, **moved}


# --- checkpoints of the whole chain


def link(source, target):
    """Put a file or a folder at another place without copying where the disk can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        for name in checkpoint.files_in(source):
            link(source / name, target / name)
        if (source / checkpoint.SEAL).exists():
            link(source / checkpoint.SEAL, target / checkpoint.SEAL)
        return
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # a disk without hard links
        shutil.copy2(source, target)


def seal(step, folders, running=None):
    """Make a checkpoint of the chain: every finished step's results, and the newest checkpoint of the running one."""
    aside = checkpoint.FOLDER / f".partial-step-{step}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    known = {}
    for folder in folders.values():
        done = done_of(folder)
        if done:
            for name, fact in done["files"].items():
                link(folder / name, aside / folder.name / name)
                known[f"{folder.name}/{name}"] = fact
            link(folder / DONE, aside / folder.name / DONE)
    if running:
        inner = f"{folders[running[0]].name}/checkpoints/{running[1].name}"
        try:
            link(running[1], aside / inner)
            facts = json.loads((aside / inner / checkpoint.SEAL).read_text(encoding="utf-8"))["files"]
        except FileNotFoundError:  # pruned under our hands: a newer one is on its way
            shutil.rmtree(aside)
            return
        known.update({f"{inner}/{name}": fact for name, fact in facts.items()})
    checkpoint.seal(aside, step, known=known)


def restore(found):
    """Bring the steps' folders back on a fresh machine; a folder that is here already is at least as new."""
    for source in sorted(path for path in found.iterdir() if path.is_dir()):
        target = Path("steps") / source.name
        if not target.exists():
            aside = target.with_name(f".{source.name}.partial")
            shutil.rmtree(aside, ignore_errors=True)
            link(source, aside)
            aside.replace(target)


def done_of(folder):
    """Read what a finished step left; None = not finished."""
    path = folder / DONE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


# --- one step as a process


def die_with_parent():
    """Have the kernel end this child when the chain is killed: else two trainings could meet in one folder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_by(number):
    """End this process by the signal that ended the step, so that the agent sees what happened."""
    sys.stdout.flush()
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def merged_summary(folders):
    """Put the steps' summaries together: the last value of each metric, and each step's own as `<name>/<metric>`."""
    total = {"metrics": {}, "versions": {}, "stage_seconds": {}, "peak_memory_gib": 0}
    for name, folder in folders.items():
        part = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        for key, value in part["metrics"].items():
            total["metrics"] |= {key: value, f"{name}/{key}": value}
        total["stage_seconds"] |= {f"{name}/{stage}": spent for stage, spent in part["stage_seconds"].items()}
        total["versions"] |= part["versions"]
        total["peak_memory_gib"] = max(total["peak_memory_gib"], part["peak_memory_gib"])
        rates = ("tokens_per_second", "samples_per_second", "flop_utilisation")
        total |= {key: part[key] for key in rates if part.get(key) or key not in total}  # of the last step that trained
        total["device"] = part["device"]
    return total


def main():
    """Each step in turn; finished ones are skipped."""
    # --- config
    path = sys.argv[1] if len(sys.argv) > 1 else "config.json"
    steps = checked(path, settings.read(path, "chain", {"steps": settings.REQUIRED})["steps"])
    folders = {name: Path("steps") / f"{number}-{name}" for number, name in enumerate(steps, 1)}

    # --- carry on
    found = checkpoint.newest_whole()
    if found:
        restore(found)

    # --- SIGTERM goes on to the running step, which saves and leaves
    asked, child = [], None

    def on_sigterm(number, _frame):
        asked.append(number)
        if child and child.poll() is None:
            child.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, on_sigterm)

    # --- the steps
    base = 0  # optimizer steps of the finished ones
    for number, (name, step) in enumerate(steps.items(), 1):
        folder, done = folders[name], done_of(folders[name])
        if done:
            say(f"chain: {name} is done already")
            base += done["steps"]
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            continue
        if asked:
            leave(EXIT_STOPPED, f"stopped before {name} as asked: the earlier steps are saved")
        say(f"chain: step {number} of {len(steps)}, {name} ({step['method']})")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", config_of(name, step, folders))
        argv = [sys.executable, "-u", str(HERE / SCRIPTS[step["method"]]), "config.json"]
        reader, writer = os.pipe()  # what report.tell_chain says; the step's output goes where ours does
        child = subprocess.Popen(  # no `with`: a kill in between must not wait for it
            argv,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            pass_fds=[writer],
            env={**os.environ, "GPURUN_CHAIN_STEP": json.dumps({"name": name, "base": base, "handle": writer})},
            preexec_fn=die_with_parent,  # noqa: PLW1509 (this process has one thread)
        )
        os.close(writer)
        if asked:
            child.send_signal(signal.SIGTERM)
        reached = 0
        with os.fdopen(reader, encoding="ascii") as told:
            for line in told:
                what, at = line.split()
                reached = max(reached, int(at))
                if what == "saved":
                    seal(base + int(at), folders, (name, folder / "checkpoints" / f"step-{at}"))
        code = child.wait()
        if code == -signal.SIGTERM and asked:
            leave(EXIT_STOPPED, f"stopped before {name} had begun: the earlier steps are saved")
        if code < 0:
            end_by(-code)
        if code:
            leave(code, f"step {name} ended with {code}")
        for at in checkpoint.all_steps(folder / "checkpoints")[:1]:
            reached = max(reached, checkpoint.step_of(at))  # it may have been done but for the artifacts
        names = [
            "config.json",
            "summary.json",
            *(f"artifacts/{file}" for file in checkpoint.files_in(folder / "artifacts")),
        ]
        files = {file: checkpoint.fingerprint(folder / file, sync=True) for file in names}
        write_json(folder / DONE, {"steps": reached, "files": files})
        base += reached
        seal(base, folders)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # its results stand in its place

    # --- artifacts and summary
    *earlier, last = folders
    with checkpoint.written_aside("artifacts") as together:
        link(folders[last] / "artifacts", together)
        for name in earlier:
            link(folders[name] / "artifacts", together / "steps" / name)
    write_json("summary.json", merged_summary(folders))
    say(f"done: {len(steps)} steps; {last}'s artifacts lie in artifacts/, the earlier ones' in artifacts/steps/")


if __name__ == "__main__":
    main()
