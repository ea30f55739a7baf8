"""Pretrain a small GPT from random weights on plain text, with a tokenizer trained on that text.

    python payload/train_pretrain.py config.json     # inside the job's folder; data.train is the one key it needs

Text: .txt with blank lines between documents (or a document a line), or rows with `data.text_field`. The model is a
Llama of the given size, so that train_sft.py and anything else loads it. Writes checkpoints/, artifacts/, summary.json.
"""

import math
import sys

import checkpoint
import data
import plain
import settings
from report import EXIT_CONFIG, Report, leave

DEFAULTS = {
    **settings.COMMON,
    "data": settings.REQUIRED,
    "layers": 4,
    "hidden": 256,
    "heads": 4,
    "vocabulary": 4096,
    "max_length": 256,
    "compile": "auto",
    "batch_size": 16,
    "learning_rate": 6e-4,
    "schedule": "cosine",
    "weight_decay": 0.1,
}
END = "<|endoftext|>"  # between documents
PAD = "<|pad|>"  # never seen here; fine-tuning needs one that is not the end
COMPILE_PAYS_STEPS = 1000  # compiling takes a minute or so: about what it saves in this many small steps


def check_texts(rows, config):
    """Check that every row has a text; gives those that say something."""
    for row in rows:
        data.text_of(row, config["text_field"])
    return data.without_blank(rows, config["text_field"])


