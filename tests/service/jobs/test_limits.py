"""Limits on the size, memory and time of a request, and the advice given when one is exceeded."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import pytest
from flask.testing import FlaskClient

import worker.models.lookup as models
import worker.store.requests as requests
from service.app import create_app
from service.errors import Invalid
from service.jobs.limits import lens_timeout, trace_timeout
from service.settings import Settings
from tests.conftest import Servers
from tests.gpt2 import CONFIGS
from worker.compute import COMPUTE
from worker.families.gpt2 import GPT2Config as Config
from worker.requests import LensRequest, TraceRequest
from worker.store.connection import connect
from worker.trace.arena import plan
from worker.trace.sampling import Sampling
from worker.trace.work import Work

Body = dict[str, Any]
SMALL: Body = {"n_layer": 4, "n_head": 2, "n_embd": 8, "n_positions": 512, "vocab_size": 20}
GREEDY = {"max_new_tokens": 10}


def client_with(servers: Servers, **limits: Any) -> FlaskClient:
    return create_app(replace(servers.settings, **limits)).test_client()


def rejection(client: FlaskClient, body: Body) -> tuple[str, str]:
    """The field with the error, and the error's message."""
    response = client.post("/v1/traces", json=body)
    assert response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY, response.text
    [(field, [message])] = response.get_json()["errors"].items()
    return field, message


def advised_bodies(body: Body, message: str) -> list[Body]:
    """The changed bodies that, according to an error's message, would fit."""
    found = []
    if dtype := re.search(r'with "dtype": "(\w+)"', message):
        found.append(body | {"dtype": dtype[1]})
    if capture := re.search(r'with "capture": (\[.*?"\])', message):
        found.append(body | {"capture": json.loads(capture[1])})
    if length := re.search(r"over ([\d,]+) positions instead of [\d,]+", message):
        new = body.get("generate", {"max_new_tokens": 1})["max_new_tokens"]
        prompt = int(length[1].replace(",", "")) - new + 1
        found += [body | {"tokens": body["tokens"][:prompt]}] if prompt > 0 else []
    return found


@pytest.mark.parametrize(
    ("body", "limit", "changes"),
    [
        ({"model": SMALL, "tokens": [1] * 100}, 300_000, 2),
        ({"model": SMALL, "tokens": [1] * 100}, 200_000, 2),
        ({"model": SMALL, "tokens": [1] * 100}, 17_000, 2),
        ({"model": SMALL, "tokens": [1] * 100}, 12_000, 2),
        ({"model": SMALL, "tokens": [1] * 100, "generate": GREEDY}, 500_000, 2),
        ({"model": SMALL, "tokens": [1] * 100, "capture": ["logits"]}, 4_000, 2),
        ({"model": SMALL, "tokens": [1] * 100, "capture": ["blocks.*.resid_post", "probs"]}, 13_000, 2),
        ({"model": SMALL, "tokens": [1] * 100, "dtype": "float16"}, 200_000, 2),
        ({"model": "gpt2", "tokens": [0], "generate": {"max_new_tokens": 1000}}, 1 << 30, 2),
        ({"model": "gpt3-175b", "tokens": [0] * 30}, 1 << 30, 2),
    ],
    ids=[*range(10)],
)
def test_a_trace_that_is_too_large_is_rejected_with_advice_that_is_accepted(
    idle_servers: Servers, body: Body, limit: int, changes: int
) -> None:
    client = client_with(idle_servers, max_trace_bytes=limit)
    field, message = rejection(client, body)
    assert field == "capture"
    size, reported_limit = (int(number.replace(",", "")) for number in re.findall(r"[\d,]{4,}", message)[:2])
    assert size > reported_limit == limit
    assert "(MAX_TRACE_BYTES)" in message
    bodies = advised_bodies(body, message)
    assert message.count(" with ") + message.count(" over ") == changes
    assert bodies
    for narrower in bodies:
        response = client.post("/v1/traces", json=narrower)
        assert response.status_code == HTTPStatus.ACCEPTED, response.text


def test_the_advised_number_of_positions_is_the_largest_that_fits(idle_servers: Servers) -> None:
    body = {"model": SMALL, "tokens": [1] * 100, "capture": ["logits"]}
    _, message = rejection(client_with(idle_servers, max_trace_bytes=79 * 20 * 4 + 79), body)
    assert message.endswith("over 79 positions instead of 100.")


def test_a_smaller_model_is_advised_if_nothing_else_fits(idle_servers: Servers) -> None:
    body = {"model": SMALL, "tokens": [1] * 100, "capture": ["probs"]}
    _, message = rejection(client_with(idle_servers, max_trace_bytes=79), body)
    assert message.endswith("Only a smaller model would fit.")


def test_gpt3_is_allowed_by_default(idle_client: FlaskClient) -> None:
    response = idle_client.post("/v1/traces", json={"model": "gpt3-175b", "tokens": [0] * 11})
    assert response.status_code == HTTPStatus.ACCEPTED, response.text


@pytest.mark.parametrize(
    ("body", "advice"),
    [
        ({"model": {"n_layer": 1, "n_embd": 1_000_000, "n_head": 1}, "tokens": [0] * 1000}, "over "),
        ({"model": {"n_head": 1_000_000, "d_head": 1_000_000}, "tokens": [0]}, "Only a smaller model"),
        ({"model": {"n_inner": 10_000_000}, "tokens": [0] * 100}, "over "),
        ({"model": {"n_positions": 30_000}, "tokens": [0] * 30_000}, "over "),
    ],
    ids=["width", "heads", "hidden", "positions"],
)
def test_a_trace_that_needs_too_much_memory_is_rejected_however_little_it_captures(
    idle_client: FlaskClient, body: Body, advice: str
) -> None:
    field, message = rejection(idle_client, body | {"capture": ["ln_final.scale"]})
    assert field == "tokens"
    assert "are allowed (MAX_WORK_BYTES)" in message
    assert advice in message


