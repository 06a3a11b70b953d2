"""examples/page.html draws nano-gpt from the API's responses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.browser import browse, needs_chromium

PAGE = Path(__file__).parents[2] / "examples" / "page.html"


@needs_chromium
def test_it_draws_weights_and_values_in_their_colours(address: str, tmp_path: Path) -> None:
    page = browse(f"{PAGE.as_uri()}?api={address}", tmp_path)
    assert page.console == []
    assert "nano-gpt sorts CBABBC: ABBBCC" in page.document
    red, green, blue = np.moveaxis(np.asarray(page.picture).astype(int), 2, 0)
    drawn = np.maximum(red, np.maximum(green, blue)) > 60
    for colour in (blue > green, green > blue, red > green):  # weights, values above 0 and below
        assert np.count_nonzero(drawn & colour) > 5_000
    assert np.ptp(np.nonzero(drawn)[1]) > 0.9 * page.picture.width  # from the embedding to the output
