"""What a simulated VM of Colab's draws, who may have which, and what ends it but its owner."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from colab_fixture import ColabSim


@pytest.fixture
def still(start_colab: Callable[..., ColabSim]) -> ColabSim:
    """A world that moves only when it is told to."""
    return start_colab(rate=0.001)


def keep_alive(sim: ColabSim, endpoint: str) -> None:
    header = {"X-Colab-Tunnel": "Google"}
    assert sim.tunnel("GET", f"/{endpoint}/keep-alive/", headers=header).status_code == 200


def ended_by(sim: ColabSim) -> list[str]:
    return [row["ended_by"] for row in sim.meter()["allocations"]]


def test_the_rate_is_the_sum_of_all_vms(still):
    assert still.ccu()["consumptionRateHourly"] == 0
    for accelerator in ("T4", "A100"):
        still.assigned(accelerator)
    told = still.ccu()
    assert (told["consumptionRateHourly"], told["assignmentsCount"]) == (pytest.approx(1.07 + 5.4), 2)
    still.end()


def test_the_balance_falls_by_what_is_drawn_in_units_and_dollars(still):
    before = still.ccu()["currentBalance"]
    still.assigned("T4")
    still.advance(1800)
    still.end()
    meter = still.meter()
    assert float(meter["units"]) == pytest.approx(1.07 / 2, abs=0.002)
    assert before - still.ccu()["currentBalance"] == pytest.approx(float(meter["units"]), abs=1e-6)
    assert Decimal(meter["usd"]) == pytest.approx(Decimal(meter["units"]) * Decimal("0.0999"), abs=Decimal("0.000001"))
    assert meter["allocations"][0]["units_per_hour"] == "1.07"


def test_the_shape_with_more_memory_is_another_card_at_another_rate(still):
    given = still.assigned("A100", shape="hm")
    assert (given["accelerator"], given["machineShape"]) == ("A100", 1)
    assert still.ccu()["consumptionRateHourly"] == pytest.approx(7.52)
    still.end()


def test_a_rate_can_be_moved_for_the_next_one(still):
    still.tell("/clock", {"prices": {"T4": "2.5"}})
    still.assigned("T4")
    assert still.ccu()["consumptionRateHourly"] == pytest.approx(2.5)
    still.end()


def test_who_never_paid_has_one_small_gpu_and_a_quota_in_thousandths(still):
    still.faults({"free_tier": {"units": 4.748}})
    told = still.ccu()
    assert (told["currentBalance"], told["eligibleGpus"]) == (0, ["T4"])
    assert "A100" in told["ineligibleGpus"]
    assert told["freeCcuQuotaInfo"]["remainingTokens"] == "4748"
    assert still.assign("A100").status_code == 400
    given = still.assigned("T4")
    assert (given["sub"], given["subTier"]) == (1, 0)
    assert still.assign("T4").status_code == 412
    still.advance(3600)
    assert int(still.ccu()["freeCcuQuotaInfo"]["remainingTokens"]) == pytest.approx(4748 - 1070, abs=5)
    still.end()
    assert still.meter()["usd"] in {"0", "0.000000"}


def test_a_free_quota_that_is_gone_ends_the_vm_and_gives_no_other(still):
    still.faults({"free_tier": {"units": 0.1}})
    still.assigned("T4")
    still.advance(3600)
    assert ended_by(still) == ["free quota"]
    assert "endpoint" not in still.assigned("T4")
    assert still.assigned("T4")["outcome"] == 2


def test_a_balance_that_is_gone_ends_what_only_payers_have(still):
    endpoint = still.assigned("T4")["endpoint"]
    still.assigned("L4")
    still.faults({"balance": {"units": 0.5, "free": 3.0}})
    still.advance(3600)
    assert still.ccu()["currentBalance"] == 0
    assert [row["endpoint"] for row in still.listed()] == [endpoint]
    assert sorted(ended_by(still)) == ["", "balance"]
    paid = Decimal(still.meter()["usd"])
    still.advance(60)
    keep_alive(still, endpoint)
    assert Decimal(still.meter()["usd"]) == paid
    still.end()


def test_without_any_free_quota_a_balance_that_is_gone_ends_all(still):
    still.assigned("T4")
    still.faults({"balance": {"units": 0.1}})
    still.advance(3600)
    assert still.listed() == []


def test_an_idle_vm_is_taken_after_ninety_minutes_and_a_ping_puts_it_off(still):
    endpoint = still.assigned()["endpoint"]
    still.advance(80 * 60)
    keep_alive(still, endpoint)
    still.advance(80 * 60)
    assert [row["endpoint"] for row in still.listed()] == [endpoint]
    still.advance(11 * 60)
    assert (still.listed(), ended_by(still)) == ([], ["idle"])


def test_the_idle_limit_can_be_shorter(still):
    still.faults({"idle_reaper": {"seconds": 60}})
    still.assigned()
    still.advance(61)
    assert ended_by(still) == ["idle"]


def test_nothing_lives_for_longer_than_twelve_hours(still):
    endpoint = still.assigned()["endpoint"]
    for _ in range(11):
        still.advance(3600)
        keep_alive(still, endpoint)
    assert ended_by(still) == [""]
    still.advance(3600)
    assert ended_by(still) == ["lifetime"]
