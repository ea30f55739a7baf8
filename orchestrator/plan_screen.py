"""The plan as a person reads it before anything is rented: offer, quote, limits, who stops the meter. Text, no I/O."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from orchestrator import awake
from orchestrator.cloud import COMMUNITY, RISK
from orchestrator.estimate import words
from orchestrator.plan import GUARD_HERE
from orchestrator.render import duration, facts, money, money_range, price, size
from orchestrator.store import HUB_FREE, from_json
from orchestrator.stored_data import LEAST, goes_by_store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.store import Ability, Address

_KEY_RISK = (
    "YOUR ACCOUNT'S KEY GOES TO THE MACHINE, to a file of root's. It opens the whole account: who gets root there, or"
    " whose code runs there (yours, its packages, the model's), can use it: rent in your name, end what is yours."
)


def plan_screen(plan: Mapping[str, Any], limits: Mapping[str, Any]) -> str:
    """The plan as shown before anything is rented; `plan` is `Plan.as_json()`, `limits` the template's."""
    return facts(
        [
            ("run", plan["run_id"]),
            ("offer", _offer(plan["offer"]) + _else(plan)),
            ("why", plan.get("why", "")),
            ("wait", _wait(plan)),
            *quote_facts(plan["quote"], Decimal(plan["offer"]["price"])),
            ("limits", _limits(plan["times"], plan["launched"], limits)),
            ("probe", _probe(plan)),
            ("month", _month(plan)),
            ("holders", "\n".join(map(holder_line, plan["holders"]))),
            ("key", _KEY_RISK if plan.get("key_on_machine") else ""),
            ("cloud", RISK if plan["offer"].get("cloud") == COMMUNITY else ""),
            ("host key", "NOT VERIFIED: whatever the machine shows first is taken" if _trusts(plan) else ""),
            ("checked", "\n".join(plan.get("checked", ()))),
            ("ships", _shipped(plan)),
            *((name, words) for name, words in plan.get("remarks", ())),
            ("left out", ", ".join(plan["left_out"])),
            ("results", _results(plan)),
            ("store", _store(plan)),
            ("end", plan["sentence"]),
            ("asleep", _asleep(plan)),
        ]
    )


def holder_line(holder: Mapping[str, Any]) -> str:
    """One line a holder: who, where, and on whose word; why not, where it is absent."""
    since = moment_of(holder.get("proven_at"))
    why = holder.get("evidence")
    words = {"proven": f" {since}" if since else "", "absent": f": {why}" if why else ""}
    timer = holder["place"] == "here" and holder["name"] == GUARD_HERE and holder["proof"] == "proven"
    more = "; sleeps and dies with this computer, as the controller does" if timer else ""
    return f"{holder['name']} ({holder['place']}): {holder['proof']}{words.get(holder['proof'], '')}{more}"


def moment_of(time: str | None) -> str:
    """`14:32 UTC` of an ISO time; nothing for None."""
    return f"{datetime.fromisoformat(time):%H:%M} UTC" if time else ""


def _probe(plan: Mapping[str, Any]) -> str:
    steps = plan.get("probe_steps")
    return f"{steps} steps there, then time and price anew; it stops if the limits can't hold them" if steps else ""


def _month(plan: Mapping[str, Any]) -> str:
    """What the monthly cap leaves; nothing where nothing bills."""
    month = plan.get("month")
    if not month:
        return ""
    cap, spent, reserved = (money(Decimal(month[key])) for key in ("cap", "spent", "reserved"))
    over = sum(Decimal(month[key]) for key in ("spent", "reserved")) + Decimal(plan["quote"]["worst"])
    more = f"; OVER THE CAP with {money(Decimal(plan['quote']['worst']))} more" if over > Decimal(month["cap"]) else ""
    return f"cap {cap}: {spent} spent, {reserved} reserved by open runs (this home's ledger only){more}"


