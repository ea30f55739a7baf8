"""What the plain loops share: how many steps, which rows in which step, which learning rate, and memory that runs out.

Everything is a function of (config, step), so that a resumed run needs no state for it. Steps count from 1.
"""

import functools
import math
from pathlib import Path

import torch
from device import is_out_of_memory


def steps_of(row_count, config):
    """Give (steps an epoch, steps of the whole run); the last batch of an epoch may be smaller."""
    per_epoch = math.ceil(row_count / rows_a_step(config))
    total = max(1, round(config["epochs"] * per_epoch))
    return per_epoch, min(total, config["max_steps"] or total)


def rows_a_step(config):
    """Give the effective batch: what one optimizer step sees."""
    return config["batch_size"] * config["gradient_accumulation"]


def rows_of(step, row_count, config):
    """Give the row numbers of one step: a fresh shuffle each epoch, from (seed, epoch) alone."""
    per_epoch, _total = steps_of(row_count, config)
    epoch, position = divmod(step - 1, per_epoch)
    order = _order(row_count, config["seed"] * 100_003 + epoch)
    return order[position * rows_a_step(config) :][: rows_a_step(config)]


@functools.lru_cache(maxsize=1)  # one shuffle an epoch, not one a step
def _order(row_count, seed):
    return torch.randperm(row_count, generator=torch.Generator().manual_seed(seed))


def learning_rate(step, total_steps, config):
    """Give the rate of one step: a linear warmup, then linear or cosine down to nothing, or constant."""
    peak, warmup_steps = config["learning_rate"], round(config["warmup"] * total_steps)
    if step <= warmup_steps:
        return peak * step / warmup_steps
    left = 1 - (step - warmup_steps - 1) / max(1, total_steps - warmup_steps)  # 1 at the first step after the warmup
    shape = {"constant": 1.0, "linear": left, "cosine": 0.5 * (1 - math.cos(math.pi * left))}
    return peak * shape[config["schedule"]]


def backward(rows, micro, mean_loss, scaler, optimizer):
    """Add up the gradient of the mean loss over `rows`, `micro` rows at a time; gives (loss, micro).

    Out of memory: the micro-batch halves and the accumulation doubles, down to one row. Each part weighs as many rows
    as it has, so that the mean, and what is learnt, stay the same.
    """
    while True:
        optimizer.zero_grad(set_to_none=True)
        try:
            loss = torch.zeros(())
            for part in rows.split(micro):
                share = mean_loss(part) * (len(part) / len(rows))
                scaler.scale(share).backward()
                loss = loss + share.detach().float().cpu()
            return loss.item(), micro
        except RuntimeError as error:
            if micro == 1 or not is_out_of_memory(error):
                raise
        # Outside the handler: its traceback would keep the failed pass's tensors alive.
        micro = max(1, micro // 2)
        print(f"out of memory: micro-batch halved to {micro}, accumulation doubled to {math.ceil(len(rows) / micro)}")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def optimizer_step(weights, optimizer, scaler, rate, max_grad_norm):
    """Clip, step and give the gradient's norm before clipping."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(weights, max_grad_norm)
    scaler.step(optimizer)
    scaler.update()
    return norm.item()


def write_card(folder, title, about, facts):
    """Write the README.md of an artifact: what it is and the run's facts; nothing of the user's machine."""
    lines = [f"# {title}", "", about, "", *(f"- {name}: {value}" for name, value in facts.items() if value is not None)]
    (Path(folder) / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
