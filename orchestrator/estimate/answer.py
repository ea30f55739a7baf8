"""One question of the command line answered: template or flags in, an estimate and its offer out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cost import Bounds
from orchestrator.estimate import ask, catalogue, compare, fix, gpus, hub_data, inputs
from orchestrator.estimate.ask import Question
from orchestrator.estimate.catalogue import Listed
from orchestrator.estimate.learnt import NOTHING, Past
from orchestrator.estimate.work import Amount, Attention, Loss, Optimizer, Work
from providers.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.estimate.compare import Quoted
    from orchestrator.estimate.gpus import Card
    from orchestrator.estimate.lengths import Lengths
    from orchestrator.estimate.quote import Dollars, Estimate
    from orchestrator.templates import Template

MOST = {
    "seq": 2**24,
    "micro_batch": 2**16,
    "accumulation": 2**16,
    "rank": 2**14,
    "rows": 10**12,
    "tokens": 10**15,
    "count": 1024,
}
_MOST_EPOCHS = 10_000
_TOKENS_A_ROW = 512  # where only a count of rows is given and no limit is shorter: said beside the result


@dataclass(frozen=True, slots=True)
class Flags:
    """What was said on the command line; None = nothing."""

    gpu: str
    count: int = 1
    provider: str = ""
    price: Decimal | None = None
    max_hours: float | None = None
    model: str | None = None
    method: str | None = None
    seq: int | None = None
    micro_batch: int | None = None
    accumulation: int | None = None
    rank: int | None = None
    targets: str | None = None
    rows: int | None = None
    tokens: int | None = None
    epochs: float | None = None
    data: str | None = None
    optimizer: str | None = None
    loss: str | None = None
    attention: str | None = None
    checkpointing: bool | None = None
    packing: bool | None = None
    pure_bf16: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """An estimate, the offer it is priced at, and what was assumed."""

    found: Estimate
    offer: Listed | None
    dollars: Dollars | None
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """Give plain values."""
        values = self.found.as_json(self.offer.rental(_disk(self.found)) if self.offer else None)
        return {**values, "offer": _offer(self.offer), "notes": self.notes}


def answer(flags: Flags, template: Template | None = None, past: Past = NOTHING) -> Answer:
    """Answer one question; `past` are this home's own runs.

    Raises:
        UsageError: a name is unknown, a size is absurd, or nothing says what is trained.
    """
    cards = gpus.family(flags.gpu) or (gpus.card(flags.gpu),)
    card, notes = cards[0], _named(flags.gpu, cards)
    asked, more = question(flags, template)
    bounds = Bounds.of(template.settings.limits if template else None, flags.max_hours)
    offer = catalogue.cheapest(card, flags.count, flags.provider)
    if flags.price is not None:
        offer = _priced(offer, card, flags)
    one = compare.quoted(asked, offer or _nowhere(card, flags), compare.Known(bounds, past))
    return Answer(one.found, offer, one.dollars if offer else None, [*notes, *more, *told(one)])


def told(one: Quoted) -> list[str]:
    """Say what else speaks against an offer, or is to be known of it."""
    notes = _late(one)
    if one.why and one.found.fits != fix.NO:
        notes.append(f"not there: it needs {one.why}")
    if one.offer.count > one.found.count:
        notes.append(f"gpurun's recipes train on one GPU: {one.offer.count - 1} of {one.offer.count} would idle")
    return notes


def _sane(flags: Flags) -> None:
    for name, most in MOST.items():
        value = getattr(flags, name)
        if value is not None and not 1 <= value <= most:
            raise UsageError(f"--{name.replace('_', '-')} {value:,} is absurd: between 1 and {most:,}")
    if flags.epochs is not None and not 0 < flags.epochs <= _MOST_EPOCHS:
        raise UsageError(f"--epochs {flags.epochs:g} is absurd: above 0, and {_MOST_EPOCHS:,} at most")


def _sane_settings(work: Work) -> None:
    """Hold a template's sizes to the same limits as flags."""
    sizes = {
        "max_length": (work.sequence, MOST["seq"]),
        "batch_size": (work.micro_batch, MOST["micro_batch"]),
        "gradient_accumulation": (work.accumulation, MOST["accumulation"]),
        "lora.r": (work.rank, MOST["rank"]),
    }
    for name, (value, most) in sizes.items():
        if value > most:
            raise UsageError(f"{name} {value:,} is absurd: between 1 and {most:,}", hint=f"--set {name}=…")


