"""Models small enough for a test, made from random weights, and the rows that they learn from."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

ROWS = Path(__file__).parents[2] / "templates" / "data" / "wordnet"
CHAT = (
    "{% for message in messages %}<|{{ message.role }}|>"
    "{% if message.role == 'assistant' %}{% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ message.content }}{% endif %}{% endfor %}"
)
SLOW = """
import report, time
real_step = report.Report.step
def step(self, *a, **k):
    real_step(self, *a, **k)
    time.sleep(0.03)
report.Report.step = step
"""  # so that a signal lands where it is aimed


def rows(name: str, count: int) -> list[dict]:
    """Give the first rows of one of WordNet's files."""
    lines = (ROWS / name).read_text(encoding="utf-8").splitlines()[:count]
    return [json.loads(line) for line in lines]


def write(path: Path, some: list[dict]) -> Path:
    """Write rows as JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some), encoding="utf-8")
    return path


def make_models(folder: Path) -> None:
    """Make bert/, llama/ and chat/ (a llama with a chat template): 2 layers of 64, the least bitsandbytes packs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
        from transformers.utils import logging

        logging.disable_progress_bar()
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        special = ["<|endoftext|>", "<|pad|>", "<|user|>", "<|assistant|>"]
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
        bpe.train_from_iterator((row["text"] for row in rows("glosses.jsonl", 300)), trainer)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=special[0], pad_token=special[1])
        torch.manual_seed(0)
        size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
        size |= {"vocab_size": len(tokenizer), "max_position_embeddings": 128, "pad_token_id": 1}
        llama = LlamaForCausalLM(LlamaConfig(**size, eos_token_id=0, bos_token_id=None))
        for name, model in {"bert": BertModel(BertConfig(**size)), "llama": llama, "chat": llama}.items():
            model.save_pretrained(folder / name)
            tokenizer.chat_template = CHAT if name == "chat" else None
            tokenizer.save_pretrained(folder / name)


def loaded(kind: str, folder: Path, **how: object) -> object:
    """Load a model by the name of its Auto class, the libraries' advice left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        transformers.utils.logging.disable_progress_bar()
        return getattr(transformers, kind).from_pretrained(folder, **how)
