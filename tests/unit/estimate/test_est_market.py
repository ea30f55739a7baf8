"""Live offers beside the bundled ones: a vendor is asked where a key is at hand, once in a quarter of an hour."""

from datetime import date
from decimal import Decimal

import pytest

from orchestrator.estimate import catalogue
from orchestrator.home import Home
from orchestrator.market import FRESH_SECONDS, Market, market, of_provider
from orchestrator.offers_page import listing, wished
from providers.errors import UsageError


@pytest.fixture
def account(lambda_sim, monkeypatch):
    for name, value in lambda_sim.exports.items():
        monkeypatch.setenv(name, value)
    return lambda_sim


def asked(sim):
    return sum("instance-types" in record["path"] for record in sim.asked())


def test_without_a_key_the_bundled_prices_stand(home):
    found = market(Home(home))
    assert found.offers == catalogue.listed()
    assert found.notes == ()


@pytest.mark.usefixtures("account")
def test_with_a_key_a_vendors_own_prices_take_the_place_of_the_bundled(home):
    found = market(Home(home))
    own = of_provider(found, "lambda").offers
    assert own
    assert {one.confidence for one in own} == {"live"}
    assert {one.available for one in own} <= {True, False}
    assert all(one.age_days(found.today) == 0 for one in own)
    assert [one for one in found.offers if one.provider == "runpod"] == [
        one for one in catalogue.listed() if one.provider == "runpod"
    ]


def test_a_vendor_is_asked_once_in_a_quarter_of_an_hour_unless_told(account, home):
    market(Home(home))
    before = asked(account)
    assert market(Home(home)).offers == market(Home(home)).offers
    assert asked(account) == before
    market(Home(home), refresh=True)
    assert asked(account) > before
    assert FRESH_SECONDS == 900


@pytest.mark.usefixtures("account")
def test_a_vendor_that_refuses_the_key_is_named_and_its_bundled_prices_stand(home, monkeypatch):
    monkeypatch.setenv("LAMBDA_API_KEY", "secret_wrong_0123456789abcdef.0123456789abcdef0123456789abcdef")
    found = market(Home(home))
    assert of_provider(found, "lambda").offers == tuple(one for one in catalogue.listed() if one.provider == "lambda")
    assert any(note.startswith("lambda could not be asked") for note in found.notes)


@pytest.mark.usefixtures("account")
def test_live_rows_say_now_and_free(home):
    page = listing(of_provider(market(Home(home)), "lambda"))
    assert "now" in page
    assert "yes" in page


@pytest.mark.usefixtures("account")
def test_a_live_price_is_what_the_vendor_said(home):
    found = {one.name: one.price for one in of_provider(market(Home(home)), "lambda").offers}
    named = next(name for name in found if name.startswith("gpu_1x_a10"))
    assert Decimal("0.3") < found[named] < Decimal(10)
    assert date.today() >= catalogue.COMPILED  # noqa: DTZ011 (only that the catalogue is not of the future)


def test_what_nobody_was_asked_is_not_told_as_sold_out():
    bundled = Market(tuple(catalogue.listed()), (), date(2026, 11, 22))
    shown = " ".join(listing(wished(bundled, None, None, 0.0, None, available=True)).split())
    assert "nobody was asked what is free" in shown
    with pytest.raises(UsageError, match="local is free and has no offers"):
        wished(bundled, None, "local", 0.0, None, available=False)
