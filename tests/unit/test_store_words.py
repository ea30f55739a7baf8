"""What a person reads when results don't get to the store: why, since when, what to type."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from orchestrator import glance, screens
from orchestrator.glance import Run
from orchestrator.home import Home, write_json
from orchestrator.store_words import last_word, trouble

NOW = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)
RUN = Run(
    *("demo-261122-abcdef", "demo", "lambda", "running", "", "", "", "i-1", 1, 5, NOW.timestamp() - 60),
    *(NOW.timestamp() + 3600, NOW.timestamp() + 3600, NOW.timestamp(), None, False, None, None, Decimal(1)),
)


def said(error: str, seconds: float = 120, **more: object) -> dict[str, object]:
    failing = (NOW - timedelta(seconds=seconds)).isoformat()
    return {"store": "busy", "store_error": error, "store_failing": failing, "seen": NOW.isoformat(), **more}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("the store says 403 InvalidAccessKeyId", "let the key write there again"),
        ("the store says 507 XMinioStorageFull", "gpurun store rm RUN"),
        ("the store says 400 XMinioAdminBucketQuotaExceeded", "gpurun store rm RUN"),
        ("the store says 404 NoSuchBucket", "make the bucket again"),
        ("no slot is left of 605: the store has no policies, and files are many", "fewer files"),
        ("ConnectionRefusedError: [Errno 111] Connection refused", "tried again each minute"),
    ],
)
def test_each_trouble_has_its_reason_its_time_and_its_next_step(error: str, words: str) -> None:
    first, second = trouble(RUN, said(error))
    assert first == f"not in the store since 12:28 UTC: {error}"
    assert "the machine keeps it until 13:30 UTC" in second
    assert words in second


def test_a_bad_moment_is_not_worth_a_word_nor_is_what_is_over() -> None:
    assert trouble(RUN, said("the store says 500", seconds=5)) == []
    assert trouble(RUN, said("", seconds=500)) == []
    assert trouble(RUN, {**said("the store says 500"), "store": "whole"}) == []
    assert trouble(RUN._replace(state="done"), said("the store says 500")) == []
    assert trouble(RUN, {}) == []


def test_what_lacks_room_is_told_though_all_else_gets_there() -> None:
    assert "no slot" in trouble(RUN, {**said("no slot is left of 5"), "store_failing": None})[0]


def test_a_store_that_could_not_be_asked_is_told_with_the_way_out() -> None:
    first, second = trouble(RUN, {"store_silent": "s3://b/x: SignatureDoesNotMatch look at AWS_SECRET_ACCESS_KEY"})
    assert "AWS_SECRET_ACCESS_KEY" in first
    assert f"gpurun resume {RUN.run_id}" in second


def test_the_end_says_what_never_got_there() -> None:
    assert "403" in last_word(said("the store says 403"))
    assert last_word({**said("the store says 403"), "store": "whole"}) == ""
    assert last_word({**said(""), "store": "busy"}) == ""
    assert last_word({}) == ""


def test_ps_says_it_under_the_run_within_the_width_of_a_terminal(home) -> None:
    place = Home(home)
    folder = place.run(RUN.run_id)
    folder.path.mkdir(parents=True)
    assert glance.store_troubles(place, [RUN]) == {}
    write_json(folder.status, said("the store says 403 AccessDenied\x1b[31m"))
    stuck = glance.store_troubles(place, [RUN, RUN._replace(run_id="other-261122-abcdef")])
    lines = screens.runs_table([RUN], NOW.timestamp(), {}, stuck).splitlines()
    assert any("403 AccessDenied" in line for line in lines)
    assert max(map(len, lines)) <= 80
    assert not any("\x1b" in line for line in lines)