def _named(name: str, cards: tuple[Card, ...]) -> list[str]:
    if len(cards) == 1:
        return []
    return [f"{name} means {', '.join(card.name for card in cards)}; this is the smallest"]


def question(flags: Flags, template: Template | None) -> tuple[Question, list[str]]:
    """Read what is trained, from flags and a template, and what was assumed.

    Raises:
        UsageError: a name is unknown, a size is absurd, or nothing says what is trained.
    """
    _sane(flags)
    if template is None and flags.model is None:
        raise UsageError(
            "nothing says what is trained", hint="gpurun estimate TEMPLATE, or --model NAME --method qlora"
        )
    found = _lengths(flags, template)
    notes = []
    if template is not None and template.settings.training.method == "chain":
        notes.append("of a chain, the first step that trains a model is what is estimated: the others come on top")
    if template is None:
        model = inputs.model(flags.model or "")
        bare = Work(model, checkpointing=flags.method != "classify", attention=ask.attention(model))  # as TRL has it
        asked = Question(bare, None, packed=False, merge=False)
        asked = replace(asked, work=_method(asked.work, flags.method or "lora"))
        asked = replace(
            asked, work=replace(asked.work, loss=Loss.LABELS if flags.method == "classify" else Loss.LINEAR)
        )
    else:
        find = inputs.model if flags.model is None else lambda _name, _revision: inputs.model(flags.model or "")
        asked = ask.of_training(template.settings.training, find, found)
        asked = _evaluated(asked, template)
        _sane_settings(asked.work)
        asked = replace(asked, work=_method(asked.work, flags.method)) if flags.method else asked
    asked, more = _overlaid(asked, flags, found)
    return asked, [*notes, *more]


def _lengths(flags: Flags, template: Template | None) -> Lengths | None:
    trained = template.settings.training if template else None
    name = str(flags.model or getattr(trained, "model", ""))
    if flags.data:
        return inputs.rows(Path(flags.data).expanduser(), model_name=name)
    return _shipped(template, "train", name) if template else None


def _shipped(template: Template, what: str, model_name: str) -> Lengths | None:
    """Sample the rows of a file that a template ships, or take what is known of the Hub's; None where neither is."""
    data = getattr(template.settings.training, "data", None)
    files = (file for file in template.files if data is None or file.setting[-2:] == ("data", what))
    path = next((file.path for file in files), None)
    if path is None and data is not None:
        split = data.split if what == "train" else data.eval_split
        return hub_data.lengths(str(getattr(data, what)), split, data.max_rows)
    if path is None or not path.is_file() or path.suffix.lower() not in inputs.READABLE:
        return None
    return inputs.rows(path, data, model_name)


def _evaluated(asked: Question, template: Template) -> Question:
    """Count the rows of a file for evaluation, too."""
    data = getattr(template.settings.training, "data", None)
    if asked.amount is None or data is None or data.eval is None:
        return asked
    found = _shipped(template, "eval", str(getattr(template.settings.training, "model", "")))
    if found is None:
        return asked
    tokens = round(found.mean(asked.work.sequence) * found.rows)
    return replace(asked, amount=replace(asked.amount, evaluated_tokens=tokens))


def _method(work: Work, method: str) -> Work:
    if method in {"full", "classify"}:
        return replace(work, method="full", task="classify" if method == "classify" else "causal", bits=16)
    bits = {"lora": 16, "dpo": 16, "lora8": 8, "qlora": 4}[method]
    optimizer = Optimizer.PAGED_ADAMW_8BIT if bits == 4 else Optimizer.FUSED_ADAMW
    task = "dpo" if method == "dpo" else "causal"
    return replace(work, method="lora", task=task, bits=bits, optimizer=optimizer)  # type: ignore[arg-type]


