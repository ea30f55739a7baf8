"""Train a small network in a plain PyTorch loop: the teaching case, and what to start your own from.

    python payload/train_loop.py config.json        # inside the job's folder; {} is a config that works

Rows are numbers: CSV or JSONL with one field for the class (`data.label_field`), every other field a feature; without
`data`, a made-up problem. Reads config.json and data/, writes checkpoints/, artifacts/ and summary.json.
"""

import csv
import itertools
import json
import sys
from pathlib import Path

import checkpoint
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


def read_rows(path, label_field):
    """Read numeric rows: (features, labels as text). Leaves with 2, naming the row, on what is no number."""
    path = Path(path)
    if not path.is_file():
        leave(EXIT_CONFIG, f"{path}: no such file")
    with path.open(encoding="utf-8", newline="") as file:
        rows = (
            list(csv.DictReader(file)) if path.suffix == ".csv" else [json.loads(line) for line in file if line.strip()]
        )
    if not rows:
        leave(EXIT_CONFIG, f"{path}: no rows")
    names = [name for name in rows[0] if name != label_field]
    features, labels = [], []
    for number, row in enumerate(rows, 1):
        try:
            labels.append(str(row[label_field]))
            features.append([float(row[name]) for name in names])
        except KeyError as error:
            leave(EXIT_CONFIG, f"{path}: row {number} has no field {error}")
        except (TypeError, ValueError):
            leave(EXIT_CONFIG, f"{path}: row {number} holds something that is no number: {row}")
    return features, labels


def main():
    """Train, evaluate, save: from top to bottom."""
    # --- config and device: the reasons of each choice go to the log
    config = settings.read(sys.argv[1] if len(sys.argv) > 1 else "config.json", "loop", DEFAULTS)
    import device  # after the config's check: torch takes seconds to load
    import torch
    from safetensors.torch import save_file
    from torch.nn.functional import cross_entropy

    device.seed_everything(config["seed"])
    gpu = device.choose(config)
    report = Report(gpu, log_every_steps=config["log_every_steps"])

    # --- data: x (rows, features) float32, y (rows,) class numbers
    layers, data = config["layers"], config["data"]
    if data is None:
        made = torch.Generator().manual_seed(20)  # fixed: everybody gets the same problem
        classes = [str(number) for number in range(layers[-1])]
        centres = torch.randn(layers[-1], layers[0], generator=made)
        y = torch.randint(layers[-1], (config["rows"],), generator=made)
        x = centres[y] + 0.5 * torch.randn(len(y), layers[0], generator=made)  # clouds far enough apart to tell
        x_eval, y_eval = x[: int(HELD_OUT * len(y))], y[: int(HELD_OUT * len(y))]
        x, y = x[len(y_eval) :], y[len(y_eval) :]
    else:
        features, labels = read_rows(data["train"], data["label_field"])
        features_eval, labels_eval = read_rows(data["eval"], data["label_field"]) if data["eval"] else ([], [])
        classes = sorted(set(labels) | set(labels_eval))
        if len(features[0]) != layers[0] or len(classes) > layers[-1]:
            leave(
                EXIT_CONFIG,
                f"{data['train']}: {len(features[0])} features and {len(classes)} classes; set layers to that",
            )
        x, y = torch.tensor(features), torch.tensor([classes.index(label) for label in labels])
        x_eval, y_eval = torch.tensor(features_eval), torch.tensor([classes.index(label) for label in labels_eval])
        if not data["eval"]:
            order = torch.randperm(len(y), generator=torch.Generator().manual_seed(config["seed"]))
            held = int(data["eval_fraction"] * len(y))
            x_eval, y_eval, x, y = x[order[:held]], y[order[:held]], x[order[held:]], y[order[held:]]
    x, y, x_eval, y_eval = (part.to(gpu.torch_device) for part in (x, y, x_eval, y_eval))
    mean, spread = x.mean(0), x.std(0).clamp_min(1e-6)
    x, x_eval = (x - mean) / spread, (x_eval - mean) / spread if len(y_eval) else x_eval
    print(f"data: {len(y)} rows to train on, {len(y_eval)} held out, {len(classes)} classes")

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
