"""Turn what was trained into what is used: merge adapters, quantise to 4 bits, write the card, push to the Hub.

    python payload/export.py config.json     # {"method": "export", "model": …, "adapter": …, "quantization": "4bit"}

Adapters are merged on the un-quantised base: merged into 4 bits, each weight would be rounded again. Writes artifacts/
and summary.json. The other scripts take write_card, facts_of, merge and push from here. Runs on a CPU too.
"""

import json
import os
import sys
from pathlib import Path

import hub_push
import settings
import weights
from report import EXIT_CONFIG, Report, leave, versions

DEFAULTS = {
    "model": settings.REQUIRED,
    "revision": None,
    "adapter": None,
    "quantization": "none",
    "seed": 0,
    "device": "auto",
    "push": None,
}
PROBE = "The quick brown fox"  # what the reloaded model must answer as the saved one does


# --- the card


def data_name(source):
    """Name the data for a card: a hub name as it is, of a file only the last part."""
    here = source.startswith((".", "/", "~", "data/")) or Path(source).exists()
    return Path(source).name if here else source


def facts_of(config, report):
    """Give the facts of a run that belong on its card; no path and no name of the machine is among them."""
    facts = {"method": config["method"], "seed": config["seed"], "device": report.gpu.name}
    if config.get("data"):
        facts["data"] = data_name(config["data"]["train"])
    kept = ("epochs", "max_steps", "batch_size", "gradient_accumulation", "learning_rate", "schedule", "max_length")
    facts |= {name: config[name] for name in kept if name in config}
    return facts | {"versions": ", ".join(f"{name} {version}" for name, version in versions().items())}


def write_card(folder, title, about, facts, found):
    """Write the model card: front matter for the Hub, then what it is and the run's facts."""
    import plain

    told = {name.replace("_", " "): value for name, value in {"base model": found.label, **facts}.items()}
    plain.write_card(folder, title, about, told)
    matter = [
        "---",
        "library_name: transformers",
        *([f"base_model: {found.hub_name}"] if found.hub_name else []),
        "---",
    ]
    card = Path(folder) / "README.md"
    card.write_text("\n".join(matter) + "\n\n" + card.read_text(encoding="utf-8"), encoding="utf-8")


# --- loading and merging


def load_causal(source, revision=None, **how):
    """Load a causal model; without more, in the precision it was saved in."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(source, revision=revision, **{"dtype": "auto", **how})


def class_of(found, kind):
    """Give the class of transformers that AutoModelFor<kind> would load; None where it would refuse to."""
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto

    known = {
        "CausalLM": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING,
        "SequenceClassification": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    }
    try:
        return known[kind][type(AutoConfig.from_pretrained(found.source, revision=found.revision))]
    except (KeyError, ValueError):  # code of its own, or no such task: loading it says so in full
        return None


def load_any(found, **how):
    """Load a model as what its config says it is: a classifier, else a causal model."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    shape = AutoConfig.from_pretrained(found.source, revision=found.revision)
    if any("SequenceClassification" in name for name in shape.architectures or ()):
        how = {"dtype": "auto", **how}
        return AutoModelForSequenceClassification.from_pretrained(found.source, revision=found.revision, **how)
    return load_causal(found.source, found.revision, **how)


def merge(found, adapter):
    """Fold adapters into their base and give the plain model."""
    from peft import PeftModel

    base = load_any(found)
    if getattr(base, "quantization_method", None):
        leave(EXIT_CONFIG, f"model: {found.label} is quantised; adapters are merged on the un-quantised base")
    return PeftModel.from_pretrained(base, str(adapter)).merge_and_unload(safe_merge=True)  # safe: no NaN gets in


def save_adapters(model, folder, found):
    """Save adapters with the base named as others can find it: PEFT writes the path where this machine has it."""
    model.save_pretrained(folder)
    file = Path(folder) / "adapter_config.json"
    facts = json.loads(file.read_text(encoding="utf-8"))
    facts |= {"base_model_name_or_path": found.hub_name, "revision": found.revision}
    file.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (Path(folder) / "README.md").unlink(missing_ok=True)  # PEFT's own card, with the same path in it


# --- four bits


def four_bits(compute_dtype):
    """Describe nf4 with double quantisation: 4.127 bits a weight (QLoRA, arXiv 2305.14314)."""
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        bnb_4bit_quant_storage=torch.uint8,
    )


def answer(model, tokenizer, gpu):
    """Give the model's logits for the probe."""
    import torch

    batch = tokenizer(PROBE, return_tensors="pt").to(gpu.torch_device)
    model.eval()
    with torch.no_grad():
        return model(input_ids=batch["input_ids"]).logits.float().cpu()