def _overlaid(asked: Question, flags: Flags, found: Lengths | None) -> tuple[Question, list[str]]:
    changed: dict[str, Any] = {
        "sequence": flags.seq,
        "micro_batch": flags.micro_batch,
        "accumulation": flags.accumulation,
        "rank": flags.rank,
        "targets": _targets(flags.targets),
        "optimizer": Optimizer(flags.optimizer) if flags.optimizer else None,
        "loss": Loss(flags.loss) if flags.loss else None,
        "attention": Attention(flags.attention) if flags.attention else None,
        "checkpointing": flags.checkpointing,
    }
    packed = asked.packed if flags.packing is None else flags.packing
    work = replace(asked.work, **{name: value for name, value in changed.items() if value is not None})
    work = replace(work, lengths_vary=not packed and work.task != "pretrain" and flags.seq is None)
    if flags.pure_bf16:
        work = replace(work, master=False, autocast=False)
    amount, notes = _amount(asked.amount, flags, work, found, packed=packed)
    return replace(asked, work=work, amount=amount, packed=packed), notes


def _targets(text: str | None) -> tuple[str, ...] | str | None:
    if text is None or text == "all-linear":
        return text
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _amount(
    amount: Amount | None, flags: Flags, work: Work, found: Lengths | None, *, packed: bool
) -> tuple[Amount | None, list[str]]:
    """How much is trained: what flags say stands over what the data say."""
    epochs = flags.epochs or (amount.epochs if amount else 1.0)
    if flags.tokens:
        rows = flags.rows or max(1, flags.tokens // work.sequence)
        return Amount(rows, flags.tokens, epochs, basis="--tokens"), []
    if flags.rows:
        mean = found.mean(work.sequence) if found else min(work.sequence, _TOKENS_A_ROW)
        notes = [] if found else [f"rows are taken for {mean:.0f} tokens each: nobody showed them"]
        padding = found.padding(work.sequence, work.micro_batch, packed=packed) if found else 1.0
        return Amount(flags.rows, round(mean * flags.rows), epochs, padding=padding, basis="--rows"), notes
    if amount is None and found is not None:
        mean = found.mean(work.sequence)
        padding = found.padding(work.sequence, work.micro_batch, packed=packed)
        amount = Amount(found.rows, round(mean * found.rows), epochs, padding=padding, basis=found.basis)
    if amount is None:
        return None, []
    notes = [f"lengths: {amount.basis}"] if amount.basis else []
    return replace(amount, epochs=epochs), notes


def _priced(offer: Listed | None, card: Card, flags: Flags) -> Listed:
    """Put the price that was given in the place of the bundled one."""
    found = offer or _nowhere(card, flags)
    return replace(found, price=flags.price or Decimal(0), as_of=None, confidence="as given")


def _nowhere(card: Card, flags: Flags) -> Listed:
    """Give an offer of a card that nobody is known to rent out: without a price, a disk or a memory."""
    return Listed(
        flags.provider, card.name, card, flags.count, Decimal(0), 0, 0.0, 0.0, 60, "", None, "", None, "--price", ""
    )


def _disk(found: Estimate) -> float:
    return found.room.disk_gib if found.room else 0.0


def _late(one: Quoted) -> list[str]:
    if not one.late or one.found.seconds is None:
        return []
    return [f"likely longer than the limits allow, {one.short()}: {one.longer()}"]


def _offer(offer: Listed | None) -> dict[str, Any] | None:
    if offer is None:
        return None
    return {
        "provider": offer.provider,
        "name": offer.name,
        "usd_per_hour": str(offer.price),
        "as_of": offer.as_of.isoformat() if offer.as_of else None,
        "confidence": offer.confidence,
        "source": offer.source,
    }
