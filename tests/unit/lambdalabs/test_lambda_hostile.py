"""What Lambda might answer on its worst day, word by word: nothing of it becomes an absence, a bill unseen, a leak."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from lambdas import lambda_job
from scripted import Answer

from providers.base import Phase
from providers.errors import (
    CredentialsError,
    NoCapacityError,
    ProviderError,
    QuotaError,
    UnreachableError,
)

ID = "0920582c7ff041399e34823a0be62549"
TOKEN = "03b7d30d9d3e4d8fa41657bc0d478c1b"  # noqa: S105 - nobody's
KINDS = ("region", "instance_type", "ssh_key_names", "tags", "actions", "ip", "name", "status", "first_healthy")
JUNK = [
    None,
    "",
    [],
    {},
    0,
    -1,
    True,
    1e308,
    "x" * 10**5,
    "\x1b]0;evil\x07\r\n",
    [None],
    [[]],
    {"a": None},
    "ünïcode\u202e",
]


def row(**more) -> dict:
    return {
        "id": ID,
        "name": "box",
        "ip": "198.51.100.2",
        "status": "active",
        "ssh_key_names": [],
        "file_system_names": [],
        "region": {"name": "us-west-1", "description": "California"},
        "instance_type": {"name": "gpu_1x_a10", "price_cents_per_hour": 129},
        "jupyter_token": TOKEN,
        "jupyter_url": f"https://jupyter.lambdaspaces.com/?token={TOKEN}",
        "actions": {},
        **more,
    }


def page(rows: list, token) -> Answer:
    return Answer.data(rows, **dict.fromkeys(["page_token"], token))


# ── instances ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("field", KINDS)
@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk)[:20])
def test_junk_in_a_field_never_ends_a_machine(server, client, field, junk):
    server.script = [Answer.data(row(**{field: junk})), Answer.data([row(**{field: junk})])]
    look = client.inspect(ID)
    assert look.billing
    assert look.phase in {Phase.READY, Phase.QUEUED}
    assert f"{look.evidence}{look.message}".isprintable()
    (one,) = client.allocations()
    assert (one.billing, one.id) == (True, ID)
    assert one.name.isprintable()
    assert len(f"{look}{one}") < 2000


@pytest.mark.parametrize("field", KINDS)
def test_a_field_that_is_missing_never_ends_a_machine(server, client, field):
    server.script = [Answer.data({name: value for name, value in row().items() if name != field})]
    assert client.inspect(ID).billing


@pytest.mark.parametrize("junk", [None, "", 7, [], "../../etc", "a/b", "x" * 129])
def test_a_machine_without_a_usable_id_is_an_error_and_not_passed_over(server, client, junk):
    server.script = [Answer.data([row(), row(id=junk)])]
    for verb in (client.allocations, lambda: client.find(lambda_job(client._home).mark)):
        with pytest.raises(ProviderError, match="without an id"):
            verb()


def test_an_answer_about_another_machine_is_an_error(server, client):
    server.script = [Answer.data(row(id="f" * 32))]
    with pytest.raises(ProviderError, match="another instance"):
        client.inspect(ID)


@pytest.mark.parametrize("data", [None, "gone", 0, []])
def test_an_answer_about_nothing_is_an_error(server, client, data):
    server.script = [Answer.data(data)]
    with pytest.raises(ProviderError):
        client.inspect(ID)


def test_what_opens_the_machine_is_not_kept(server, client):
    server.script = [Answer.data(row()), Answer.data([row()]), Answer.data(row(id="f" * 32))]
    kept = repr(client.inspect(ID)) + repr(client.allocations())
    with pytest.raises(ProviderError) as caught:
        client.inspect(ID)
    assert TOKEN not in kept + repr(caught.value)


@pytest.mark.parametrize(
    ("told", "since"),
    [
        ("2026-11-22T10:00:00.000Z", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("2026-11-22T12:00:00+02:00", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("2026-11-22T10:00:00", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("0001-01-01T00:00:00+23:59", None),
        ("soon", None),
    ],
)
def test_the_beginning_of_billing_is_told_in_utc(server, client, told, since):
    server.script = [Answer.data(row(first_healthy=told))]
    assert client.inspect(ID).billed_from == since


@pytest.mark.parametrize("ip", ["127.0.0.1; rm -rf /", "example.com", "1.2.3", "-oProxyCommand=x", "10.0.0.1\n"])
def test_only_an_address_is_an_address(server, client, ip):
    server.script = [Answer.data(row(ip=ip))]
    assert client.inspect(ID).phase is Phase.QUEUED


# ── absence ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, b"<html>not found</html>"),
        Answer(404, b""),
        Answer(404, b"{}"),
        Answer(404, b'{"error": "gone"}'),
        Answer(404, b'{"error": {"code": null}}'),
        Answer.error(404, "global/something-new"),
        Answer.error(400, "global/object-does-not-exist"),
        Answer.error(403, "global/object-does-not-exist"),
        Answer.error(500, "global/object-does-not-exist"),
        Answer(200, b'{"error": {"code": "global/object-does-not-exist"}}'),
        Answer(204, b""),
        Answer(410, b""),
    ],
    ids=lambda answer: f"{answer.status} {answer.body.decode()[:30]}",
)
def test_only_lambda_s_own_word_is_absence(server, client, answer):
    server.script = [answer]
    with pytest.raises(ProviderError):
        client.inspect(ID)


def test_nothing_found_at_an_address_that_lists_nothing_either_is_no_absence(server, client):
    """So answers an address that is not the API's: every path is unknown there."""
    server.script = [Answer.error(404, "global/not-found")]
    with pytest.raises(ProviderError):
        client.inspect(ID)


