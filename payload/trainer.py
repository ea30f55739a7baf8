"""What the scripts on transformers' Trainer share: its arguments, its voice, whole checkpoints, memory that runs out.

    made = trainer.run(config, gpu, report, build)      # build(micro) -> Trainer, a fresh one each time

Trainer saves into checkpoints/.staging; a save that is whole is sealed and moved (checkpoint.py). Out of memory: all
is built anew with half the micro-batch, from the newest whole checkpoint; an optimizer step sees the same rows.
"""

import errno
import gc
import json
import math
import warnings

import checkpoint
import device
import torch
from report import EXIT_DISK, leave, write_json
from torch.utils.data import Sampler
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_callback import ProgressCallback
from transformers.utils import logging

COUNTERS = "report.json"  # in each checkpoint: what was counted until then
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def rows_a_step(config):
    """Give the effective batch: what one optimizer step sees."""
    return config["batch_size"] * config["gradient_accumulation"]


def arguments(config, gpu, micro):
    """Give the keyword arguments that TrainingArguments and SFTConfig have in common."""
    return {
        "output_dir": str(checkpoint.STAGING),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": rows_a_step(config) // micro,
        "per_device_eval_batch_size": micro,
        "num_train_epochs": math.ceil(config["epochs"]),  # max_steps is the limit, set when the rows are counted
        "learning_rate": config["learning_rate"],
        "lr_scheduler_type": SCHEDULES[config["schedule"]],
        "weight_decay": config["weight_decay"],
        "max_grad_norm": config["max_grad_norm"],
        "optim": gpu.hf_optimizer,
        "bf16": gpu.dtype == torch.bfloat16,  # autocast over the weights' own dtype
        "fp16": gpu.dtype == torch.float16,
        "use_cpu": not gpu.is_cuda,
        "seed": config["seed"],
        "data_seed": config["seed"],  # the order of rows is a function of (seed, epoch)
        "save_strategy": "steps",
        "save_steps": config["checkpoint_every_steps"],
        "logging_steps": 1,  # report.py decides which lines are printed
        "logging_nan_inf_filter": False,  # a loss that is not finite must be seen
        "include_num_input_tokens_seen": "non_padding",
        "disable_tqdm": True,
        "report_to": "none",
    }


def run(config, gpu, report, build):
    """Train to the end, or leave as the signals and the exit codes say; gives the Trainer with the last weights."""
    quiet()
    micro, first = config["batch_size"], True
    while True:
        device.seed_everything(config["seed"])  # a head's first weights, an adapter's: the same at every start
        made = build(micro)
        try:
            _train(made, config, report, first=first)
        except RuntimeError as error:
            if micro == 1 or not device.is_out_of_memory(error):
                raise
        else:
            return made
        # Outside the handler: its traceback would keep the failed pass's tensors alive.
        made, first = None, False
        free(gpu)
        micro = half(micro, rows_a_step(config))
        accumulation = rows_a_step(config) // micro
        print(f"out of memory: micro-batch halved to {micro}, accumulation raised to {accumulation}", flush=True)


def quiet():
    """Keep the libraries' advice to people who write Python out of the log."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)  # TRL still asks transformers by an old name


def free(gpu):
    """Give the memory of what was let go of back to the device."""
    gc.collect()
    if gpu.is_cuda:
        torch.cuda.empty_cache()


def half(micro, rows):
    """Give the largest micro-batch, at most half of this one, that divides the rows of a step."""
    return next(smaller for smaller in range(max(1, micro // 2), 0, -1) if rows % smaller == 0)


def _train(made, config, report, *, first):
    """Run one Trainer from the newest whole checkpoint, if there is one; `first` of this process, or after an OOM."""
    row_count = len(made.train_dataset)
    per_epoch = math.ceil(row_count / rows_a_step(config))
    total = max(1, round(config["epochs"] * per_epoch))
    total = min(total, config["max_steps"] or total)
    made.args.max_steps = report.total_steps = total
    made.args.warmup_steps = round(config["warmup"] * total)
    print(f"train: {row_count} rows, {rows_a_step(config)} a step, {per_epoch} steps an epoch, {total} in all")
    micro, accumulation = made.args.per_device_train_batch_size, made.args.gradient_accumulation_steps
    report.micro_batch = micro
    print(f"train: micro-batch {micro}, accumulation {accumulation}", flush=True)
    voice = Voice(report, made, per_epoch, config)
    made.remove_callback(PrinterCallback)
    made.remove_callback(ProgressCallback)
    made.add_callback(voice)

    found = checkpoint.newest_whole()
    report.tokens = report.samples = 0
    if found:
        counters = json.loads((found / COUNTERS).read_text(encoding="utf-8"))
        report.metrics.update(counters["metrics"])  # a run killed after its last step has no other word of them
        if first:  # after an OOM the clocks are this process's own already
            report.restore(counters)
        report.tokens, report.samples = counters["tokens"], counters["samples"]
    report.stage("train")
    if found and checkpoint.step_of(found) >= total:  # killed after the last step: nothing is left to train
        load(made, found)
        made.state = made.state.load_from_json(str(found / "trainer_state.json"))
        return
    with disk_full_is_4():
        made.train(resume_from_checkpoint=str(found) if found else None)


def load(made, folder):
    """Put the weights of a checkpoint, or its adapters, into the Trainer's model."""
    made._load_from_checkpoint(str(folder))  # noqa: SLF001 (the one that knows whole, sharded and adapter weights)


