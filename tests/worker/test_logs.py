"""Log lines and their context."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import worker.logs as logs

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture(autouse=True)
def no_request() -> Iterator[None]:
    logs.clear()
    yield
    logs.clear()


def line(form: str, message: str, **more: object) -> str:
    record = logging.makeLogRecord({"msg": message, "levelname": "INFO", **more})
    return logs.Formatter("worker", form).format(record)


@pytest.mark.parametrize("id", ["a", "6f1d2a3b-9c1e", "Root=1-67891233-abcdef", "x" * 128, "A.b_c:d@e+f/g="])
def test_valid_id_is_kept(id: str) -> None:
    logs.begin(id, None)
    assert logs.context() == {"request_id": id}


@pytest.mark.parametrize("id", [None, "", "x" * 129, "two words", "line\nbreak", "é", '"quoted"', "{}", "a\x00", "a\n"])
def test_missing_or_malformed_id_is_replaced(id: str | None) -> None:
    found = set()
    for _ in range(2):
        logs.begin(id, None)
        found.add(logs.context()["request_id"])
    assert len(found) == 2
    assert all(len(new) == 32 and new.isalnum() for new in found)


@pytest.mark.parametrize("header", [TRACEPARENT, f"00-{TRACE}-{PARENT}-00", f"cc-{TRACE}-{PARENT}-01-what-is-to-come"])
def test_traceparent_is_continued_with_a_new_span(header: str) -> None:
    logs.begin("a", header)
    context = logs.context()
    assert (context["trace_id"], context["parent_id"], context["trace_flags"]) == (TRACE, PARENT, header.split("-")[3])
    assert len(context["span_id"]) == 16
    assert context["span_id"] not in (PARENT, "0" * 16)


@pytest.mark.parametrize(
    "header",
    [
        "",
        TRACEPARENT.upper(),
        TRACEPARENT + "-more",
        TRACEPARENT + "\n",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-1",
        f"{TRACEPARENT},{TRACEPARENT}",
    ],
)
def test_malformed_traceparent_is_ignored(header: str) -> None:
    logs.begin("a", header)
    assert logs.context() == {"request_id": "a"}


def test_job_continues_the_trace_of_its_request() -> None:
    logs.begin("a", TRACEPARENT)
    request_context = dict(logs.context())
    carried = json.loads(json.dumps(logs.for_job()))
    logs.clear()
    logs.from_job(carried)
    found = logs.context()
    assert (found["request_id"], found["trace_id"], found["parent_id"]) == ("a", TRACE, request_context["span_id"])
    assert found["span_id"] != request_context["span_id"]


def test_job_without_a_request_has_no_context() -> None:
    assert logs.for_job() == {}
    logs.from_job({})
    assert logs.context() == {}


def test_json_is_one_object_a_line_whatever_the_message() -> None:
    logs.begin("a", None)
    logs.add(route="/v1/models")
    text = line("json", 'two\nlines, "quoted", ä', fields={"seconds": 0.5})
    assert "\n" not in text
    found = json.loads(text)
    assert found["message"] == 'two\nlines, "quoted", ä'
    assert (found["request_id"], found["route"], found["seconds"]) == ("a", "/v1/models", 0.5)
    assert (found["level"], found["part"]) == ("info", "worker")
    assert found["time"].endswith("Z")


def test_exception_is_in_the_same_line() -> None:
    try:
        raise ValueError("what went wrong")
    except ValueError:
        text = line("json", "failed", exc_info=sys.exc_info())
    assert "ValueError: what went wrong" in json.loads(text)["exception"]


def test_text_line_ends_with_the_request_id() -> None:
    assert line("text", "ready").endswith(" INFO ready")
    logs.begin("abc", None)
    assert line("text", "done").endswith(" INFO done [abc]")


def test_default_is_text_and_info() -> None:
    assert logs.settings({}) == logs.settings({"LOG_FORMAT": "", "LOG_LEVEL": ""}) == ("text", "info")
    assert logs.settings({"LOG_FORMAT": "JSON", "LOG_LEVEL": "Warning"}) == ("json", "warning")


@pytest.mark.parametrize(("name", "allowed"), [("LOG_FORMAT", "text or json"), ("LOG_LEVEL", "debug or info")])
def test_unknown_format_or_level_is_refused(name: str, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be {allowed}.*, not 'xml'"):
        logs.settings({name: "xml"})


def test_lines_of_many_threads_are_written_whole(capfd: pytest.CaptureFixture[str]) -> None:
    handler = logs.Handler()
    handler.setFormatter(logs.Formatter("api", "json"))
    texts = [str(n) * 2_000 for n in range(8)]

    def write(text: str) -> None:
        for _ in range(50):
            handler.handle(logging.makeLogRecord({"msg": text, "levelname": "INFO"}))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, texts))
    messages = [json.loads(text)["message"] for text in capfd.readouterr().err.splitlines()]
    assert sorted(messages) == sorted(texts * 50)


def test_a_line_beyond_unicode_is_written_escaped(capfd: pytest.CaptureFixture[str]) -> None:
    handler = logs.Handler()
    handler.setFormatter(logs.Formatter("api", "text"))
    handler.handle(logging.makeLogRecord({"msg": "half of a pair: \ud800", "levelname": "INFO"}))
    assert "half of a pair: \\ud800" in capfd.readouterr().err