def test_nothing_found_is_absence_where_the_list_works_and_lacks_it(server, client):
    server.script = [Answer.error(404, "global/not-found"), Answer.data([row(id="f" * 32)])]
    assert client.inspect(ID).phase is Phase.ABSENT
    server.script = [Answer.error(404, "global/not-found"), Answer.data([row()])]
    with pytest.raises(UnreachableError, match="yet it is listed"):
        client.inspect(ID)


# ── lists ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "script",
    [
        [page([row()], "a"), page([row()], "a")],
        [page([row()], "a"), Answer(500)],
        [page([row()], 7)],
        [page([row()], {"next": 1})],
        [Answer.data({"instances": []})],
        [Answer.data("none")],
        [Answer(200, b'{"instances": []}')],
    ],
    ids=["round and round", "broken off", "a number", "an object", "no list", "a word", "no data"],
)
def test_a_list_that_was_not_followed_to_its_end_is_an_error(server, client, script):
    server.script = script
    with pytest.raises(ProviderError):
        client.allocations()


def test_the_next_page_is_asked_for_by_its_token(server, client):
    server.script = [
        page([row()], "a/b c"),
        page([], "d"),
        page([row(id="f" * 32)], None),
    ]
    assert [one.id for one in client.allocations()] == [ID, "f" * 32]
    assert [asked.path for asked in server.asked] == [
        "/instances",
        "/instances?page_token=a%2Fb+c",
        "/instances?page_token=d",
    ]


# ── the catalogue ─────────────────────────────────────────────────────────────────────────────────────────────────


def kind(**more) -> dict:
    return {
        "instance_type": {
            "name": "gpu_1x_a10",
            "gpu_description": "A10 (24 GB PCIe)",
            "price_cents_per_hour": 129,
            "specs": {"vcpus": 30, "memory_gib": 200, "storage_gib": 1400, "gpus": 1},
            **more,
        },
        "regions_with_capacity_available": [{"name": "us-west-1", "description": "California"}],
    }


