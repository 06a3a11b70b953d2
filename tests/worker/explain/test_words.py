"""Explanations in text and LaTeX: well-formed for every block, with numbers that give the value."""

from __future__ import annotations

import re
from math import erf, exp, inf, isinf, pi, sqrt, tanh

import pytest

from tests.explanations import some_cells
from tests.worker.explain.test_cell import Traced, nano, odd
from worker.explain.words import Explanation, explain_cell

__all__ = ["nano", "odd"]


def explain(traced: Traced, id: str, *at: int) -> Explanation:
    return explain_cell(traced.read_cell(id, at), "A number")


def evaluate(text: str) -> float:
    """Evaluate the equation's side in numbers, the last but one."""
    numbers = text.split(" = ")[-2]
    for written, python in {"−∞": "-inf", "−": "-", "·": "*", "²": "**2", "³": "**3", "π": "pi", "Φ": "phi"}.items():
        numbers = numbers.replace(written, python)
    numbers = re.sub(r"√(\d+)", r"sqrt(\1)", numbers).replace("√", "sqrt")
    names = {"exp": exp, "sqrt": sqrt, "tanh": tanh, "pi": pi, "inf": inf, "max": max}
    names |= {"σ": lambda x: 1 / (1 + exp(-x)), "phi": lambda x: 0.5 * (1 + erf(x / sqrt(2)))}
    return float(eval(numbers, {"__builtins__": {}}, names))  # noqa: S307 - what this repository wrote


def test_text_and_latex_are_well_formed(odd: Traced) -> None:
    for number, block in enumerate(odd.blocks):
        for at in some_cells(block, number):
            text, latex = explain(odd, block["id"], *at)
            for opening, closing in ("()", "[]", "{}"):
                assert text.count(opening) == text.count(closing), text
                assert latex.count(opening) == latex.count(closing), latex
            assert latex.count(r"\left") == latex.count(r"\right")
            assert not re.search(r"nan|None|\{\}|  ", text + latex), text + latex
            assert latex.isascii()


def test_the_formula_in_numbers_gives_the_value(odd: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.explain.words._SHOWN", 100)
    for number, block in enumerate(odd.blocks):
        for at in some_cells(block, number) if block["formula"] and block["formula"]["inputs"] else []:
            text, value = explain(odd, block["id"], *at).text, float(odd.read_cell(block["id"], at).value)
            if not isinf(value):
                assert evaluate(text) == pytest.approx(value, rel=1e-3, abs=2e-4), text


@pytest.mark.parametrize(
    ("id", "at", "text"),
    [
        ("wte", (2, 5, 0), "A number: wte.weight[2, 5] = "),
        ("blocks.1.attn.heads.2.k_weight", (3, 4, 0), "A number: h.1.attn.c_attn.weight[3, 84] = "),
        ("tokens", (3, 0, 0), "A number: tokens[3] = 1"),
        (
            "embedding", (3, 5, 0),
            "Row 1 of wte, as that is the token, plus row 3 of wpe, its position: "
            "embedding[3, 5] = wte[1, 5] + wpe[3, 5] = ",
        ),
        (
            "blocks.0.attn.heads.1.q", (3, 4, 0),
            "The sum of 48 products of q_weight and ln1.out, plus q_bias: "
            "q[3, 4] = Σ(s = 0…47) q_weight[s, 4] · ln1.out[3, s] + q_bias[4] = ",
        ),
        (
            "blocks.0.attn.heads.1.scores", (3, 4, 0),
            "The sum of 16 products of q and k, divided by √16: "
            "scores[3, 4] = (Σ(s = 0…15) q[4, s] · k[3, s]) / √16 = ",
        ),
        (
            "blocks.0.attn.heads.1.scores", (4, 3, 0),
            "Masked, as position 4 comes after position 3 and attention only looks back: scores[4, 3] = −∞",
        ),
        (
            "blocks.0.attn_out", (2, 3, 0),
            "The sum of 48 products of attn.out_weight and z, plus attn.out_bias: attn_out[2, 3] = "
            "Σ(h = 0…2) Σ(s = 0…15) attn.out_weight[s+16h, 3] · heads.h.z[2, s] + attn.out_bias[3] = ",
        ),
        (
            "blocks.1.resid_mid", (2, 3, 0),
            "The sum of attn_out and blocks.0.resid_post: "
            "resid_mid[2, 3] = attn_out[2, 3] + blocks.0.resid_post[2, 3] = ",
        ),
        ("logits_max", (2, 0, 0), "The largest of 3 logits: logits_max[2] = max(s = 0…2) logits[2, s] = max("),
    ],
)  # fmt: skip
def test_the_text_has_the_formula_with_indices(nano: Traced, id: str, at: tuple[int, ...], text: str) -> None:
    assert explain(nano, id, *at).text.startswith(text)


def test_the_latex_has_the_same_formula(nano: Traced) -> None:
    latex = explain(nano, "blocks.0.ln2.scale", 3, 0, 0).latex
    assert latex.startswith(
        r"\mathrm{ln2.scale}_{3} = \sqrt{\frac{\sum_{s=0}^{47} "
        r"\left(\mathrm{resid\_mid}_{3,s} - \mathrm{ln2.mean}_{3}\right)^2}{48} + 1 \times 10^{-5}} = \sqrt{\frac{"
    )


def test_long_sums_show_the_largest_terms(nano: Traced) -> None:
    cell = nano.read_cell("blocks.0.attn.heads.1.q", (3, 4, 0))
    x, y = (float(one.value) for one in cell.operands(2))
    [*_, numbers, _] = explain(nano, "blocks.0.attn.heads.1.q", 3, 4, 0).text.split(" = ")
    assert numbers.replace("−", "-").replace("(", "").replace(")", "").startswith(f"{x:.5g} · {y:.5g} + ")
    assert numbers.count(" · ") == 3
    assert " + … + " in numbers
