"""Fine-tune a causal model on examples: every weight, LoRA, LoRA on 8 bits, or QLoRA on 4 bits.

    python payload/train_sft.py config.json     # inside the job's folder; model and data.train are the keys it needs

Rows are texts, prompts with completions, or messages (data.py). Writes checkpoints/, artifacts/ (the model; adapters
where `lora` is given, the merged model and adapter/ where `merge` is), summary.json.
"""

import sys
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
    "quantization": "none",
    "lora": None,
    "max_length": 1024,
    "packing": False,
    "completion_only_loss": None,
    "activation_checkpointing": False,
    "attention": "auto",
    "merge": False,
    "batch_size": 4,
    "push": None,
}
LORA = {"r": 16, "alpha": 32, "dropout": 0.05, "targets": "all-linear"}


def check(config):
    """Check what the keys mean together. Leaves with 2."""
    if config["quantization"] not in {"none", "8bit", "4bit"}:
        leave(EXIT_CONFIG, f"quantization is {config['quantization']!r}, but must be none, 8bit or 4bit")
    if config["lora"] is not None:
        config["lora"] = {**LORA, **config["lora"]}
    elif config["quantization"] != "none":
        leave(EXIT_CONFIG, f"quantization {config['quantization']} needs lora: quantised weights can't be trained")
    elif config["merge"]:
        leave(EXIT_CONFIG, "merge needs lora: without adapters there is nothing to merge")


def check_loss(config, kind):
    """Refuse a completion-only loss on rows that have no completion: TRL would ignore it without a word."""
    if config["completion_only_loss"] and kind == "text":
        leave(EXIT_CONFIG, "completion_only_loss needs rows with prompt and completion, or messages; these are texts")


def check_template(tokenizer, kind, found):
    """Refuse messages for a model that has no form for them."""
    if kind == "messages" and not tokenizer.chat_template:
        leave(
            EXIT_CONFIG,
            f"data: the rows are messages, but {found.label} has no chat template, as base models have none: "
            "take its instruct variant, or rows with prompt and completion",
        )