@pytest.mark.parametrize("price", [None, "129", 0, -5, True, 1.5, 10**12, [], {}])
def test_what_has_no_price_is_not_on_offer(server, client, price):
    server.script = [Answer.data({"gpu_1x_a10": kind(price_cents_per_hour=price), "b": None, "c": {}, "d": []})]
    assert client.offers() == []


@pytest.mark.parametrize("name", [None, "", "../x", "a b", "gpu_1x_a10@us-east-1", "x\x1b[2J", "g" * 64, {}])
def test_what_has_no_plain_name_is_not_on_offer(server, client, name):
    server.script = [Answer.data({"gpu_1x_a10": kind(name=name)})]
    assert client.offers() == []


@pytest.mark.parametrize("field", ["specs", "gpu_description", "description", "architecture"])
@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk)[:20])
def test_junk_in_a_type_s_field_leaves_its_price(server, client, field, junk):
    server.script = [Answer.data({"gpu_1x_a10": kind(**{field: junk})})]
    (offer,) = client.offers()
    assert (offer.price, offer.gpu, offer.gpu_count) == (Decimal("1.29"), "a10", 1)


@pytest.mark.parametrize("junk", [None, [], "us-west-1", [None], [{"name": None}], [{"name": "../x"}], {}])
def test_a_type_without_a_usable_region_is_sold_out(server, client, junk):
    server.script = [Answer.data({"gpu_1x_a10": {**kind(), "regions_with_capacity_available": junk}})]
    assert [(offer.region, offer.available) for offer in client.offers()] == [("", False)]


@pytest.mark.parametrize("data", [[], "none", 7, [kind()]])
def test_a_catalogue_that_is_none_is_an_error_and_no_empty_shop(server, client, data):
    server.script = [Answer.data(data)]
    with pytest.raises(ProviderError):
        client.offers()


@pytest.mark.parametrize(
    ("name", "described", "gpu", "vram"),
    [
        ("gpu_1x_a100_sxm4", "A100 (80 GB SXM4)", "a100-80gb", 80.0),
        ("gpu_1x_a100_sxm4", "A100 (40 GB SXM4)", "a100-40gb", 40.0),
        ("gpu_1x_h200_sxm5", "H200 (141 GB SXM5)", "h200-sxm5", 141.0),
        ("gpu_4x_b200_sxm6", "", "b200", 179.1),
    ],
)
def test_a_gpu_is_named_by_its_type_unless_its_memory_says_otherwise(server, client, name, described, gpu, vram):
    server.script = [Answer.data({name: kind(name=name, gpu_description=described, specs=None)})]
    (offer,) = client.offers()
    assert (offer.gpu, offer.vram_gib, offer.gpu_count) == (gpu, vram, int(name[4]))


def test_a_front_door_that_turns_us_away_is_no_empty_shop(server, client):
    server.script = [Answer(403, b"error code: 1010", {"Content-Type": "text/plain"})]
    with pytest.raises(UnreachableError, match="front door, not the key"):
        client.offers()


# ── refusals ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (401, "global/invalid-api-key", CredentialsError),
        (401, "global/expired-api-key", CredentialsError),
        (403, "global/account-inactive", CredentialsError),
        (403, "global/forbidden", CredentialsError),
        (403, "global/invalid-address", QuotaError),
        (400, "global/quota-exceeded", QuotaError),
        (400, "instance-operations/launch/insufficient-capacity", NoCapacityError),
        (409, "global/internal-error", UnreachableError),
        (400, "provider/internal-unavailable", UnreachableError),
        (408, "global/timeout", UnreachableError),
        (429, "global/rate-limited", UnreachableError),
        (400, "global/made-up-later", ProviderError),
    ],
)
def test_a_code_has_its_place_in_our_tree(server, client, status, code, error):
    server.script = [Answer.error(status, code, "No.\x1b[31m")]
    with pytest.raises(error) as caught:
        client.allocations()
    assert type(caught.value) is error
    assert code in str(caught.value)
    assert str(caught.value).isprintable()
