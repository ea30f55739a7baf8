"""Metrics lines, stage clock, counters, summary.json, SIGTERM and the exit codes: what a training says of itself.

    report = Report(gpu, total_steps=1000)      # gpu: device.choose(...)
    report.stage("train")
    report.count(tokens=4096, samples=8)
    report.step(17, loss=2.31, lr=3e-4)         # one `::metrics {json}` line; a loss that is not finite ends the run
    report.finish({"loss": 2.31})               # summary.json

Not here: what is trained. torch is imported where it is asked, so that a bad config fails within a blink.
"""

import contextlib
import importlib.metadata
import json
import math
import os
import platform
import resource
import signal
import sys
import time
from pathlib import Path

# Read when torch loads its OpenMP, hence here, before it. Threads that spin while they wait starve each other where
# others want the cores too: MiniLM on two busy cores, 20 steps: 91 s spinning, 12 s sleeping (2026-11).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

EXIT_DONE = 0
EXIT_CONFIG = 2  # config or data are wrong
EXIT_DIVERGED = 3  # the loss is not finite
EXIT_DISK = 4  # the disk can't hold the next checkpoint
EXIT_STOPPED = 5  # SIGTERM was obeyed: saved and left

GIB = 2**30
PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets", "safetensors")


def leave(code, message):
    """End the program with an exit code of payload/README.md and one line on standard error."""
    print(f"error: {message}" if code != EXIT_STOPPED else message, file=sys.stderr, flush=True)
    raise SystemExit(code)


# Set by train_chain.py for the steps it runs: a step speaks to the log itself, so that killing the chain loses no line.
CHAIN = json.loads(os.environ.get("GPURUN_CHAIN_STEP", "null"))  # {"name", "base": steps before it, "handle": a pipe's}


def tell_chain(what, step):
    """Tell the chain that runs this step, if one does: "at" a step, or a checkpoint "saved"."""
    if CHAIN:
        with contextlib.suppress(OSError):  # the chain is dead: the kernel is ending us too
            os.write(CHAIN["handle"], f"{what} {step}\n".encode())


