"""Which offers a launch may rent, in which order, and its quote: the estimator's, the same as `gpurun compare` shows.

    template ──> question ─┐
    offers, --gpu ─────────┼──> choose ──> Choice(offers, quote, why), or a refusal with the computed fix
    past runs, limits ─────┘

Pure but for `question`, which reads the model's config and a sample of the rows. No second model of time or cost here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from orchestrator import plan as planning
from orchestrator.estimate import answer, catalogue, compare, fix
from orchestrator.estimate.footprint import Range, footprint
from orchestrator.estimate.learnt import bare, like
from orchestrator.estimate.models import NotModelledError
from orchestrator.estimate.page import ends
from orchestrator.estimate.quote import Dollars, Rental, priced
from orchestrator.plan import Quote
from orchestrator.render import duration, money, price
from providers.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from orchestrator.estimate.ask import Question
    from orchestrator.estimate.compare import Known, Quoted
    from orchestrator.estimate.work import Work
    from orchestrator.plan import Gpus
    from orchestrator.templates import Template
    from providers.base import Offer

_FORCE = "--force launches all the same"
_UNKNOWN = "how much is trained is not known: the limits are the estimate"
_NEVER_RUN = "nothing like it was run from this home yet: the limits are the estimate"
_DIGITS = Decimal("0.0001")
_DEAREST = Decimal("1.5")  # times the first's likely cost: what is dearer is not taken in its place
_UNJUDGED = 2  # after what fits, 0, and what is tight, 1
_MOST_ON_CPU = 1_000_000_000  # parameters: of more, a step takes minutes on a few cores
_REASONS = 2  # kinds of GPU that do not fit, named in a plan


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be quoted: the work, what was assumed of it, and what is known besides."""

    asked: Question | None  # None = it can't be told beforehand what it takes
    notes: tuple[str, ...]
    known: Known
    step_seconds: int  # of the vendor's billing
    today: date


@dataclass(frozen=True, slots=True)
class Choice:
    """The offers that may be rented, the first to be tried first, with its quote."""

    offers: tuple[Offer, ...]
    quote: Quote
    why: str = ""
    kinds: tuple[str, ...] = ()  # names of offers that hold the job, without their region; none = all
    work: str = ""  # names settings and data
    order: tuple[int, Decimal, Decimal] = (_UNJUDGED, Decimal(0), Decimal(0))  # among vendors' choices, the best first


def question(template: Template, *, force: bool = False) -> tuple[Question | None, tuple[str, ...]]:
    """Read what a template trains; None where that can't be told beforehand, or is wrong and `force` says so what.

    Raises:
        UsageError: no such model, a config.json or data that can't be used.
    """
    if template.bare:
        return None, ()
    try:
        asked, notes = answer.question(answer.Flags(gpu=""), template)
    except NotModelledError as error:
        return None, (str(error),)
    except UsageError as error:
        if force:
            return None, (f"not quoted: {error}",)
        error.hint = f"{error.hint}; {_FORCE}, without a quote" if error.hint else f"{_FORCE}, without a quote"
        raise
    return asked, tuple(notes)


def choose(offers: Sequence[Offer], gpu: Gpus, wanted: Wanted, *, waiting: bool = False, force: bool = False) -> Choice:
    """Choose by fit and likely cost; by price alone where nothing is known of the job.

    Raises:
        RefusedError: nothing on offer is what was asked for, or nothing of it can do the job: with the fix.
    """
    ready = planning.pool(offers, gpu, waiting=waiting)
    judged = [(one, _judge(one, wanted)) for one in ready]
    cards = [(one, quoted) for one, quoted in judged if quoted is not None]
    fit = [(one, quoted) for one, quoted in cards if quoted.fits]
    if not fit and (force or len(cards) < len(judged) or not cards):
        return _by_price(ready, gpu, wanted, force=force)
    if not fit:
        raise _does_not_fit([quoted for _, quoted in cards], offers, wanted)
    best = _best(fit, gpu, force=force)
    most = compare.by_cost(best[0][1])[0] * _DEAREST
    tried = planning.alike([one for one, quoted in best if compare.by_cost(quoted)[0] <= most])
    kinds = tuple(dict.fromkeys(bare(one.name) for one, _ in best))
    first = best[0][1]
    order = (int(first.found.fits != fix.FITS), *compare.by_cost(first)[:2])
    why = _why([quoted for _, quoted in best], cards, gpu)
    return Choice(tuple(tried), _quote(first, tried, wanted), why, kinds, order=order)


