"""What a person reads about a run: the list, the plan, its end. Text out of values; no clock, no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator import awake, store_words
from orchestrator.home import read_json
from orchestrator.render import (
    WIDTH,
    ago,
    clean,
    duration,
    facts,
    fit,
    moment,
    money,
    money_range,
    number,
    paint,
    percent,
    rfc3339,
    size,
    table,
    wrap,
)
from orchestrator.words import ADOPTED, STILL_BILLS, has_begun, proof_words, verdict
from providers.table import CONSOLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from orchestrator.glance import Run
    from orchestrator.home import RunFolder

STALE_SECONDS = 60.0  # a running run that nobody looked at for this long is not called running


def runs_table(
    runs: Sequence[Run],
    now: float,
    steps: Mapping[str, str],
    stuck: Mapping[str, Sequence[str]] | None = None,
    *,
    colour: bool = False,
) -> str:
    """`gpurun ps`; `steps` holds "120/480" by run id, where known. What needs saying of a run stands under its line.

    `stuck` says of runs, by id, why their results don't get to the store.

    What may still bill though it should not is red, and says where a person can look and end it by hand.
    """
    rows = [
        (
            run.run_id,
            _state(run, now),
            run.provider,
            duration(run.seconds(now)),
            steps.get(run.run_id, ""),
            "" if is_adopted(run) else money_range(run.low, run.high),
        )
        for run in runs
    ]
    head, *lines = table(("RUN", "STATE", "WHERE", "TIME", "STEP", "COST"), rows, right=(3, 4, 5)).split("\n")
    told = [head]
    for run, line in zip(runs, lines, strict=True):
        note, console = _note(run, now), console_of(run)
        under = [fit(f"  {note}", WIDTH)] if note else []
        under += [f"  look, and end it by hand if need be: {console}"] if console else []
        under += [wrap(f"  {words}", indent="  ") for words in (stuck or {}).get(run.run_id, ())]
        told += [paint(each, "bad", colour=colour and run.unproven) for each in (line, *under)]
    return "\n".join(told)


def is_adopted(run: Run) -> bool:
    """Whether all that is known of it is what lay in a store: this home never saw its meter."""
    return run.is_done and run.evidence.startswith(ADOPTED)


def console_of(run: Run) -> str:
    """Where the vendor shows a run that may bill though it should not; "" = it is not known to."""
    return CONSOLES.get(run.provider, "") if run.unproven else ""


def _state(run: Run, now: float) -> str:
    if run.is_done:
        return run.reason or "done"
    if run.stopping and run.state != "terminating":
        return "stopping"
    return f"{run.state}?" if _is_stale(run, now) else run.state


def _is_stale(run: Run, now: float) -> bool:
    last = run.seen or (run.intended_at - run.skew if run.intended else None)
    return last is not None and now - last > STALE_SECONDS


def _note(run: Run, now: float) -> str:
    detail = clean(run.detail)
    if run.is_done:
        return _billed(run, now) or ("" if run.reason == "completed" else detail)
    seen = f"seen {ago(now - run.seen)}; " if run.seen is not None and _is_stale(run, now) else ""
    if run.unproven:
        late = "" if run.state == "terminating" else f"{seen}up to {money(run.high)}; past its ceiling, "
        return f"{late}may still bill; {money(run.worst)} was quoted{': ' if detail else ''}{detail}"
    if run.state == "terminating":
        return f"nothing bills any more; what it left in the store is awaited{': ' if detail else ''}{detail}"
    if run.intended:
        return f"launch not settled: {seen}it may have rented; up to {money(run.high)}"
    if seen:
        return f"{seen}up to {money(run.high)}{f'; {awake.AFTER_SLEEP}' if run.needs_us else ''}"
    return detail or (_held(run) if run.high else "")


def _billed(run: Run, now: float) -> str:
    """What another home's machine did when its run was adopted; "" = nothing that bills, or its ceiling is past."""
    if not is_adopted(run) or STILL_BILLS not in run.evidence or now > run.ceiling:
        return ""
    return f"another home's machine of it billed when it was adopted; ends by {moment(run.ceiling)[11:16]} UTC"


def _held(run: Run) -> str:
    """Who ends it when: what is proven, else that nothing is. Of what costs nothing nobody asks."""
    holders = [one for one in run.held_by() if one["place"] != "here"]
    proven = [one["name"] for one in holders if one["proof"] == "proven"]
    begun = has_begun(run.state)
    hoped = [
        f"{one['name']} ({proof_words({**one, 'proven_at': ''}, begun=begun)})"
        for one in holders
        if one["proof"] not in {"proven", "absent"}
    ]
    absent = "".join(f"; {one['name']} is absent" for one in holders if one["proof"] == "absent")
    who = f"{', '.join(proven)}: proven" if proven else ", ".join(hoped) or f"this computer only{absent}"
    return f"ends by {moment(run.deadline)[11:16]} UTC · held by {who}"