def adapters(config):
    """Describe the adapters for PEFT."""
    from peft import LoraConfig

    lora = config["lora"]
    return LoraConfig(
        r=lora["r"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=lora["targets"],
        task_type="CAUSAL_LM",
    )


def quantised(config, dtype):
    """Describe how the frozen base is loaded: 4 bits, 8 bits, or as it is (None)."""
    from transformers import BitsAndBytesConfig

    kinds = {"4bit": lambda: export.four_bits(dtype), "8bit": lambda: BitsAndBytesConfig(load_in_8bit=True)}
    return kinds[config["quantization"]]() if config["quantization"] in kinds else None


def count(model):
    """Give (trainable, all) parameters; two 4-bit weights in a byte count as two."""
    trainable = everything = 0
    for weight in model.parameters():
        shape = getattr(getattr(weight, "quant_state", None), "shape", None)
        size = shape.numel() if shape is not None else weight.numel()
        everything += size
        trainable += size if weight.requires_grad else 0
    return trainable, everything


def share(trainable, everything):
    """Say how much is trained: `trainable 8,388,608 of 6,746,804,224 (0.124 %)`."""
    return f"trainable {trainable:,} of {everything:,} ({100 * trainable / everything:.3g} %)"


def main():
    """Data, model, adapters, training, artifacts: from top to bottom."""
    # --- config and data, before torch is loaded
    config = settings.read(sys.argv[1] if len(sys.argv) > 1 else "config.json", "sft", DEFAULTS)
    cards.keep_one()
    check(config)
    rows, held_out = data.load(config["data"], config["seed"], data.check_sft)
    kind = config["data"]["format"]
    check_loss(config, kind)
    print(f"data: the rows are {kind}", flush=True)
    found = weights.find(config["model"], config["revision"])
    export.check_push(config["push"])

    # --- device; QLoRA's classic optimizer pages its state to the host when the card is full
    import checkpoint
    import datasets
    import device
    import torch
    import trainer
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    lora, bits = config["lora"], config["quantization"]
    usual = "paged_adamw_8bit" if bits == "4bit" else "adamw"
    gpu = device.choose(config, prefer_optimizer=usual, model_class=export.class_of(found, "CausalLM"))
    report = Report(gpu, log_every_steps=config["log_every_steps"])
    tokenizer = AutoTokenizer.from_pretrained(found.source, revision=found.revision)
    check_template(tokenizer, kind, found)

    # Frozen weights may be short; weights that are trained stay float32, since AdamW's small steps are lost in less.
    dtype = gpu.dtype if lora else torch.float32
    how = {"dtype": dtype, "attn_implementation": gpu.attention, "device_map": {"": str(gpu.torch_device)}}
    sizes = {}

    def build(micro):
        plan = quantised(config, dtype)
        model = export.load_causal(
            found.source, found.revision, **how, **({"quantization_config": plan} if plan else {})
        )
        arguments = SFTConfig(
            **trainer.arguments(config, gpu, micro),
            max_length=config["max_length"],
            packing=config["packing"],
            eval_packing=False,
            completion_only_loss=kind == "prompt_completion" and config["completion_only_loss"] is not False,
            assistant_only_loss=kind == "messages" and bool(config["completion_only_loss"]),
            activation_checkpointing=config["activation_checkpointing"],
            activation_checkpointing_kwargs={"use_reentrant": False},
            eval_strategy="epoch" if held_out else "no",
        )
        made = SFTTrainer(
            model,
            arguments,
            train_dataset=datasets.Dataset.from_list([row.fields for row in rows]),
            eval_dataset=datasets.Dataset.from_list([row.fields for row in held_out]) if held_out else None,
            processing_class=tokenizer,
            peft_config=adapters(config) if lora else None,
        )
        # TRL casts adapters on a quantised base to bfloat16, but a resumed run loads them as float32: the two would
        # part at the first step. float32 from the start costs two bytes an adapter's weight.
        for weight in made.model.parameters():
            if weight.requires_grad:
                weight.data = weight.data.float()
        trainable, everything = count(made.model)
        sizes.update(trainable=trainable, everything=everything)
        looked_up = made.model.get_input_embeddings().weight.numel()
        tied = getattr(model.config, "tie_word_embeddings", False)
        multiplied = everything - (0 if tied else looked_up)
        # Forward 2, backward 2 for the activations, and 2 more for each weight that is trained.
        report.flops_per_token = 4 * multiplied + 2 * min(trainable, multiplied)
        print(f"model: {share(trainable, everything)}", flush=True)
        return made

    made = trainer.run(config, gpu, report, build)

    # --- artifacts
    report.stage("export")
    method = {"none": "LoRA" if lora else "every weight", "8bit": "LoRA on 8 bits", "4bit": "QLoRA, nf4"}[bits]
    facts = {"training": method, "rows": len(rows), "steps": made.state.global_step, **sizes}
    facts |= {name: report.metrics.get(name) for name in ("loss", "eval_loss")}
    facts |= {f"lora {name}": value for name, value in (lora or {}).items()}
    with checkpoint.written_aside("artifacts") as folder:
        if lora:
            export.save_adapters(made.model, folder / "adapter" if config["merge"] else folder, found)
        else:
            made.model.save_pretrained(folder)
        if config["merge"]:
            del made  # the base is loaded again, un-quantised
            trainer.free(gpu)
            export.merge(found, folder / "adapter").save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        facts["adapters"] = ("merged, and apart in adapter/" if config["merge"] else "apart") if lora else None
        facts |= export.facts_of(config, report)
        export.write_card(folder, "A fine-tuned language model", f"Fine-tuned from {found.label}.", facts, found)
    export.push(Path("artifacts"), config["push"])
    report.finish({"trainable_parameters": sizes["trainable"], "parameters": sizes["everything"]})
    print(f"done: {facts['steps']} steps, the model lies in artifacts/")


if __name__ == "__main__":
    main()
