"""What cannot be done here is refused before anything runs, and what is advised instead is accepted."""

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
from service.jobs.limits import lens_seconds, seconds_allowed
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


def client_with(servers: Servers, **bounds: Any) -> FlaskClient:
    return create_app(replace(servers.settings, **bounds)).test_client()


def refused(client: FlaskClient, body: Body) -> tuple[str, str]:
    """The field that is named, and what is said of it."""
    answer = client.post("/v1/traces", json=body)
    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY, answer.text
    [(field, [said])] = answer.get_json()["errors"].items()
    return field, said


def advised(body: Body, said: str) -> list[Body]:
    """The bodies that a refusal says would fit."""
    found = []
    if dtype := re.search(r'with "dtype": "(\w+)"', said):
        found.append(body | {"dtype": dtype[1]})
    if capture := re.search(r'with "capture": (\[.*?"\])', said):
        found.append(body | {"capture": json.loads(capture[1])})
    if length := re.search(r"over ([\d,]+) positions instead of [\d,]+", said):
        new = body.get("generate", {"max_new_tokens": 1})["max_new_tokens"]
        prompt = int(length[1].replace(",", "")) - new + 1
        found += [body | {"tokens": body["tokens"][:prompt]}] if prompt > 0 else []
    return found


@pytest.mark.parametrize(
    ("body", "most", "ways"),
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
def test_a_trace_larger_than_is_allowed_is_refused_and_what_is_advised_is_accepted(
    idle_servers: Servers, body: Body, most: int, ways: int
) -> None:
    client = client_with(idle_servers, max_trace_bytes=most)
    field, said = refused(client, body)
    assert field == "capture"
    size, limit = (int(number.replace(",", "")) for number in re.findall(r"[\d,]{4,}", said)[:2])
    assert size > limit == most
    assert "(MAX_TRACE_BYTES)" in said
    bodies = advised(body, said)
    assert said.count(" with ") + said.count(" over ") == ways
    assert bodies
    for narrower in bodies:
        answer = client.post("/v1/traces", json=narrower)
        assert answer.status_code == HTTPStatus.ACCEPTED, answer.text


def test_as_many_positions_are_advised_as_fit(idle_servers: Servers) -> None:
    body = {"model": SMALL, "tokens": [1] * 100, "capture": ["logits"]}
    _, said = refused(client_with(idle_servers, max_trace_bytes=79 * 20 * 4 + 79), body)
    assert said.endswith("over 79 positions instead of 100.")


def test_where_nothing_fits_only_a_smaller_model_would(idle_servers: Servers) -> None:
    body = {"model": SMALL, "tokens": [1] * 100, "capture": ["probs"]}
    assert refused(client_with(idle_servers, max_trace_bytes=79), body)[1].endswith("Only a smaller model would fit.")


def test_gpt3_is_allowed_by_default(idle_client: FlaskClient) -> None:
    answer = idle_client.post("/v1/traces", json={"model": "gpt3-175b", "tokens": [0] * 11})
    assert answer.status_code == HTTPStatus.ACCEPTED, answer.text


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
def test_what_takes_too_much_memory_is_refused_however_little_is_kept(
    idle_client: FlaskClient, body: Body, advice: str
) -> None:
    field, said = refused(idle_client, body | {"capture": ["ln_final.scale"]})
    assert field == "tokens"
    assert "are allowed here (MAX_WORK_BYTES)" in said
    assert advice in said


def test_memory_is_bounded_for_several_passes_too(idle_servers: Servers) -> None:
    client = client_with(idle_servers, max_work_bytes=500_000)
    body: Body = {"model": SMALL, "tokens": [1] * 100}
    assert client.post("/v1/traces", json=body).status_code == HTTPStatus.ACCEPTED
    field, said = refused(client, body | {"generate": GREEDY})
    assert field == "tokens"
    bodies = advised(body | {"generate": GREEDY}, said)
    assert len(bodies) == 2  # what is not captured shares its place
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
def test_what_takes_too_long_is_refused(idle_client: FlaskClient, body: Body, advice: str) -> None:
    field, said = refused(idle_client, body | {"capture": ["ln_final.scale"]})
    assert field == "tokens"
    assert "at most 86,400 are allowed here (MAX_TRACE_SECONDS)" in said
    assert f"{advice} would fit." in said


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
def test_the_time_that_a_job_may_take_follows_from_its_work(
    idle_client: FlaskClient, idle_servers: Servers, body: Body, least: int, most: int
) -> None:
    id = idle_client.post("/v1/traces", json=body).get_json()["id"]
    record = requests.get(connect(idle_servers.queue_url), id)
    assert record is not None
    assert least <= record.timeout <= most


def test_a_lens_may_take_what_its_trace_may_and_its_end_again_for_every_layer() -> None:
    config, bounds = CONFIGS["gpt2"], Settings()
    request = TraceRequest(models.resolve("gpt2", "").reference, (1,) * 64)
    ends = Work(config, 64, Sampling(), bounds.held_weights_bytes).ends(0)
    longer = lens_seconds(config, 64, bounds) - seconds_allowed(request, bounds)
    assert longer >= 12 * ends > 1


@pytest.mark.parametrize("setting", ["max_work_bytes", "max_trace_seconds"])
def test_a_lens_that_takes_too_much_is_refused_and_what_is_advised_is_accepted(setting: str) -> None:
    config = CONFIGS["gpt2"]
    bounds: dict[str, Any] = {"max_work_bytes": 100_000_000, "max_trace_seconds": lens_seconds(config, 200, Settings())}
    allowed = bounds[setting]
    settings = replace(Settings(), **{setting: allowed})
    with pytest.raises(Invalid) as refusal:
        lens_seconds(config, 500, settings)
    [(field, [said])] = refusal.value.errors.items()
    assert field == "trace_id"
    assert f"at most {allowed:,} are allowed here ({setting.upper()})" in said
    found = re.search(r"One over ([\d,]+) positions instead of 500 would fit\.$", said)
    assert found
    most = int(found[1].replace(",", ""))
    lens_seconds(config, most, settings)
    with pytest.raises(Invalid):
        lens_seconds(config, most + 1, settings)


def test_where_no_lens_fits_only_that_of_a_smaller_model_would() -> None:
    with pytest.raises(Invalid, match=r"Only that of a smaller model would fit\.$"):
        lens_seconds(Config(**SMALL), 500, replace(Settings(), max_work_bytes=1000))


def test_the_memory_of_a_lens_is_that_of_its_pass_and_of_what_it_saw() -> None:
    config, sizes = Config(**SMALL), list[int]()
    request = LensRequest(models.resolve(SMALL, "", synthetic_seed=0).reference, (1,) * 50)
    COMPUTE["lens"](request, Settings(), lambda _: lambda content: sizes.append(len(content)), lambda *_: None)
    taken = plan(config, 50, capture=(), streamed=True).size.memory + sum(sizes)
    assert lens_seconds(config, 50, replace(Settings(), max_work_bytes=taken))
    with pytest.raises(Invalid, match=f"{taken:,} bytes of memory"):
        lens_seconds(config, 50, replace(Settings(), max_work_bytes=taken - 1))