def _judge(offer: Offer, wanted: Wanted) -> Quoted | None:
    """Quote an offer; None = it has no card, one that nobody knows, or nothing is known of the job."""
    listed = catalogue.of_offer(offer, wanted.today, wanted.step_seconds)
    if wanted.asked is None or listed is None:
        return None
    return compare.quoted(wanted.asked, listed, wanted.known)


def _best(fit: list[tuple[Offer, Quoted]], gpu: Gpus, *, force: bool) -> list[tuple[Offer, Quoted]]:
    """Order by likely cost. What is tight, or likely not done in time, only where nothing else is to be had."""
    fit = sorted(fit, key=lambda one: (one[1].found.fits != fix.FITS, compare.by_cost(one[1])))
    hopeful = fit if force else [one for one in fit if not one[1].hopeless]
    if not hopeful:
        raise _too_late([quoted for _, quoted in fit])
    fit = hopeful
    open_choice = not planning.names(gpu) or len(planning.names(gpu)) > 1
    if not open_choice:
        return fit
    in_time = [one for one in fit if not one[1].late]
    if not in_time and gpu and "auto" in gpu and not force:
        raise _too_late([quoted for _, quoted in fit])
    fit = in_time or fit
    return [one for one in fit if one[1].found.fits == fit[0][1].found.fits]


def _by_price(ready: Sequence[Offer], gpu: Gpus, wanted: Wanted, *, force: bool) -> Choice:
    tried = planning.candidates(ready, gpu)
    first, price = _judge(tried[0], wanted), tried[0].price
    if first is not None:
        return Choice(tuple(tried), _quote(first, tried, wanted))
    if not force:
        _refuse_cpu(tried[0], wanted)
    return Choice(tuple(tried), _unmodelled(tried, wanted), order=(_UNJUDGED, price, price))


def _refuse_cpu(offer: Offer, wanted: Wanted) -> None:
    """Refuse a CPU whose memory can't hold the least that training takes, or that would take weeks over the model."""
    if wanted.asked is None or offer.gpu_count:
        return
    model, hint = wanted.asked.work.model, f"a GPU: --provider lambda --gpu auto; or {_FORCE}"
    least = footprint(replace(wanted.asked.work, short="float32")).allocated.low
    if least > offer.memory_gib > 0:
        words = f"{model.name} does not fit {offer.provider} {offer.name}: it needs {least:.0f} GiB of memory"
        raise RefusedError(f"{words}, has {offer.memory_gib:.0f}", hint=hint)
    if model.parameters > _MOST_ON_CPU:
        size = f"{model.parameters / 1e9:.1f}B parameters"
        raise RefusedError(f"{model.name} has {size}: {offer.provider} {offer.name} has no GPU for them", hint=hint)


# ── the quote ───────────────────────────────────────────────────────────────────────────────────