def run_json(run: Run, folder: object) -> dict[str, Any]:
    """One run for programs."""
    return {
        "run_id": run.run_id,
        "template": run.template,
        "provider": run.provider,
        "state": run.state,
        "outcome": run.outcome or None,
        "reason": run.reason or None,
        "detail": run.detail,
        "attempt": run.attempt,
        "step": run.step,
        "created": rfc3339(run.created),
        "deadline": rfc3339(run.deadline),
        "ceiling": rfc3339(run.ceiling),
        "seen": rfc3339(run.seen),
        "ended": rfc3339(run.ended),
        "accrued_low_usd": run.low,
        "accrued_usd": run.high,
        "evidence": run.evidence,
        "unproven": run.unproven,
        "console_url": console_of(run) or None,
        "holders": run.held_by(),
        "folder": str(folder),
    }


def ending(run: Run, result: Mapping[str, Any], folder: RunFolder, checkpoint: Path | None = None) -> str:
    """The last words of a run: outcome, figures, where the files lie, and on whose word nothing bills."""
    metrics = result.get("metrics")
    listed = result.get("artifacts")
    artifacts = [file for file in listed if isinstance(file, dict)] if isinstance(listed, list) else []
    total = sum(file["size"] for file in artifacts if isinstance(file.get("size"), int))
    many = f"{len(artifacts)} file{'' if len(artifacts) == 1 else 's'}, {size(total)}"
    detail = "" if run.reason == "completed" else clean(run.detail)
    has_log = folder.log.exists()
    return facts(
        [
            ("run", run.run_id),
            ("outcome", verdict(run.outcome or "not over", run.reason or run.state)),
            ("why", detail),
            *_figures(metrics if isinstance(metrics, dict) else {}),
            ("artifacts", f"{folder.artifacts}\n({many})" if artifacts else "none"),
            ("store", store_words.last_word(read_json(folder.status) or {}) if run.is_done else ""),
            ("push", _push(metrics if isinstance(metrics, dict) else {})),
            ("checkpoint", str(checkpoint) if checkpoint and run.reason != "completed" else ""),
            ("log", f"gpurun logs {run.run_id}" if run.reason != "completed" and has_log else ""),
            ("wall time", duration(run.seconds(run.ended)) if run.ended else ""),
            ("cost", "not known in this home" if is_adopted(run) else money_range(run.low, run.high)),
            ("billing", _billing(run)),
        ]
    )


def _billing(run: Run) -> str:
    as_of = f" (as of {moment(run.ended or run.seen)})" if run.ended or run.seen else ""
    if is_adopted(run):
        return clean(run.evidence)
    if run.is_done:
        return f"nothing bills any more: {clean(run.evidence) or 'nothing was launched'}{as_of}"
    if run.freed:
        return f"nothing bills any more: {clean(run.evidence)}{as_of}; what it left in the store is awaited"
    return f"MAY STILL BILL: {clean(run.evidence) or 'its end is not proven yet'}{as_of}"


def _figures(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The figures worth a line: accuracy with its baseline, then the losses."""
    pairs = []
    accuracy, majority = metrics.get("accuracy"), metrics.get("majority_accuracy")
    if isinstance(accuracy, int | float):
        base = f" (the majority class alone: {majority:.3f})" if isinstance(majority, int | float) else ""
        pairs.append(("accuracy", f"{accuracy:.3f}{base}"))
    for key in ("loss", "eval_loss"):
        value = metrics.get(key)
        if isinstance(value, int | float):
            pairs.append((key.replace("_", " "), number(value)))
        elif isinstance(value, str):
            pairs.append((key.replace("_", " "), clean(value)))
    trainable, total = metrics.get("trainable_parameters"), metrics.get("parameters")
    if isinstance(trainable, int) and isinstance(total, int) and total:
        pairs.append(("trained", f"{trainable:,} of {total:,} parameters ({percent(trainable / total)})"))
    return pairs


def _push(metrics: Mapping[str, Any]) -> str:
    """How the push of --push-to-hub went (payload/hub_push.py); "" = there was none."""
    repo, private = metrics.get("push_repo"), metrics.get("push_private")
    if not isinstance(repo, str):
        return ""
    if metrics.get("push_error"):
        by_hand = f"hf upload {clean(repo)} <the artifacts>{' --private' if private else ''}"
        return f"FAILED, and nothing is lost: {clean(str(metrics['push_error']))}\nby hand: {by_hand}"
    commit = clean(str(metrics.get("push_commit", "")))[:12]
    return f"{clean(repo)} on the Hub, {'private' if private else 'public'}, commit {commit}"


def check_line(name: str, verdict: str, text: str, what_next: str) -> str:
    """One finding of `doctor`, and under it what to type."""
    lines = [wrap(f"{verdict:<5} {name:<15} {clean(text)}", indent=" " * 22)]
    if what_next:
        lines.append(wrap(f"{'':22}next: {clean(what_next)}", indent=" " * 22))
    return "\n".join(lines)
