"""Fit, time and dollars before renting. Pure: counts in, ranges out; data files carry their sources.

    models.find("Qwen/Qwen2.5-7B") -> Shape ─┐
    settings or flags ───────────> Work ─────┼─> quote.estimate(work, card, count, amount) -> Estimate
    gpus.family("a100") ─────────> Card ─────┘                      footprint · speed · hours · disk · fix

Not here: live offers, the plan (plan.py), what was measured on the user's own runs (ledger).
"""
