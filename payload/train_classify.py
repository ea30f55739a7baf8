"""Fine-tune a pretrained encoder with a fresh head to tell classes apart; the best epoch's weights are kept.

    python payload/train_classify.py config.json                              # inside the job's folder
    python payload/train_classify.py --evaluate artifacts data/eval.jsonl     # a finished model, in a new process

Rows have a text and a label (`data.text_field`, `data.label_field`). Accuracy is on held-out rows and stands beside
that of always saying the commonest class. Writes checkpoints/, artifacts/ (safetensors, tokenizer, card), summary.json.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import cards
import data
import export
import settings
import weights
from report import EXIT_CONFIG, Report, leave

DEFAULTS = {
    **settings.COMMON,
    "model": settings.REQUIRED,
    "revision": None,
    "data": settings.REQUIRED,
    "max_length": 256,
    "epochs": 3.0,
    "batch_size": 16,
    "push": None,
}
EVAL_ROWS = 16  # in one batch of the last evaluation; the same in a new process, so that the numbers are


def predict(model, tokenizer, texts, gpu):
    """Give the number of the likeliest class of each text."""
    import torch

    model.eval()
    answers = [0] * len(texts)
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))  # little padding
    for start in range(0, len(texts), EVAL_ROWS):
        chosen = order[start : start + EVAL_ROWS]
        batch = tokenizer([texts[row] for row in chosen], truncation=True, padding=True, return_tensors="pt")
        inputs = {name: batch[name].to(gpu.torch_device) for name in ("input_ids", "attention_mask")}  # (rows, tokens)
        with torch.no_grad(), gpu.autocast():
            logits = model(**inputs).logits  # (rows, classes)
        for row, answer in zip(chosen, logits.argmax(-1).tolist(), strict=True):
            answers[row] = answer
    return answers


def accuracy(model, tokenizer, rows, config, gpu):
    """Give the share of rows whose class the model names."""
    answers = predict(model, tokenizer, [row.fields[config["text_field"]] for row in rows], gpu)
    names = [model.config.id2label[answer] for answer in answers]
    wanted = [data.label_of(row, config["label_field"]) for row in rows]
    return sum(name == label for name, label in zip(names, wanted, strict=True)) / len(rows)


def evaluate(folder, file, config):
    """Load a finished model and print its accuracy on a file of labelled rows."""
    rows = data.check_labelled(data.read(file, config), config)
    import device
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    gpu = device.choose({})
    model = AutoModelForSequenceClassification.from_pretrained(weights.find(folder).source).to(gpu.torch_device)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    print(json.dumps({"rows": len(rows), "accuracy": accuracy(model, tokenizer, rows, config, gpu)}))


def main():
    """Data, model, training, the best epoch, artifacts: from top to bottom."""
    if sys.argv[1:2] == ["--evaluate"]:
        if len(sys.argv) not in {4, 6}:
            leave(EXIT_CONFIG, "usage: train_classify.py --evaluate FOLDER FILE [TEXT_FIELD LABEL_FIELD]")
        fields = dict(zip(("text_field", "label_field"), sys.argv[4:], strict=False))
        evaluate(sys.argv[2], sys.argv[3], {**settings.DATA, **fields})
        return

    # --- config and data, before torch is loaded
    config = settings.read(sys.argv[1] if len(sys.argv) > 1 else "config.json", "classify", DEFAULTS)
    cards.keep_one()
    rows, held_out = data.load(config["data"], config["seed"], data.check_labelled)
    text, label = config["data"]["text_field"], config["data"]["label_field"]
    classes = data.classes_of(rows, label)
    data.check_known(held_out, label, classes)
    found = weights.find(config["model"], config["revision"])
    export.check_push(config["push"])

    # --- device
    import checkpoint
    import device
    import torch
    import trainer
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    gpu = device.choose(config, model_class=export.class_of(found, "SequenceClassification"))
    report = Report(gpu, log_every_steps=config["log_every_steps"])

    # --- tokens
    tokenizer = AutoTokenizer.from_pretrained(found.source, revision=found.revision)
    tokenizer.model_max_length = config["max_length"]  # saved with it, so that the artifact cuts where training did
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # encoders have one; decoders used as encoders may not

    def encode(some):
        coded = tokenizer([row.fields[text] for row in some], truncation=True, max_length=config["max_length"])
        labels = [classes.index(data.label_of(row, label)) for row in some]
        return [
            {"input_ids": ids, "attention_mask": mask, "labels": number}
            for ids, mask, number in zip(coded["input_ids"], coded["attention_mask"], labels, strict=True)
        ]

    train_set, eval_set = encode(rows), encode(held_out) if held_out else []

    class ClassTrainer(Trainer):
        """Trainer whose steps hold rows of similar length, in an order that a resumed run repeats."""

        def _get_train_sampler(self, *_):
            lengths = [len(row["input_ids"]) for row in train_set]
            return trainer.SimilarLengths(lengths, trainer.rows_a_step(config), config["seed"])

    def mean_loss(outputs, labels, num_items_in_batch=None):
        # The models' own loss is each micro-batch's mean, and Trainer 5.23 adds those up undivided: accumulation over
        # four would learn four times as fast (seen 2026-11). Dividing by the rows of the step is right for any split.
        total = torch.nn.functional.cross_entropy(outputs.logits.float(), labels, reduction="sum")
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    # --- model: float32 weights, since AdamW's small steps are lost in anything shorter
    def build(micro):
        model = AutoModelForSequenceClassification.from_pretrained(
            found.source,
            revision=found.revision,
            num_labels=len(classes),
            id2label=dict(enumerate(classes)),
            label2id={name: number for number, name in enumerate(classes)},
            ignore_mismatched_sizes=True,  # a head for other classes gives way to a fresh one
            dtype=torch.float32,
            attn_implementation=gpu.attention,
        )
        model.config.pad_token_id = tokenizer.pad_token_id
        size = sum(weight.numel() for weight in model.parameters())
        looked_up = model.get_input_embeddings().weight.numel()  # a lookup, no multiplication
        report.flops_per_token = 6 * (size - looked_up)
        print(f"model: {size:,} parameters, all trained; {len(classes)} classes: {', '.join(classes)}")
        evaluation = {"eval_strategy": "epoch", "metric_for_best_model": "accuracy", "greater_is_better": True}
        return ClassTrainer(
            model,
            TrainingArguments(**trainer.arguments(config, gpu, micro), **(evaluation if eval_set else {})),
            train_dataset=train_set,
            eval_dataset=eval_set or None,
            processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_loss_func=mean_loss,
            compute_metrics=lambda seen: {"accuracy": float((seen.predictions.argmax(-1) == seen.label_ids).mean())},
        )

    made = trainer.run(config, gpu, report, build)

    # --- the best epoch, judged once more as a new process would
    facts = {"rows": len(rows), "steps": made.state.global_step, "loss": report.metrics.get("loss")}
    metrics = {}
    if held_out:
        best = made.state.best_global_step
        trainer.load(made, checkpoint.FOLDER / f"step-{best}")
        report.stage("eval")
        metrics["accuracy"] = accuracy(made.model, tokenizer, held_out, config["data"], gpu)
        # The best that saying one and the same class could do on these very rows.
        commonest, times = Counter(data.label_of(row, label) for row in held_out).most_common(1)[0]
        metrics["majority_accuracy"] = times / len(held_out)
        facts |= {"rows held out": len(held_out), "best step": best, **metrics}
        print(f"eval: best at step {best}, accuracy {metrics['accuracy']:.4f}", end=", ")
        print(f"always saying {commonest!r} gives {metrics['majority_accuracy']:.4f}", flush=True)

    # --- artifacts
    report.stage("export")
    about = f"Tells apart: {', '.join(classes)}. Fine-tuned from {found.label} with a fresh head."
    with checkpoint.written_aside("artifacts") as folder:
        made.model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        export.write_card(folder, "A text classifier", about, {**facts, **export.facts_of(config, report)}, found)
    export.push(Path("artifacts"), config["push"])
    report.finish(metrics)
    print(f"done: {made.state.global_step} steps, the model lies in artifacts/")


if __name__ == "__main__":
    main()
