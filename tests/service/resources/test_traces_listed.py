"""The list of traces."""

from __future__ import annotations

from collections.abc import Iterator

from flask.testing import FlaskClient

from tests.service.resources.test_traces import Body, ask


def pages(client: FlaskClient, query: str) -> Iterator[list[str]]:
    cursor = ""
    while True:
        page = client.get(f"/v1/traces?{query}{cursor}").get_json()
        yield [trace["id"] for trace in page["traces"]]
        if page["next_cursor"] is None:
            return
        cursor = f"&cursor={page['next_cursor']}"


def test_the_list_goes_from_the_newest_to_the_oldest(idle_client: FlaskClient, request_body: Body) -> None:
    ids = [ask(idle_client, request_body | {"tokens": [n]}).get_json()["id"] for n in range(5)]
    assert [id for page in pages(idle_client, "limit=2") for id in page] == ids[::-1]
    assert [trace["id"] for trace in idle_client.get("/v1/traces").get_json()["traces"]] == ids[::-1]


def test_a_cursor_stays_right_while_traces_are_added_and_forgotten(
    idle_client: FlaskClient, request_body: Body
) -> None:
    ids = [ask(idle_client, request_body | {"tokens": [n]}).get_json()["id"] for n in range(6)]
    seen = []
    for page in pages(idle_client, "limit=2"):
        seen += page
        ask(idle_client, request_body | {"tokens": [len(seen), len(seen)]})
        for _ in ("cancelled", "forgotten"):
            idle_client.delete(f"/v1/traces/{page[-1]}") if page else None
    assert seen == ids[::-1]


def test_the_list_is_filtered_by_status_and_model(idle_client: FlaskClient, request_body: Body) -> None:
    queued, cancelled = (ask(idle_client, request_body | {"tokens": [n]}).get_json()["id"] for n in range(2))
    nano = ask(idle_client, {"model": "nano-gpt", "text": "A"}).get_json()["id"]
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


def test_the_list_tells_of_a_trace_what_the_trace_tells(client: FlaskClient, sorted_letters: Body) -> None:
    listed = client.get("/v1/traces?model=nano-gpt&status=done&limit=500").get_json()["traces"]
    [found] = [trace for trace in listed if trace["id"] == sorted_letters["id"]]
    assert found == {key: sorted_letters[key] for key in found}
