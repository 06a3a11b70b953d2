"""The list of traces and its pages."""

from __future__ import annotations

from collections.abc import Iterator

from flask.testing import FlaskClient

from tests.service.resources.test_traces import Body, create


def pages(client: FlaskClient, query: str) -> Iterator[list[str]]:
    cursor = ""
    while True:
        page = client.get(f"/v1/traces?{query}{cursor}").get_json()
        yield [trace["id"] for trace in page["traces"]]
        if page["next_cursor"] is None:
            return
        cursor = f"&cursor={page['next_cursor']}"


def test_traces_are_listed_newest_first(idle_client: FlaskClient, request_body: Body) -> None:
    ids = [create(idle_client, request_body | {"tokens": [n]}).get_json()["id"] for n in range(5)]
    assert [id for page in pages(idle_client, "limit=2") for id in page] == ids[::-1]
    assert [trace["id"] for trace in idle_client.get("/v1/traces").get_json()["traces"]] == ids[::-1]


def test_a_cursor_stays_valid_while_traces_are_added_and_deleted(idle_client: FlaskClient, request_body: Body) -> None:
    ids = [create(idle_client, request_body | {"tokens": [n]}).get_json()["id"] for n in range(6)]
    seen = []
    for page in pages(idle_client, "limit=2"):
        seen += page
        create(idle_client, request_body | {"tokens": [len(seen), len(seen)]})
        for _ in ("cancelled", "deleted"):
            idle_client.delete(f"/v1/traces/{page[-1]}") if page else None
    assert seen == ids[::-1]


def test_the_list_is_filtered_by_status_and_model(idle_client: FlaskClient, request_body: Body) -> None:
    queued, cancelled = (create(idle_client, request_body | {"tokens": [n]}).get_json()["id"] for n in range(2))
    nano = create(idle_client, {"model": "nano-gpt", "text": "A"}).get_json()["id"]
    idle_client.delete(f"/v1/traces/{cancelled}")
    for query, expected in (
        ("status=queued", [nano, queued]),
        ("status=cancelled", [cancelled]),
        ("status=done", []),
        ("model=nano-gpt", [nano]),
        ("model=nano-gpt&status=cancelled", []),
        ("model=gpt2", []),
    ):
        assert [id for page in pages(idle_client, f"{query}&limit=1") for id in page] == expected, query


def test_a_listed_trace_has_the_fields_of_the_trace(client: FlaskClient, sorted_letters: Body) -> None:
    listed = client.get("/v1/traces?model=nano-gpt&status=done&limit=500").get_json()["traces"]
    [found] = [trace for trace in listed if trace["id"] == sorted_letters["id"]]
    assert found == {key: sorted_letters[key] for key in found}
