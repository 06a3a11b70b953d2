"""The Python client of Cutaway."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cutaway.client import Client
    from cutaway.remote import ProblemError, RemoteError
    from cutaway.resources import Batch, Layout, Trace, UnfinishedError
    from cutaway.tensors import Tensor, Tensors

__all__ = [
    "Batch",
    "Client",
    "Layout",
    "ProblemError",
    "RemoteError",
    "Tensor",
    "Tensors",
    "Trace",
    "UnfinishedError",
]

_MODULES = {"Client": "client", "ProblemError": "remote", "RemoteError": "remote", "Tensor": "tensors"}
_MODULES |= {"Tensors": "tensors"} | dict.fromkeys(("Batch", "Layout", "Trace", "UnfinishedError"), "resources")


def __getattr__(name: str) -> Any:
    """Import a name when it is used: `cutaway batch` needs cutaway.remote, but not NumPy."""
    if name not in _MODULES:
        raise AttributeError(f"module 'cutaway' has no attribute {name!r}")
    return getattr(import_module(f"cutaway.{_MODULES[name]}"), name)
