"""What a launch at Colab takes leave for: its free tier, another GPU, shells that there are none of, hours that end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from orchestrator import plan as planning
from orchestrator.cloud import asked_for
from orchestrator.config import Limits
from orchestrator.home import Home
from orchestrator.rent import template
from orchestrator.wish import Wish
from providers.base import Offer
from providers.errors import RefusedError, UsageError

PAID = Offer("colab", "T4", "t4", 1, Decimal("0.1069"), most_hours=24.0)
GRATIS = Offer("colab", "T4@free", "t4", 1, Decimal(0), cloud="free", most_hours=2.0)
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def test_a_free_tier_is_taken_by_leave_alone_and_where_nothing_can_be_paid():
    assert asked_for([PAID, GRATIS], "", free_tier=True) == [PAID]
    assert asked_for([GRATIS], "", free_tier=True) == [GRATIS]
    with pytest.raises(RefusedError) as caught:
        asked_for([GRATIS], "")
    assert "--allow-free-tier" in caught.value.hint


def test_no_deadline_and_no_ceiling_lies_past_what_the_vendor_lends():
    limits = Limits(max_hours=12, extendable_to_hours=20)
    for offer, hours in ((GRATIS, 2), (PAID, 12)):
        times = planning.times(limits, offer.price, NOW, most_hours=offer.most_hours)
        assert times.deadline - NOW == timedelta(hours=hours)
        assert times.ceiling - NOW == timedelta(hours=2 if offer is GRATIS else 20)
    assert planning.times(limits, Decimal(0), NOW).ceiling - NOW == timedelta(hours=20)


def test_no_shell_is_promised(tmp_path):
    with pytest.raises(UsageError, match="no machines to log in to"):
        template(Home(tmp_path), Wish("rent", "colab", "t4", ()), {})