class disk_full_is_4:  # noqa: N801 (reads as the sentence it is)
    """Leave with 4 when the disk fills up while Trainer writes: safetensors and torch each have their own error."""

    def __enter__(self):
        """Do nothing yet."""

    def __exit__(self, kind, error, _traceback):
        """Look whether the error says that the disk is full."""
        if error is None or isinstance(error, SystemExit):
            return
        words = ("No space left on device", "Disk quota exceeded", "file write failed")
        full = getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}
        if full or any(word in str(error) for word in words):
            leave(EXIT_DISK, "the disk filled up while saving a checkpoint: older checkpoints are untouched")


class Voice(TrainerCallback):
    """Carries what Trainer does to report.py and checkpoint.py, and SIGTERM back to Trainer."""

    def __init__(self, report, made, per_epoch, config):
        self.report = report
        self.made = made
        self.rows = rows_a_step(config)
        self.per_epoch = per_epoch
        self.evaluates = made.args.eval_strategy != "no"
        self.tokens_seen = 0  # Trainer's own count, which a checkpoint carries

    def on_train_begin(self, _args, state, _control, **_):
        """Take Trainer's count of tokens as it is now."""
        self.tokens_seen = state.num_input_tokens_seen

    def on_step_end(self, _args, state, control, **_):
        """Count the step; decide what follows it: SIGTERM saves, an epoch's end evaluates before it saves."""
        position = (state.global_step - 1) % self.per_epoch
        samples = min(self.rows, len(self.made.train_dataset) - position * self.rows)
        self.report.count(tokens=int(state.num_input_tokens_seen - self.tokens_seen), samples=samples)
        self.tokens_seen = state.num_input_tokens_seen
        if self.report.stop_asked:
            control.should_save = True
        if self._evaluation_follows(state):
            # A checkpoint here would know nothing of the evaluation, and a resumed run would skip it.
            control.should_save = False
        return control

    def _evaluation_follows(self, state):
        ends = state.global_step % self.per_epoch == 0 or state.global_step == state.max_steps
        return self.evaluates and ends

    def on_log(self, _args, state, control, logs=None, **_):
        """Pass a step's numbers on."""
        if "loss" in logs:
            rest = {"lr": logs["learning_rate"], "grad_norm": logs.get("grad_norm"), "epoch": round(state.epoch, 4)}
            self.report.step(state.global_step, loss=logs["loss"], **rest)
        if control.should_save:
            self._before_save()

    def on_prediction_step(self, _args, _state, _control, **_):
        """Say that an evaluation runs."""
        self.report.stage("eval")

    def on_evaluate(self, _args, state, control, metrics=None, **_):
        """Report the evaluation, then save, so that best and next carry it."""
        known = {"eval_loss": metrics["eval_loss"], "accuracy": metrics.get("eval_accuracy")}
        self.report.line(state.global_step, **known)
        control.should_save = True
        self._before_save()
        return control

    def _before_save(self):
        self.report.stage("save")
        trained = [weight for weight in self.made.model.parameters() if weight.requires_grad]
        adapters = hasattr(self.made.model, "peft_config")
        saved = trained if adapters else list(self.made.model.parameters())
        state = self.made.optimizer.state_dict()["state"] if self.made.optimizer else {}
        checkpoint.ensure_room(sum(weight.nbytes for weight in saved) + checkpoint.bytes_of(state))

    def on_save(self, _args, state, _control, **_):
        """Seal what Trainer wrote; leave here when SIGTERM asked for it."""
        made = checkpoint.STAGING / f"checkpoint-{state.global_step}"
        write_json(made / COUNTERS, {**self.report.state(), "metrics": self.report.metrics})
        protect = (state.best_global_step,) if state.best_global_step else ()
        checkpoint.seal(made, state.global_step, protect=protect)
        self.report.stage("train")
        if self.report.stop_asked and state.global_step < state.max_steps:
            self.report.leave_stopped(state.global_step)


class SimilarLengths(Sampler):
    """An order of rows in which those of one step are of similar length, so that little is padded.

    A function of (seed, epoch) alone, as exact resume needs: transformers' own "group_by_length" draws from the global
    generator, and a resumed run would see other rows.
    """

    def __init__(self, lengths, rows, seed):
        self.lengths, self.rows, self.seed, self.epoch = lengths, rows, seed, 0

    def __len__(self):
        """Count the rows."""
        return len(self.lengths)

    def set_epoch(self, epoch):
        """Choose the epoch whose order comes next; accelerate calls it."""
        self.epoch = epoch

    def __iter__(self):
        """Shuffle, sort within stretches of fifty steps, shuffle the steps; the smaller last one stays last."""
        draw = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=draw).tolist()
        stretch = 50 * self.rows
        steps = []
        for start in range(0, len(order), stretch):
            near = sorted(order[start : start + stretch], key=lambda row: self.lengths[row], reverse=True)
            steps += [near[first : first + self.rows] for first in range(0, len(near), self.rows)]
        whole = len(steps) - (len(order) % self.rows > 0)
        shuffled = torch.randperm(whole, generator=draw).tolist()
        return iter([row for step in [*shuffled, *range(whole, len(steps))] for row in steps[step]])