def _quote(one: Quoted, tried: Sequence[Offer], wanted: Wanted) -> Quote:
    """Put an estimate into the plan's words. The worst case is at the dearest that may be taken."""
    found, asked, stages = one.found, wanted.asked, one.found.stages
    low, likely = _rounded(one.dollars)
    sizes = {name: ends(getattr(found.memory, name)) for name in ("allocated", "reserved", "process")}
    return Quote(
        low=low,
        likely=likely,
        worst=_worst(tried, wanted),
        seconds_likely=found.seconds.likely if found.seconds else None,
        basis=_basis(one),
        seconds=ends(found.seconds) if found.seconds else None,
        stages=dict(stages.by_name) if stages else {},
        steps=stages.steps if stages else 0,
        tokens=found.tokens,
        tokens_per_second=ends(found.tokens_per_second),
        card=found.card.name,
        card_gib=found.card.memory_gib,
        fits=found.fits,
        fix=str(found.fix) if found.fix else "",
        memory_gib=sizes,
        components=dict(found.memory.components),
        room_gib={"disk": found.room.disk_gib, "host_memory": found.room.host_gib} if found.room else {},
        micro_batch=found.work.micro_batch,
        like=like(found.work, found.card, found.count),
        measured=found.basis,
        notes=(*wanted.notes, *answer.told(one), *_missing(one)) if asked else (),
    )


def _missing(one: Quoted) -> tuple[str, ...]:
    """Say once more what was forced."""
    return (f"it needs {one.why}",) if one.why and one.found.fits == fix.NO else ()


def _basis(one: Quoted) -> str:
    if one.found.basis:
        return f"measured on {one.found.basis}"
    if one.dollars is None:
        return _UNKNOWN
    return "estimated of model, data and card" + ("" if one.found.known else "; nobody published such a run on it")


def _unmodelled(tried: Sequence[Offer], wanted: Wanted) -> Quote:
    """Quote what no model covers: by runs of the very same work on the same offer, else by the limits alone."""
    first, known = tried[0], wanted.known
    learnt = known.past.learnt(None, None, 0, (first.provider, bare(first.name)), known.same)
    most = _worst(tried, wanted)
    if learnt is None or learnt.seconds is None:
        return Quote(None, None, most, None, _NEVER_RUN, notes=wanted.notes)
    seconds = Range(*learnt.seconds)
    low, likely = _rounded(priced(seconds, Rental(first.provider, first.price, wanted.step_seconds), known.bounds))
    return Quote(
        *(low, likely, most, seconds.likely, f"measured on {learnt.basis}"),
        seconds=ends(seconds),
        stages=dict(learnt.stages),
        measured=learnt.basis,
    )


def _worst(tried: Sequence[Offer], wanted: Wanted) -> Decimal:
    return wanted.known.bounds.worst(max(one.price for one in tried), wanted.step_seconds)


def _rounded(dollars: Dollars | None) -> tuple[Decimal | None, Decimal | None]:
    return (dollars.low.quantize(_DIGITS), dollars.likely.quantize(_DIGITS)) if dollars else (None, None)


# ── why this one, and why none ──────────────────────────────────────────────────────────────────


def _why(best: Sequence[Quoted], cards: Sequence[tuple[Offer, Quoted]], gpu: Gpus) -> str:
    """Say why this one was taken of several kinds; nothing where only one was asked for."""
    like = [one for one in best if one.offer.count == best[0].offer.count]
    kinds = list({_kind(one): one for one in reversed(like)}.values())[::-1]
    left = list({_kind(one): one for _, one in cards if not one.fits}.values())
    if len(planning.names(gpu)) == 1 and len(kinds) == 1 and not left:
        return ""
    first, rest = kinds[0], kinds[1:]
    order = f"likely {money(first.dollars.likely)}" if first.dollars else "by the token"
    others = (
        f"; next {_kind(rest[0])}" + (f", {money(rest[0].dollars.likely)}" if rest[0].dollars else "") if rest else ""
    )
    of = f"cheapest of {len(kinds)} kinds that fit" if rest else "the only kind that fits"
    named = [f"{_kind(one)} needs {one.why}" for one in left[:_REASONS]]
    more = f" and {len(left) - _REASONS} more" if len(left) > _REASONS else ""
    return f"{of}, {order}{others}" + (f"; left out: {', '.join(named)}{more}" if named else "")


def _kind(one: Quoted) -> str:
    return f"{one.offer.count} x {one.offer.card.name}" if one.offer.count > 1 else one.offer.card.name