def check_reload(folder, model, tokenizer, gpu):
    """Load what was saved, and compare: nothing is called done that does not load."""
    again = load_any(weights.Weights(str(folder), None, "the saved model"), device_map={"": str(gpu.torch_device)})
    before, after = answer(model, tokenizer, gpu), answer(again, tokenizer, gpu)
    difference = (before - after).abs().max().item()
    if not difference <= 1e-3 * max(1.0, before.abs().max().item()):  # "not <=": a NaN fails too
        raise RuntimeError(f"the saved model answers otherwise than the one in memory: {difference:g} apart")
    print(f"reload: the saved model answers alike, at most {difference:.2g} apart", flush=True)


# --- the Hub


def push(folder, wish):
    """Put a folder on the Hub; private unless the config says otherwise. The token comes from HF_TOKEN."""
    if not wish:
        return
    private = wish.get("private", True)
    try:
        commit = hub_push.put(folder, wish["repo"], private=private)
    except hub_push.PushError as error:  # a Hub that says no must not make the run a failure
        hub_push.tell(wish["repo"], private=private, error=str(error))
    else:
        hub_push.tell(wish["repo"], private=private, commit=commit)


def check_push(wish):
    """Check before the training what the push after it will need."""
    if wish and not os.environ.get("HF_TOKEN"):
        leave(EXIT_CONFIG, "push: HF_TOKEN is not set; name it under secrets: [HF_TOKEN]")
    if wish and not wish.get("repo"):
        leave(EXIT_CONFIG, "push: repo is missing, like you/model")


def file_sizes(folder):
    """Add up the bytes of the weights in a folder."""
    return sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))


def main():
    """Load, merge, quantise, save, reload: from top to bottom."""
    config = settings.read(sys.argv[1] if len(sys.argv) > 1 else "config.json", "export", DEFAULTS)
    if config["quantization"] not in {"none", "4bit"}:
        leave(EXIT_CONFIG, f"quantization is {config['quantization']!r}, but must be none or 4bit")
    check_push(config["push"])
    found = weights.find(config["model"], config["revision"])
    if config["adapter"] and not (Path(config["adapter"]) / "adapter_config.json").is_file():
        leave(EXIT_CONFIG, f"adapter: {config['adapter']} is no folder with adapters (adapter_config.json)")

    import checkpoint
    import device
    import trainer
    from transformers import AutoTokenizer

    trainer.quiet()
    device.seed_everything(config["seed"])
    gpu = device.choose(config)
    report = Report(gpu, total_steps=1)
    where = {"": str(gpu.torch_device)}
    # The adapter's own tokenizer where it has one: fine-tuning may have added tokens or a chat template.
    own = config["adapter"] and (Path(config["adapter"]) / "tokenizer_config.json").is_file()
    place = (
        {"pretrained_model_name_or_path": config["adapter"]}
        if own
        else {"pretrained_model_name_or_path": found.source, "revision": found.revision}
    )
    tokenizer = AutoTokenizer.from_pretrained(**place)
    how = {"quantization_config": four_bits(gpu.dtype)} if config["quantization"] == "4bit" else {}

    report.stage("export")
    with checkpoint.written_aside("artifacts") as folder:
        if config["adapter"]:
            model = merge(found, config["adapter"]).to(gpu.torch_device)
            print("merged: the adapters are part of the weights now", flush=True)
        else:
            model = load_any(found, device_map=where, **how)
        if how and config["adapter"]:  # quantising is done while loading, so the merged model goes over the disk
            model.save_pretrained(folder / "merged")
            del model
            merged = weights.Weights(str(folder / "merged"), None, "the merged model")
            model = load_any(merged, device_map=where, **how)
            for file in (folder / "merged").iterdir():
                file.unlink()
            (folder / "merged").rmdir()
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        check_reload(folder, model, tokenizer, gpu)
        size = file_sizes(folder)
        kind = "4 bits (nf4, double quantised)" if how else str(model.dtype).removeprefix("torch.")
        facts = {"precision": kind, "bytes": size, "adapters": "merged" if config["adapter"] else None}
        write_card(
            folder, "An exported model", f"Made from {found.label}.", {**facts, **facts_of(config, report)}, found
        )
    push(Path("artifacts"), config["push"])
    report.line(1, bytes=size)
    report.finish({"bytes": size, "memory_bytes": model.get_memory_footprint()})
    print(f"done: {size / 1e6:.1f} MB of weights in {kind}, the model lies in artifacts/")


if __name__ == "__main__":
    main()