def main():
    """Tokenizer, model, loop, held-out loss, artifacts: from top to bottom."""
    # --- config and text, before torch is loaded
    config = settings.read(sys.argv[1] if len(sys.argv) > 1 else "config.json", "pretrain", DEFAULTS)
    if config["hidden"] % (2 * config["heads"]):
        leave(EXIT_CONFIG, f"hidden ({config['hidden']}) must be a multiple of twice heads ({config['heads']})")
    rows, held_out = data.load(config["data"], config["seed"], check_texts)
    texts, held_texts = ([row.fields[config["data"]["text_field"]] for row in part] for part in (rows, held_out))

    # --- device: the reasons of each choice go to the log
    import device
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from torch.nn.functional import cross_entropy
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    device.seed_everything(config["seed"])
    gpu = device.choose(config)
    report = Report(gpu, log_every_steps=config["log_every_steps"])
    found = checkpoint.newest_whole()
    state = checkpoint.load(found, gpu.torch_device) if found else None

    # --- tokenizer: byte-level BPE, so that any text can be spelt; a resumed run takes the checkpoint's own
    if state:
        bpe = Tokenizer.from_str(state["tokenizer"])
    else:
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=config["vocabulary"], special_tokens=[END, PAD], initial_alphabet=alphabet, show_progress=False
        )
        bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END, pad_token=PAD, model_max_length=config["max_length"]
    )

    # --- blocks (rows, max_length + 1): documents one after another with END between, as GPT-2 did; no padding at all
    def blocks(documents):
        ids = [token for coded in bpe.encode_batch(documents) for token in (*coded.ids, tokenizer.eos_token_id)]
        length = config["max_length"]
        count = (len(ids) - 1) // length
        rows = [
            ids[row * length : row * length + length + 1] for row in range(count)
        ]  # the last token is a target only
        return torch.tensor(rows, dtype=torch.long).to(gpu.torch_device)

    x, x_eval = blocks(texts), blocks(held_texts)
    if not len(x):
        leave(EXIT_CONFIG, f"{rows[0].file}: less text than a block of {config['max_length']} tokens; lower max_length")
    if held_texts and not len(x_eval):
        print("data: the held-out text is shorter than one block, so there is no eval_loss")
    print(f"data: {len(texts)} documents, {x[:, 1:].numel():,} tokens, {len(held_texts)} documents held out")

    # --- model
    # Llama's 8/3, rounded up to 64: what tensor cores like, and nf4's block (bitsandbytes 0.50 on CPUs with AVX-512
    # fails on rows that are no multiple of it).
    wide = math.ceil(8 * config["hidden"] / 3 / 64) * 64
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config["hidden"],
        intermediate_size=wide,
        num_hidden_layers=config["layers"],
        num_attention_heads=config["heads"],
        max_position_embeddings=config["max_length"],
        tie_word_embeddings=True,  # in a small model the vocabulary would be most of the weights
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation=gpu.attention,
    )
    model = LlamaForCausalLM(shape).to(gpu.torch_device)
    weights = list(model.parameters())
    size = sum(weight.numel() for weight in weights)
    per_epoch, total = plain.steps_of(len(x), config)
    report.total_steps = total
    # 2 forward and 4 backward a weight (the tied embedding counts once, as the output layer), and attention's own.
    report.flops_per_token = 6 * size + 12 * config["layers"] * config["hidden"] * config["max_length"]
    print(f"model: {size:,} parameters, all trained; {total} steps, {per_epoch} an epoch")

    # --- compile, where it pays
    wish = config["compile"]
    compiled = wish == "on" or (wish == "auto" and gpu.is_cuda and total >= COMPILE_PAYS_STEPS)
    why = "as the config says" if wish != "auto" else f"it pays on a GPU from {COMPILE_PAYS_STEPS} steps on"
    print(f"compile: {'on' if compiled else 'off'}, {why}")
    forward = torch.compile(model) if compiled else model

    # --- optimizer; the betas are GPT-3's; carry on from the newest whole checkpoint
    optimizer = device.make_optimizer(
        gpu, weights, learning_rate=config["learning_rate"], weight_decay=config["weight_decay"], betas=(0.9, 0.95)
    )
    scaler, micro, start = gpu.scaler(), config["batch_size"], 0
    if state:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        start, micro = state["step"], state["micro"]
        report.restore(state["report"])
        state = None  # its tensors are not needed twice

    def save(step):
        report.stage("save")
        parts = {"step": step, "micro": micro, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
        rest = {"scaler": scaler.state_dict(), "report": report.state(), "tokenizer": bpe.to_str()}
        checkpoint.save(step, {**parts, **rest})
        report.stage("train")

    def mean_loss(ids):
        with gpu.autocast():
            logits = forward(input_ids=ids[:, :-1], use_cache=False).logits  # (rows, max_length, vocabulary)
        return cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())

    def eval_loss():
        model.eval()
        with torch.no_grad():
            parts = [mean_loss(part).item() * len(part) for part in x_eval.split(micro)]
        model.train()
        return sum(parts) / len(x_eval)

    # --- train: batches and rates are functions of the step, so that a resumed run repeats them
    report.stage("train")
    model.train()
    for step in range(start + 1, total + 1):
        rows = plain.rows_of(step, len(x), config).to(gpu.torch_device)
        loss, micro = plain.backward(rows, micro, lambda part: mean_loss(x[part]), scaler, optimizer)
        rate = plain.learning_rate(step, total, config)
        norm = plain.optimizer_step(weights, optimizer, scaler, rate, config["max_grad_norm"])
        report.micro_batch = micro
        report.count(tokens=len(rows) * config["max_length"], samples=len(rows))
        report.step(step, loss=loss, lr=rate, grad_norm=norm, epoch=round(step / per_epoch, 4))
        if len(x_eval) and (step % per_epoch == 0 or step == total):
            report.stage("eval")
            report.line(step, eval_loss=eval_loss())
            report.stage("train")
        if step % config["checkpoint_every_steps"] == 0 or step == total or report.stop_asked:
            save(step)
        if report.stop_asked and step < total:
            report.leave_stopped(step)

    # --- artifacts: what AutoModelForCausalLM and AutoTokenizer load
    report.stage("export")
    facts = {"parameters": size, "tokens seen": report.tokens, "steps": total, "seed": config["seed"]}
    facts |= {name: report.metrics.get(name) for name in ("loss", "eval_loss")}
    about = "A Llama pretrained from random weights on one text. It knows that text and nothing else."
    with checkpoint.written_aside("artifacts") as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        plain.write_card(folder, "A small GPT", about, facts)
    report.finish({"parameters": size})
    print(f"done: {total} steps, the model lies in artifacts/")


if __name__ == "__main__":
    main()