def _does_not_fit(cards: Sequence[Quoted], offers: Sequence[Offer], wanted: Wanted) -> RefusedError:
    """Refuse with the fix: what to set, or what else is on offer here."""
    kinds = {_kind(one): one for one in sorted(cards, key=lambda one: -one.offer.price)}
    nearest = max(kinds.values(), key=_nearness)
    if nearest.too_dear and nearest.found.fits != fix.NO:
        return _too_dear(nearest)
    title = nearest.found.work.model.name
    among = "" if len(kinds) == 1 else f" nor any other of the {len(kinds)} kinds asked for"
    fixes = [*_flags(nearest), *_elsewhere(offers, wanted), _FORCE]
    return RefusedError(
        f"{title} does not fit {_kind(nearest)}{among}: it needs {nearest.why}", hint="; or ".join(fixes)
    )


def _nearness(one: Quoted) -> tuple[bool, float, Decimal]:
    """Order what does not do: memory first; where that is enough and something else is not, the cheapest."""
    holds = one.found.fits != fix.NO
    return holds, 0.0 if holds else one.offer.card.memory_gib, -one.offer.price


def _elsewhere(offers: Sequence[Offer], wanted: Wanted) -> list[str]:
    """Name the cheapest kind of this vendor's that holds the job as it is."""
    judged = [quoted for one in offers if one.available and (quoted := _judge(one, wanted)) is not None]
    fitting = [one for one in judged if one.found.fits == fix.FITS and one.fits and not one.hopeless]
    if not fitting:
        return []
    # GPUs that would idle are taken for their memory only where nothing less has it.
    best = min(fitting, key=lambda one: (one.offer.count - one.found.count, compare.by_cost(one)))
    return [f"--gpu {best.offer.card.name} ({_kind(best)} at {price(best.offer.price)})"]


def _flags(one: Quoted) -> list[str]:
    """Spell the computed fix as what is to be typed."""
    found = one.found.fix
    if found is None or found.card != one.found.card or found.gpus != one.found.count:
        return []
    typed = " ".join(f"--set {setting}" for setting in settings(one.found.work, found.work))
    return [f"{typed} ({found})"] if typed else [str(found)]


def settings(before: Work, after: Work) -> list[str]:
    """Give the template's settings that turn one work into another."""
    changed = {
        "batch_size": (before.micro_batch, after.micro_batch),
        "gradient_accumulation": (before.accumulation, after.accumulation),
        "max_length": (before.sequence, after.sequence),
        "activation_checkpointing": (before.checkpointing, after.checkpointing),
        "quantization": (before.bits, after.bits),
    }
    found = [f"{name}={_plain(name, new)}" for name, (old, new) in changed.items() if old != new]
    if before.optimizer != after.optimizer and before.bits == after.bits and before.method == after.method:
        found.append(f"optimizer={after.optimizer}")
    if before.method != after.method:
        found.append(f"'lora={{r: {after.rank}}}'")
    return found


def _plain(name: str, value: object) -> str:
    if name == "quantization":
        return f"{value}bit" if value in {4, 8} else "none"
    return str(value).lower()


def _too_late(fit: Sequence[Quoted]) -> RefusedError:
    """Refuse where nothing is likely done within the limits; what comes nearest says how long it takes."""
    nearest = min(fit, key=lambda one: one.found.seconds.likely / max(one.reach, 1.0) if one.found.seconds else 0.0)
    takes = nearest.found.seconds or Range(0, 0, 0)
    return RefusedError(
        f"nothing on offer is likely done within the limits: {_kind(nearest)}, which comes nearest, takes"
        f" {duration(takes.likely)}, {duration(takes.low)} at best, and {nearest.short()}",
        hint=f"{nearest.longer()}; or {_FORCE}",
    )


def _too_dear(one: Quoted) -> RefusedError:
    """Refuse where the budget buys no time at all: to force it would be of no use."""
    return RefusedError(
        f"a budget of ${one.found.bounds.max_cost} buys no time on {_kind(one)} at {price(one.offer.price)}",
        hint=one.longer(),
    )
