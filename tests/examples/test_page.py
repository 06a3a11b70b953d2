"""examples/page.html draws nano-gpt from the API's responses, if CORS_ORIGINS lists its origin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseServer
from threading import Thread

import numpy as np
import pytest
from werkzeug.serving import make_server

from service.app import create_app
from tests.browser import browse, needs_chromium
from tests.conftest import Servers

PAGE = Path(__file__).parents[2] / "examples" / "page.html"


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """The origin of a server of the examples, as `python -m http.server --directory examples` is."""
    handler = partial(SimpleHTTPRequestHandler, directory=PAGE.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, serving(server):
        yield f"http://127.0.0.1:{server.server_port}"


@contextmanager
def serving(server: BaseServer) -> Iterator[None]:
    """Run a server in a thread."""
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@needs_chromium
@pytest.mark.usefixtures("worker")
def test_it_draws_weights_and_values_in_their_colours(servers: Servers, origin: str, tmp_path: Path) -> None:
    api = make_server("127.0.0.1", 0, create_app(replace(servers.settings, cors_origins=origin)), threaded=True)
    with serving(api):
        page = browse(f"{origin}/{PAGE.name}?api=http://127.0.0.1:{api.port}", tmp_path)
    assert page.console == []
    assert "nano-gpt sorts CBABBC: ABBBCC" in page.document
    red, green, blue = np.moveaxis(np.asarray(page.picture).astype(int), 2, 0)
    drawn = np.maximum(red, np.maximum(green, blue)) > 60
    for colour in (blue > green, green > blue, red > green):  # weights, values above 0 and below
        assert np.count_nonzero(drawn & colour) > 5_000
    assert np.ptp(np.nonzero(drawn)[1]) > 0.9 * page.picture.width  # from the embedding to the output


@needs_chromium
def test_its_browser_sends_nothing_if_its_origin_is_not_listed(address: str, origin: str, tmp_path: Path) -> None:
    page = browse(f"{origin}/{PAGE.name}?api={address}", tmp_path)
    assert any("blocked by CORS policy" in line for line in page.console)
    assert "ABBBCC" not in page.document
