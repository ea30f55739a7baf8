"""The bundled offers: each dated, sourced, plausible, of a known card."""

from datetime import date
from decimal import Decimal

import pytest

from orchestrator.estimate import catalogue, gpus
from orchestrator.estimate.catalogue import Listed

LISTED = catalogue.listed()
UNDATED = {("colab", "H100")}  # nobody dated it: shown so


@pytest.mark.parametrize("offer", LISTED, ids=lambda one: f"{one.provider}-{one.name}-{one.cloud}")
def test_every_offer_has_a_date_a_source_and_a_plausible_price(offer):
    assert offer.source
    assert offer.confidence in {"high", "medium", "low"}
    assert (offer.provider, offer.name) in UNDATED or date(2025, 11, 1) <= offer.as_of <= catalogue.COMPILED
    assert Decimal("0.02") <= offer.price / offer.count <= 20
    assert 1 <= offer.count <= 8
    assert offer.card is gpus.table()[offer.card.name]


@pytest.mark.parametrize("provider", ["lambda", "runpod", "hf", "colab"])
def test_every_provider_is_listed(provider):
    assert any(offer.provider == provider for offer in LISTED)


def test_colab_is_dollars_an_hour_with_its_units_beside():
    offer = next(one for one in LISTED if (one.provider, one.name) == ("colab", "A100"))
    assert offer.units_hour == Decimal("5.4")
    assert offer.price == pytest.approx(offer.units_hour * Decimal("0.0999"), rel=Decimal("0.01"))


def test_the_cheapest_of_a_card_is_taken_and_runpod_rents_several_of_one():
    found = catalogue.cheapest(gpus.card("4090"), 1)
    assert isinstance(found, Listed)
    assert found.price == min(
        one.price for one in LISTED if one.card.name == "rtx-4090" and one.count == 1 and one.cloud != "community"
    )
    four = catalogue.cheapest(gpus.card("4090"), 4, "runpod")
    assert four.price == 4 * catalogue.cheapest(gpus.card("4090"), 1, "runpod").price


def test_an_age_is_counted_from_the_day_it_was_seen():
    offer = next(one for one in LISTED if one.as_of)
    assert offer.age_days(date(2027, 1, 1)) == (date(2027, 1, 1) - offer.as_of).days


def test_runpod_bills_its_disk_besides():
    offer = next(one for one in LISTED if one.provider == "runpod")
    assert offer.rental(100).disk_usd_hour == pytest.approx(Decimal(10) / 730)
    assert offer.rental(0).disk_usd_hour == 0