def say(line):
    """Print one line in one write: two processes may share the log, and `print` sends the line's end by itself."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def write_json(path, content):
    """Write JSON aside, then move it into place: a reader never sees half of it."""
    path = Path(path)
    aside = path.with_name(path.name + ".partial")
    with aside.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def versions():
    """Give the versions of Python and of the packages that this process has loaded."""
    loaded = {name: importlib.metadata.version(name) for name in PACKAGES if name in sys.modules}
    return {"python": platform.python_version(), **loaded}


class Report:
    """The voice of one training; `gpu` is what `device.choose` gave. Numbers are of the whole run, resumes included."""

    def __init__(self, gpu, *, total_steps=0, log_every_steps=1, folder="."):
        self.gpu = gpu
        self.total_steps = total_steps
        self.log_every_steps = log_every_steps
        self.folder = Path(folder)
        self.flops_per_token = 0.0  # forward and backward; 0 = not known
        self.flops_per_sample = 0.0  # for trainings without tokens
        self.tokens = 0
        self.samples = 0
        self.train_seconds = 0.0  # in stage "train", all attempts together
        self.stage_seconds = {}
        self.metrics = {}  # the last value of each
        self.stop_asked = False
        # Steps that the agent's probe counts: each gets its line, and one more that only warms up.
        self._probed = int(os.environ.get("GPURUN_PROBE_STEPS", "-1")) + 1
        self._peak_gib = 0.0
        self._gpu_gib = {}  # allocated, reserved, process: the peaks on a GPU
        self.micro_batch = None  # rows of one pass, where a training has such: smaller than asked once memory ran out
        self._stage = "load"
        self._stage_since = time.monotonic()
        self._line_at = (time.monotonic(), 0, 0)  # time, tokens, samples at the last line: rates are since then
        signal.signal(signal.SIGTERM, self._on_sigterm)
        self._print({"stage": "load"})

    def _on_sigterm(self, _number, _frame):
        self.stop_asked = True  # obeyed at the next step boundary, where saving is safe

    # --- stages and counters

    def stage(self, name):
        """Enter a stage (load, train, eval, save, export); its clock runs until the next one."""
        if name == self._stage:
            return
        self._close_stage()
        self._stage = name
        self._line_at = (time.monotonic(), self.tokens, self.samples)
        self._print({"stage": name})

    def _close_stage(self):
        now = time.monotonic()
        spent = now - self._stage_since
        self.stage_seconds[self._stage] = round(self.stage_seconds.get(self._stage, 0.0) + spent, 3)
        self.train_seconds += spent if self._stage == "train" else 0.0
        self._stage_since = now

    def count(self, *, tokens=0, samples=0):
        """Add what one optimizer step has seen."""
        self.tokens += tokens
        self.samples += samples

    def state(self):
        """Give what a checkpoint must carry, so that a resumed run counts on instead of anew."""
        self._close_stage()
        return {
            "tokens": self.tokens,
            "samples": self.samples,
            "train_seconds": self.train_seconds,
            "stage_seconds": dict(self.stage_seconds),
            "peak_memory_gib": self.peak_memory_gib(),
            "memory_gib": dict(self._gpu_gib),
            "metrics": {key: _plain(value) for key, value in self.metrics.items()},
        }

    def restore(self, state):
        """Take the counters of a checkpoint over; the time that this process spent so far is added to them."""
        self.tokens, self.samples = state["tokens"], state["samples"]
        self.train_seconds += state["train_seconds"]
        for name, seconds in state["stage_seconds"].items():
            self.stage_seconds[name] = round(self.stage_seconds.get(name, 0.0) + seconds, 3)
        self._peak_gib = max(self._peak_gib, state["peak_memory_gib"])
        kept = state.get("memory_gib", {})
        self._gpu_gib = {key: max(kept.get(key, 0.0), self._gpu_gib.get(key, 0.0)) for key in {*kept, *self._gpu_gib}}
        self.metrics = {**state["metrics"], **self.metrics}
        self._line_at = (time.monotonic(), self.tokens, self.samples)

    # --- metrics lines

    def step(self, step, *, loss, **values):
        """Report one optimizer step: a line every `log_every_steps`, at the first and at the last.

        A loss that is not finite gets its line at once and ends the run with 3.
        """
        self.metrics.update({"loss": loss, **values})
        finite = math.isfinite(loss)
        due = step == 1 or step % self.log_every_steps == 0 or step == self.total_steps or self._probed > 0
        self._probed -= 1
        if due or not finite:
            self.line(step, loss=loss, **values)
        if not finite:
            self.summary()
            leave(EXIT_DIVERGED, f"the loss is {_plain(loss)} at step {step}; a lower learning_rate often helps")

    def line(self, step, **values):
        """Print a metrics line for `step` whatever it is; None values are left out."""
        self.metrics.update(values)
        known = {key: value for key, value in values.items() if value is not None}
        self._print({"step": step, "total_steps": self.total_steps, "stage": self._stage, **known, **self._measured()})

    def _measured(self):
        now, (since, tokens, samples) = time.monotonic(), self._line_at
        self._line_at = (now, self.tokens, self.samples)
        seconds = max(now - since, 1e-9)
        done = {"tokens": self.tokens} if self.tokens else {}
        if self.samples:
            done["samples"] = self.samples
        new_tokens, new_samples = self.tokens - tokens, self.samples - samples
        if new_tokens:
            done["tokens_per_second"] = round(new_tokens / seconds, 1)
        if new_samples:
            done["samples_per_second"] = round(new_samples / seconds, 1)
        if new_tokens or new_samples:
            done["flop_utilisation"] = self._utilisation(new_tokens, new_samples, seconds)
        return {**done, "peak_memory_gib": round(self.peak_memory_gib(), 3)}

    def _print(self, values):
        line = {key: _plain(value) for key, value in values.items()}
        if CHAIN:
            tell_chain("at", line.get("step", 0))
            line |= {key: line[key] + CHAIN["base"] for key in ("step", "total_steps") if key in line}
            line["stage"] = f"{CHAIN['name']}/{line['stage']}"
        say("::metrics " + json.dumps({**line, "time": round(time.time(), 3)}))

    # --- what is measured

    def peak_memory_gib(self):
        """Give the peak so far: memory allocated on the GPU, or the resident set of the process where there is none."""
        if self.gpu.is_cuda:
            import torch

            now = torch.cuda.max_memory_allocated() / GIB
            self._look_at_gpu(torch.cuda)
        else:
            unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB on Linux
            now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
        self._peak_gib = max(self._peak_gib, now)
        return self._peak_gib

    def _look_at_gpu(self, cuda):
        """Keep the peaks of three figures: tensors, what torch's allocator holds, all that is taken on the card."""
        free, total = cuda.mem_get_info()
        allocated, reserved = cuda.max_memory_allocated(), cuda.max_memory_reserved()
        now = {"allocated": allocated, "reserved": reserved, "process": total - free}
        self._gpu_gib = {key: max(size / GIB, self._gpu_gib.get(key, 0.0)) for key, size in now.items()}

    def _utilisation(self, tokens, samples, seconds):
        if not self.gpu.peak_flops or seconds <= 0:
            return 0  # an unknown device: not guessed
        done = self.flops_per_token * tokens if self.flops_per_token else self.flops_per_sample * samples
        return round(done / seconds / self.gpu.peak_flops, 4)

    # --- the end

    def summary(self):
        """Write summary.json: the facts for result.json."""
        self._close_stage()
        seconds = self.train_seconds
        content = {
            "metrics": {key: _plain(value) for key, value in self.metrics.items() if value is not None},
            "versions": versions(),
            "device": self.gpu.name,
            "stage_seconds": {name: round(spent, 3) for name, spent in self.stage_seconds.items()},
            "peak_memory_gib": round(self.peak_memory_gib(), 3),
            "memory_gib": {name: round(size, 3) for name, size in self._gpu_gib.items()},
            "micro_batch": self.micro_batch,
            "peak_memory_of": "GPU allocations" if self.gpu.is_cuda else "the process's resident set",
            "tokens_per_second": round(self.tokens / seconds, 1) if seconds else 0,
            "samples_per_second": round(self.samples / seconds, 1) if seconds else 0,
            "flop_utilisation": self._utilisation(self.tokens, self.samples, seconds),
        }
        write_json(self.folder / "summary.json", content)

    def finish(self, metrics=None):
        """Write the summary of a run that is done; `metrics` are added to the last values seen."""
        self.metrics.update(metrics or {})
        self.summary()

    def leave_stopped(self, step):
        """End the run with 5, after SIGTERM was obeyed and the checkpoint is on the disk."""
        self.summary()
        leave(EXIT_STOPPED, f"stopped at step {step} as asked: the checkpoint is saved")


def _plain(value):
    """Spell a number that JSON has no word for: "nan" or "inf"."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf"
    return value