def _offer(offer: Mapping[str, Any]) -> str:
    what = f"{offer['gpu_count']} x {offer['gpu']}" if offer["gpu"] else "CPU"
    cores = f", {offer['vcpus']} cores" if offer["vcpus"] else ""
    memory = f", {offer['memory_gib']:.0f} GiB memory" if offer["memory_gib"] else ""
    return f"{offer['provider']} {offer['name']}: {what}{cores}{memory}, {price(Decimal(offer['price']))}"


def _else(plan: Mapping[str, Any]) -> str:
    """What is taken where the first offer is gone when it is asked for."""
    others = plan.get("candidates", ())[1:]
    if not others:
        return ""
    dearest = price(max(Decimal(one["price"]) for one in others))
    many = "one" if len(others) == 1 else f"the next of {len(others)}"
    return f"\nelse {many} like it, at most {dearest}"


def _wait(plan: Mapping[str, Any]) -> str:
    seconds = plan.get("wait_seconds")
    return f"where none is free, asks again for {duration(seconds)}, within the limits" if seconds else ""


def _results(plan: Mapping[str, Any]) -> str:
    """Where they come home to; without a store, what waiting for this computer may cost."""
    usd, deadline = Decimal(plan["offer"]["price"]), datetime.fromisoformat(plan["times"]["deadline"])
    if awake.must_stay(plan):
        return f"{plan['folder']}\n{awake.IN_PLAN}"
    if plan.get("store") or not usd:
        return str(plan["folder"])
    if any(one["place"] == "server" for one in plan["holders"]):  # a job: it ends by itself when it is done
        return (
            f"{plan['folder']}\nuntil they are here, they lie at {plan['offer']['provider']}, where nothing bills then"
        )
    most = money(Decimal(plan["quote"]["worst"]))
    return (
        f"{plan['folder']}\nuntil they are here, they are only on the machine: while this computer sleeps, it bills on,"
        f" at most until {deadline:%H:%M} UTC ({most} in all). With --store nothing is lost that way"
    )


def _store(plan: Mapping[str, Any]) -> str:
    """Where results go while it trains, and what the machine does once they are there."""
    store = plan.get("store")
    if not store:
        return ""
    address, ability = from_json(store)
    job = plan["offer"]["provider"] == "hf"
    ender = any(one["place"] == "machine" and one["proof"] != "absent" for one in plan["holders"])
    if job:
        ends = "the job ends once all is there"
    elif not store["checksums"]:
        ends = "it tells no checksums: the machine waits for this computer, or the deadline"
    elif ender:
        ends = "the machine ends itself once all is verified there"
    else:
        ends = "the machine can't end itself: it waits for this computer, or the deadline"
    lines = [f"{address}: log, checkpoints, artifacts, as it trains", ends, _leave(address, ability, plan)]
    lines += _data_there(plan)
    if address.is_hub:
        return "\n".join([*lines, f"{money(address.monthly_usd(10**12) or Decimal(0))} a TB and month {HUB_FREE}"])
    ceiling, begun = (datetime.fromisoformat(text) for text in (plan["times"]["ceiling"], plan["launched"]))
    if ceiling - begun > ability.life:
        most = "7 days" if ability.lasting else "1 h, since your key is a session's"
        lines.append(
            f"which lives {most}; renewed while this computer is awake, else what comes later waits on the machine"
        )
    return "\n".join(lines)


def _data_there(plan: Mapping[str, Any]) -> list[str]:
    """Say what of the data goes up before anything is rented."""
    whole = sum(blob[1] for blob in plan["data"])
    if not goes_by_store(plan["offer"]["provider"]) or whole < LEAST:
        return []
    return [f"data go there first, {size(whole)}, once for all runs; the machine fetches them by signed addresses"]


