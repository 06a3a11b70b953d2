"""Time estimates: sums of parts, monotonic, and of the right magnitude."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import worker.describe.counts as counts
from tests.gpt2 import CONFIGS
from worker.families.gpt2 import GPT2Config as Config
from worker.families.registry import describe
from worker.trace.sampling import Sampling
from worker.trace.work import Work

SMALL = Config(n_layer=3, n_head=3, n_embd=24, d_head=5, n_inner=40, n_positions=200, vocab_size=17)
GPT3 = CONFIGS["gpt3-175b"]


def work(config: Config = SMALL, prompt: int = 7, new: int = 0, held: int = 0) -> Work:
    return Work(config, prompt, Sampling(max_new_tokens=new), held)


@pytest.mark.parametrize("new", [0, 1, 2, 3, 50])
@pytest.mark.parametrize("held", [0, 1 << 30])
def test_the_total_is_the_sum_of_the_parts(new: int, held: int) -> None:
    found = work(new=new, held=held)
    parts = [3 * found.layer(n) + found.ends(n) for n in range(max(new, 1))]
    assert found.seconds == pytest.approx(sum(parts), rel=1e-12)


@pytest.mark.parametrize(
    "more",
    [
        {"prompt": 8},
        {"new": 2},
        {"config": replace(SMALL, n_layer=4)},
        {"config": replace(SMALL, n_inner=50)},
        {"config": replace(SMALL, vocab_size=18)},
    ],
    ids=str,
)
def test_larger_requests_take_longer(more: dict[str, Any]) -> None:
    assert work(**more).seconds > work().seconds


def test_weights_are_cached_if_they_fit_and_there_are_several_passes() -> None:
    whole = 4 * counts.total(describe(SMALL))
    assert [work(new=new, held=whole).caches_weights for new in (0, 1, 2)] == [False, False, True]
    assert not work(new=2, held=whole - 1).caches_weights
    assert work(GPT3, new=6).seconds > 2 * work(GPT3, new=6, held=1 << 50).seconds


def test_gpt3_takes_minutes_and_not_days() -> None:
    assert 300 < work(GPT3, 11).seconds < 3600  # 10 minutes, measured on two slow processors
    assert work(CONFIGS["gpt2"], 11).seconds < 5
    assert work(CONFIGS["nano-gpt"], 6, 6).seconds < 0.1