def test_memory_is_limited_for_several_passes_too(idle_servers: Servers) -> None:
    client = client_with(idle_servers, max_work_bytes=500_000)
    body: Body = {"model": SMALL, "tokens": [1] * 100}
    assert client.post("/v1/traces", json=body).status_code == HTTPStatus.ACCEPTED
    field, message = rejection(client, body | {"generate": GREEDY})
    assert field == "tokens"
    bodies = advised_bodies(body | {"generate": GREEDY}, message)
    assert len(bodies) == 2  # a narrower capture helps: tensors that are not captured share memory
    for narrower in bodies:
        assert client.post("/v1/traces", json=narrower).status_code == HTTPStatus.ACCEPTED


@pytest.mark.parametrize(
    ("body", "advice"),
    [
        ({"model": "gpt3-175b", "tokens": [0], "generate": {"max_new_tokens": 100}}, "Fewer tokens"),
        ({"model": {"n_layer": 10_000, "n_embd": 100_000, "n_head": 1}, "tokens": [0]}, "Only a smaller model"),
    ],
    ids=["passes", "model"],
)
def test_a_trace_that_takes_too_long_is_rejected(idle_client: FlaskClient, body: Body, advice: str) -> None:
    field, message = rejection(idle_client, body | {"capture": ["ln_final.scale"]})
    assert field == "tokens"
    assert "at most 86,400 are allowed (MAX_TRACE_SECONDS)" in message
    assert f"{advice} would fit." in message


@pytest.mark.parametrize(
    ("body", "least", "most"),
    [
        ({"model": "nano-gpt", "text": "CBABBC", "generate": {"max_new_tokens": 6}}, 60, 180),
        ({"model": "gpt2-xl", "tokens": [0] * 64}, 120, 600),
        ({"model": "gpt3-175b", "tokens": [0] * 11}, 1800, 10_800),
        ({"model": "gpt3-175b", "tokens": [0] * 4, "generate": {"max_new_tokens": 6}}, 6 * 1800, 6 * 10_800),
    ],
    ids=["nano-gpt", "gpt2-xl", "gpt3-175b", "gpt3-175b, six passes"],
)
def test_the_timeout_of_a_job_depends_on_its_work(
    idle_client: FlaskClient, idle_servers: Servers, body: Body, least: int, most: int
) -> None:
    id = idle_client.post("/v1/traces", json=body).get_json()["id"]
    record = requests.get(connect(idle_servers.queue_url), id)
    assert record is not None
    assert least <= record.timeout <= most


def test_a_lens_may_take_as_long_as_a_trace_plus_the_end_of_a_pass_for_each_layer() -> None:
    config, settings = CONFIGS["gpt2"], Settings()
    request = TraceRequest(models.resolve("gpt2", "").reference, (1,) * 64)
    ends = Work(config, 64, Sampling(), settings.held_weights_bytes).ends(0)
    longer = lens_timeout(config, 64, settings) - trace_timeout(request, settings)
    assert longer >= 12 * ends > 1


@pytest.mark.parametrize("setting", ["max_work_bytes", "max_trace_seconds"])
def test_a_lens_that_exceeds_a_limit_is_rejected_with_advice_that_is_accepted(setting: str) -> None:
    config = CONFIGS["gpt2"]
    limits: dict[str, Any] = {"max_work_bytes": 100_000_000, "max_trace_seconds": lens_timeout(config, 200, Settings())}
    limit = limits[setting]
    settings = replace(Settings(), **{setting: limit})
    with pytest.raises(Invalid) as raised:
        lens_timeout(config, 500, settings)
    [(field, [message])] = raised.value.errors.items()
    assert field == "trace_id"
    assert f"at most {limit:,} are allowed ({setting.upper()})" in message
    advice = re.search(r"A lens over ([\d,]+) positions instead of 500 would fit\.$", message)
    assert advice
    most = int(advice[1].replace(",", ""))
    lens_timeout(config, most, settings)
    with pytest.raises(Invalid):
        lens_timeout(config, most + 1, settings)


def test_a_lens_of_a_smaller_model_is_advised_if_none_fits() -> None:
    with pytest.raises(Invalid, match=r"Only a lens of a smaller model would fit\.$"):
        lens_timeout(Config(**SMALL), 500, replace(Settings(), max_work_bytes=1000))


def test_the_memory_of_a_lens_is_that_of_its_pass_and_its_result() -> None:
    config, sizes = Config(**SMALL), list[int]()
    request = LensRequest(models.resolve(SMALL, "", synthetic_seed=0).reference, (1,) * 50)
    COMPUTE["lens"](request, Settings(), lambda _: lambda content: sizes.append(len(content)), lambda *_: None)
    needed = plan(config, 50, capture=(), streamed=True).size.memory + sum(sizes)
    assert lens_timeout(config, 50, replace(Settings(), max_work_bytes=needed))
    with pytest.raises(Invalid, match=f"{needed:,} bytes of memory"):
        lens_timeout(config, 50, replace(Settings(), max_work_bytes=needed - 1))