def _leave(address: Address, ability: Ability, plan: Mapping[str, Any]) -> str:
    """Say what of the store's keys goes to the machine."""
    if not address.is_hub:
        how = "a signed policy" if ability.policies else "signed slots, since it holds to no policies"
        return f"no key of it goes to the machine, but {how}"
    provider = plan["offer"]["provider"]
    if provider == "hf":
        return "no token of it goes to the job: its folder of the bucket is mounted"
    return (
        "it is this computer's own token that opens it"
        if provider == "local"
        else "HF_STORE_TOKEN goes along as a secret"
    )


def _asleep(plan: Mapping[str, Any]) -> str:
    """What a closed laptop costs where nobody else can end the bill."""
    others = [one for one in plan["holders"] if one["place"] != "here" and one["proof"] != "absent"]
    usd = max(Decimal(one["price"]) for one in plan.get("candidates") or [plan["offer"]])
    return f"each hour that this computer sleeps past it costs {money(usd)} more" if usd and not others else ""


def _trusts(plan: Mapping[str, Any]) -> bool:
    return bool(plan.get("trust_on_first_use"))


def _shipped(plan: Mapping[str, Any]) -> str:
    data = plan["data"]
    many = f"{len(data)} data file{'' if len(data) == 1 else 's'} ({size(sum(blob[1] for blob in data))})"
    return f"{many if data else 'no data'} and a bundle of {size(plan['bundle_bytes'])}"


def quote_facts(quote: Mapping[str, Any], per_hour: Decimal) -> list[tuple[str, str]]:
    """The estimate's lines: fit, time by stage, pace, dollars, and what is to be known of them."""
    fits, sizes, pace, seconds = (quote.get(name) for name in ("fits", "memory_gib", "tokens_per_second", "seconds"))
    notes = [*quote.get("notes", ())]
    if fits and fits != "fits" and quote.get("fix"):
        notes.insert(0, f"to make it fit: {quote['fix']}")
    return [
        ("memory", words.memory(fits, sizes["process"], quote["card_gib"]) if fits and sizes else ""),
        ("time", words.time(seconds, quote.get("steps", 0), quote.get("stages", {})) if seconds else ""),
        ("speed", words.speed(pace) if pace else ""),
        ("quote", _quote(quote, per_hour)),
        ("note", "; ".join(notes)),
    ]


def _quote(quote: Mapping[str, Any], per_hour: Decimal) -> str:
    basis = quote["basis"]
    if not per_hour:
        free = "$0.00: this computer costs nothing"
        return f"{free}. {basis[:1].upper()}{basis[1:]}" if quote["seconds_likely"] is None else f"{free}; {basis}"
    most = f"at most {money(Decimal(quote['worst']))}, what the limits allow"
    if quote["likely"] is None:
        return f"{most}: {basis}"
    return f"{money_range(Decimal(quote['low']), Decimal(quote['likely']))}, {most}; {basis}"


def _limits(times: Mapping[str, Any], launched: str, limits: Mapping[str, Any]) -> str:
    begin = datetime.fromisoformat(launched)
    deadline, ceiling = datetime.fromisoformat(times["deadline"]), datetime.fromisoformat(times["ceiling"])
    words = [f"ends by itself after {duration((deadline - begin).total_seconds())} ({deadline:%H:%M} UTC)"]
    if ceiling != deadline:
        words.append(f"extendable to {ceiling:%H:%M} UTC")
    if times.get("max_cost"):
        built_in = "" if limits.get("max_cost") else " (built in; more with --max-cost)"
        longer = ", which is as long as that lasts" if times.get("budget_bound") else ""
        words.append(f"at most {money(Decimal(times['max_cost']))}{built_in}{longer}")
    attempts = times.get("attempts", limits.get("max_attempts"))
    if attempts is not None and attempts < limits.get("max_attempts", attempts):
        words.append(f"{'one machine' if attempts == 1 else f'{attempts} machines'} at most: more would cost more")
    if 60 * limits["max_idle_minutes"] < (ceiling - begin).total_seconds():
        words.append(f"hung after {duration(60 * limits['max_idle_minutes'])} without a step")
    return ", ".join(words)
