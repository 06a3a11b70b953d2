"""The models of the tests of the mathematics."""

from tests.worker.gpt.conftest import make_weights, run_model

__all__ = ["make_weights", "run_model"]
