"""Train a small network in a plain PyTorch loop: the teaching case, and what to start your own from.

    python payload/train_loop.py config.json        # inside the job's folder; {} is a config that works

Rows are numbers: one field is the class (`data.label_field`), every other a feature; without `data`, a made-up problem.
Reads config.json and data/, writes checkpoints/, artifacts/ and summary.json.
"""

import itertools
import json
import math
import sys

import checkpoint
import data
import plain
import settings
from report import EXIT_CONFIG, Report, leave

DEFAULTS = {
    **settings.COMMON,
    "data": None,
    "layers": [64, 128, 10],  # inputs, hidden…, classes
    "rows": 4096,  # of the made-up problem
    "batch_size": 64,
    "learning_rate": 1e-3,
    "epochs": 10.0,
}
HELD_OUT = 0.2  # of the made-up problem


def check_numeric(rows, config):
    """Check that every row has a class and, under the first row's other names, numbers."""
    names = [name for name in rows[0].fields if name != config["label_field"]]
    return [row._replace(fields=numbers_of(row, names, config["label_field"])) for row in rows]


def numbers_of(row, names, label_field):
    """Give one row as {"x": numbers, "y": the class's name}."""
    y = data.label_of(row, label_field)
    try:
        x = [float(row.fields[name]) for name in names]
    except KeyError as error:
        row.fail(f"no field {error}")
    except (TypeError, ValueError):
        row.fail("a field holds no number")
    if not all(map(math.isfinite, x)):
        row.fail("a field holds no finite number")
    return {"x": x, "y": y}


def main():
    """Train, evaluate, save: from top to bottom."""
    # --- config and rows, before torch is loaded: what is wrong with them is said within a blink
    config = settings.read(sys.argv[1] if len(sys.argv) > 1 else "config.json", "loop", DEFAULTS)
    layers = config["layers"]
    if config["data"]:
        rows, held_out = data.load(config["data"], config["seed"], check_numeric)
        classes, width = data.classes_of(rows, "y"), len(rows[0].fields["x"])
        data.check_known(held_out, "y", classes)
        if width != layers[0] or len(classes) > layers[-1]:
            leave(EXIT_CONFIG, f"{rows[0].file}: {width} features and {len(classes)} classes, but layers is {layers}")

    # --- device: the reasons of each choice go to the log
    import device
    import torch
    from safetensors.torch import save_file
    from torch.nn.functional import cross_entropy

    device.seed_everything(config["seed"])
    gpu = device.choose(config)
    report = Report(gpu, log_every_steps=config["log_every_steps"])

    # --- data: x (rows, features) float32, y (rows,) class numbers
    if config["data"] is None:
        made = torch.Generator().manual_seed(20)  # fixed: everybody gets the same problem
        classes = [str(number) for number in range(layers[-1])]
        centres = torch.randn(layers[-1], layers[0], generator=made)
        y = torch.randint(layers[-1], (config["rows"],), generator=made)
        x = centres[y] + 0.5 * torch.randn(len(y), layers[0], generator=made)  # clouds far enough apart to tell
        held = int(HELD_OUT * len(y))
        x_eval, y_eval, x, y = x[:held], y[:held], x[held:], y[held:]
        print(f"data: a made-up problem, {len(y)} rows to train on, {held} held out, {len(classes)} classes")
    else:
        x, x_eval = (torch.tensor([row.fields["x"] for row in part]) for part in (rows, held_out))
        y, y_eval = (torch.tensor([classes.index(row.fields["y"]) for row in part]) for part in (rows, held_out))
    x, y, x_eval, y_eval = (part.to(gpu.torch_device) for part in (x, y, x_eval, y_eval))
    mean, spread = x.mean(0), x.std(0).clamp_min(1e-6)
    x, x_eval = (x - mean) / spread, (x_eval - mean) / spread if len(y_eval) else x_eval

    # --- model, optimizer, steps
    parts = []
    for inputs, outputs in itertools.pairwise(layers):
        parts += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    model = torch.nn.Sequential(*parts[:-1]).to(gpu.torch_device)  # no ReLU after the last layer
    weights = list(model.parameters())
    optimizer = device.make_optimizer(
        gpu, weights, learning_rate=config["learning_rate"], weight_decay=config["weight_decay"]
    )
    scaler = gpu.scaler()
    per_epoch, total = plain.steps_of(len(y), config)
    micro = config["batch_size"]
    size = sum(weight.numel() for weight in weights)
    report.total_steps, report.flops_per_sample = total, 6 * size  # 2 forward, 4 backward a weight
    print(f"model: {'-'.join(map(str, layers))}, {size:,} parameters; {total} steps, {per_epoch} an epoch")

    # --- carry on from the newest whole checkpoint
    start, found = 0, checkpoint.newest_whole()
    if found:
        state = checkpoint.load(found, gpu.torch_device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        start, micro = state["step"], state["micro"]
        report.restore(state["report"])

    def save(step):
        report.stage("save")
        state = {"step": step, "micro": micro, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
        checkpoint.save(step, {**state, "scaler": scaler.state_dict(), "report": report.state()})
        report.stage("train")

    def mean_loss(rows):
        with gpu.autocast():
            return cross_entropy(model(x[rows]), y[rows])

    def accuracy():
        model.eval()
        with torch.no_grad(), gpu.autocast():
            right = (model(x_eval).argmax(1) == y_eval).float().mean().item()
        model.train()
        return right

    # --- train
    report.stage("train")
    for step in range(start + 1, total + 1):
        rows = plain.rows_of(step, len(y), config).to(gpu.torch_device)
        loss, micro = plain.backward(rows, micro, mean_loss, scaler, optimizer)
        rate = plain.learning_rate(step, total, config)
        norm = plain.optimizer_step(weights, optimizer, scaler, rate, config["max_grad_norm"])
        report.count(samples=len(rows))
        report.step(step, loss=loss, lr=rate, grad_norm=norm, epoch=round(step / per_epoch, 4))
        if len(y_eval) and (step % per_epoch == 0 or step == total):
            report.stage("eval")
            report.line(step, accuracy=accuracy())
            report.stage("train")
        if step % config["checkpoint_every_steps"] == 0 or step == total or report.stop_asked:
            save(step)
        if report.stop_asked and step < total:
            report.leave_stopped(step)

    # --- evaluate: against always saying the training rows' most common class
    result = {}
    if len(y_eval):
        report.stage("eval")
        common = y.bincount().argmax()
        majority = (y_eval == common).float().mean().item()
        result = {"accuracy": accuracy(), "majority_accuracy": majority}
        print(f"held-out accuracy {result['accuracy']:.4f}, majority class {majority:.4f}")
        report.line(total, **result)

    # --- artifacts
    report.stage("export")
    facts = {"steps": total, "rows": len(y), "loss": report.metrics.get("loss"), **result, "seed": config["seed"]}
    about = (
        f"Linear layers with ReLU between: {'-'.join(map(str, layers))}. Inputs are `(x - input_mean) / input_spread`; "
        "the n-th layer from 0 is `{2n}.weight` and `{2n}.bias`."
    )
    with checkpoint.written_aside("artifacts") as folder:
        tensors = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
        save_file({**tensors, "input_mean": mean.cpu(), "input_spread": spread.cpu()}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"layers": layers, "classes": classes}, indent=1) + "\n")
        plain.write_card(folder, "A small network", about, facts)
    report.finish(result)
    print(f"done: {total} steps, the model lies in artifacts/")


if __name__ == "__main__":
    main()
