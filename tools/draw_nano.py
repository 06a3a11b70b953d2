"""Draw nano-gpt sorting CBABBC, every cell with its value: `python tools/draw_nano.py docs/nano-gpt.png`.

Made only of what the API gives: the blocks of a layout, and through `tensor.index` the values of a trace and weights.
The model flows from left to right here, so that it fits a page: y of the layout runs right, x up, z to the viewer.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import worker.gpt.models as models
from worker.gpt.arena import Arena, plan
from worker.gpt.engine import Engine
from worker.gpt.generate import generate
from worker.gpt.sampling import Sampling
from worker.layout.describe import blocks
from worker.layout.place import place

PIXELS = 4 / 3  # a unit of the layout; a cell is 2 pixels wide
DEPTH = np.array([-0.3, 0.38])  # where a unit toward the viewer goes on the page
MARGIN = 40
BACKGROUND = (13, 17, 23)
HUES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {  # of negative and of positive values
    "weight": ((120, 90, 220), (90, 170, 255)),
    "activation": ((235, 130, 70), (90, 220, 130)),
    "statistic": ((235, 130, 70), (250, 210, 90)),
}
LABELS = {
    "embedding": "embedding",
    "blocks.{layer}.attn.heads.0.q_weight": "attention {layer}",
    "blocks.{layer}.mlp.in_weight": "MLP {layer}",
    "probs": "output",
}


def colours(values: NDArray[Any], role: str) -> NDArray[np.uint8]:
    """[x, y] -> [x, y, 3]: dark where a value is near 0, bright where it is among the block's largest."""
    finite = np.nan_to_num(values.astype(float), neginf=0.0)
    strength = np.sqrt(np.abs(finite) / (np.abs(finite).max() or 1.0))[..., None]
    negative, positive = (np.array(hue) for hue in HUES[role])
    hue = np.where(finite[..., None] < 0, negative, positive)
    coloured: NDArray[np.uint8] = (hue * (0.14 + 0.86 * strength)).astype(np.uint8)
    return coloured


def cells(block: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """[x, y]: the values of a block's front cells, found through its tensor's index."""
    width, height, _ = block["cells"]
    i, j = np.ogrid[:width, :height]
    at = tuple(a * i + b * j + d for a, b, _, d in block["tensor"]["index"])
    return np.broadcast_to(tensors[block["tensor"]["name"]][at], (width, height))


def draw(described: list[dict[str, Any]], tensors: dict[str, NDArray[Any]]) -> Image.Image:
    """The picture: the blocks from the back to the front, each with a rim of shade."""
    corners = {block["id"]: _on_page(block) for block in described}
    low = np.min([corner for corner, _ in corners.values()], axis=0) - MARGIN
    high = np.max([corner + size for corner, size in corners.values()], axis=0) + MARGIN
    page = Image.new("RGB", tuple((high - low).astype(int).tolist()), BACKGROUND)
    pen = ImageDraw.Draw(page)
    for block in sorted(described, key=lambda block: block["position"][2]):
        corner, size = corners[block["id"]]
        x, y = (corner - low).round().astype(int).tolist()
        w, h = size.round().astype(int).tolist()
        pen.rectangle((x - 1, y - 1, x + w + 2, y + h + 2), fill=(0, 0, 0))
        image = Image.fromarray(colours(cells(block, tensors), block["role"])[::-1])  # x runs up
        page.paste(image.resize((w, h), Image.Resampling.NEAREST), (x, y))
    for pattern, text in LABELS.items():
        for layer in range(3 if "{layer}" in pattern else 1):
            corner, _ = corners[pattern.replace("{layer}", str(layer))]
            font = ImageFont.load_default(20)
            x = min(float((corner - low)[0]), page.width - MARGIN / 4 - font.getlength(text))
            pen.text((x, 6), text.format(layer=layer), fill=(139, 148, 158), font=font)
    return page


def _on_page(block: dict[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The upper left corner of a block's face and its extent, in pixels of the page."""
    (x, y, z), (dx, dy, _) = block["position"], block["size"]
    return PIXELS * (np.array([y, -x - dx]) + z * DEPTH), PIXELS * np.array([dy, dx])


def main(path: Path) -> None:
    """Run the model, place its blocks, draw both."""
    model, sampling = models.find("nano-gpt"), Sampling(max_new_tokens=6)
    prompt, weights = model.vocabulary.encode("CBABBC"), model.weights()
    arena = Arena(plan(model.config, 11))
    generate(model.config, Engine(weights), arena, prompt, sampling)
    described = list(blocks(place(model.config, 11)))
    names = {block["tensor"]["name"] for block in described}
    tensors = {name: arena[name] if name in arena else weights[name] for name in names}
    path.parent.mkdir(exist_ok=True)
    draw(described, tensors).quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
