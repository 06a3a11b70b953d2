"""The list of batches and its pages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import pytest
from flask.testing import FlaskClient

from service.app import create_app
from tests.conftest import Servers
from tests.service.resources.test_batches import create, several

Body = dict[str, Any]


def pages(client: FlaskClient, limit: int) -> Iterator[list[Body]]:
    cursor = ""
    while True:
        page = client.get(f"/v1/batches?limit={limit}{cursor}").get_json()
        yield page["batches"]
        if page["next_cursor"] is None:
            return
        cursor = f"&cursor={page['next_cursor']}"


def ids(listed: list[Body]) -> list[str]:
    return [batch["id"] for batch in listed]


def test_the_list_is_empty_at_first(idle_client: FlaskClient) -> None:
    assert idle_client.get("/v1/batches").get_json() == {"batches": [], "next_cursor": None}


def test_batches_are_listed_newest_first_with_their_own_fields(idle_client: FlaskClient, request_body: Body) -> None:
    batches = [create(idle_client, several(request_body, 1 + n)) for n in range(5)]
    summaries = [{name: batch[name] for name in ("id", "created_at", "total")} for batch in batches[::-1]]
    assert idle_client.get("/v1/batches").get_json() == {"batches": summaries, "next_cursor": None}
    assert [batch for page in pages(idle_client, 2) for batch in page] == summaries


def test_a_cursor_stays_valid_while_batches_are_added_and_deleted(idle_client: FlaskClient, request_body: Body) -> None:
    first = [create(idle_client, several(request_body, 1))["id"] for _ in range(6)]
    seen = []
    for page in pages(idle_client, 2):
        seen += ids(page)
        create(idle_client, several(request_body, 2))
        for _ in ("cancelled", "deleted"):
            idle_client.delete(f"/v1/batches/{page[-1]['id']}") if page else None
    assert seen == first[::-1]


def test_a_cancelled_batch_is_listed_and_a_deleted_one_is_not(idle_client: FlaskClient, request_body: Body) -> None:
    batch = create(idle_client, several(request_body, 2))
    for listed in ([batch["id"]], []):
        assert idle_client.delete(f"/v1/batches/{batch['id']}").status_code == HTTPStatus.NO_CONTENT
        assert ids(idle_client.get("/v1/batches").get_json()["batches"]) == listed


def test_expired_batches_are_skipped_and_the_page_is_filled(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    lasting = [create(idle_client, several(request_body, 1))["id"] for _ in range(2)]
    short_lived = create_app(replace(idle_servers.settings, result_ttl=1)).test_client()
    expiring = create(short_lived, several(request_body, 1))["id"]
    deadline = time.monotonic() + 5
    while idle_client.get(f"/v1/batches/{expiring}").status_code == HTTPStatus.OK:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert ids(idle_client.get("/v1/batches?limit=2").get_json()["batches"]) == lasting[::-1]


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "cursor=-1", "cursor=x", "status=done"])
def test_an_invalid_query_names_its_field(idle_client: FlaskClient, query: str) -> None:
    answer = idle_client.get(f"/v1/batches?{query}")
    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert list(answer.get_json()["errors"]) == [query.partition("=")[0]]
