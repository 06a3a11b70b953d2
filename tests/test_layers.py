"""The arrows between the parts, as the imports have them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import service
import worker

ROOT = Path(__file__).parents[1]

ALLOWED = {
    *(f"worker.describe.{name}" for name in ("architecture", "blocks", "config", "counts", "expression", "formula")),
    *(f"worker.describe.{name}" for name in ("functions", "index", "notation", "operations", "outline")),
    *(f"worker.families.{name}" for name in ("family", "gpt2", "llama", "parts", "registry")),
    *(f"worker.engine.{name}" for name in ("_kernels", "memory")),
    *(f"worker.weights.{name}" for name in ("base", "catalogue", "synthetic", "mapped", "header", "digests", "folder")),
    *(f"worker.models.{name}" for name in ("lookup", "checkpoints", "reference", "sources", "tokens")),
    *(f"worker.trace.{name}" for name in ("arena", "sampling", "work", "detail")),
    *(f"worker.layout.{name}" for name in ("geometry", "encode", "describe", "gltf", "llm_viz")),
    *(f"worker.explain.{name}" for name in ("cell", "words")),
    *(f"worker.store.{name}" for name in ("connection", "events", "keys", "listing", "pieces", "requests")),
    *(f"worker.store.{name}" for name in ("arrays", "bulk", "queues", "safetensors", "shared_jobs", "job_metrics")),
    *(f"worker.store.{name}" for name in ("archive", "results", "stored_bytes")),
    *(f"worker.rq.{name}" for name in ("jobs", "monitoring", "queue", "removal")),
    "worker.logs",
    "worker.requests",
    "worker.settings",
    "worker.process",
}

#: The rooms without Redis.
PURE = tuple(
    f"worker.{room}" for room in ("describe", "families", "engine", "weights", "models", "trace", "layout", "explain")
)


def modules(package: str) -> dict[str, Path]:
    """Every module of a package by its name, and the file that it is."""
    [root] = {"service": service, "worker": worker}[package].__path__
    names = {
        ".".join((package, *file.relative_to(root).with_suffix("").parts)): file for file in Path(root).rglob("*.py")
    }
    return {name.removesuffix(".__init__"): file for name, file in names.items()}


def imports(file: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it; of `from a import b` both a.b and a."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top(name: str) -> str:
    return name.partition(".")[0]


def graph(package: str) -> dict[str, set[str]]:
    """The modules of a package that each of them imports."""
    known = modules(package)

    def module(imported: str) -> str:
        return imported if imported in known else imported.rpartition(".")[0]

    return {name: {module(used) for used in imports(file)} & {*known} - {name} for name, file in known.items()}


def folder(name: str, package: str) -> str:
    """The folder of a module; a module directly in the package counts by itself."""
    parent = name.rpartition(".")[0]
    return name if modules(package)[name].name == "__init__.py" or parent in ("", package) else parent


def circle(edges: dict[str, set[str]]) -> list[str]:
    """The nodes of a circle in a graph; [] if it has none."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("package", ["service", "worker"])
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    assert circle(graph(package)) == []


@pytest.mark.parametrize("package", ["service", "worker"])
def test_no_folders_import_each_other_in_a_circle(package: str) -> None:
    edges: dict[str, set[str]] = {}
    for name, used in graph(package).items():
        own = folder(name, package)
        edges.setdefault(own, set()).update({folder(other, package) for other in used} - {own})
    assert circle(edges) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []


@pytest.mark.parametrize("name", modules("worker"))
def test_the_worker_knows_neither_the_service_nor_http(name: str) -> None:
    assert {top(imported) for imported in imports(modules("worker")[name])} & {"service", "flask", "werkzeug"} == set()


@pytest.mark.parametrize("name", modules("service"))
def test_the_service_uses_of_the_worker_only_what_does_no_arithmetic(name: str) -> None:
    used = {imported for imported in imports(modules("service")[name]) if top(imported) == "worker"}
    strangers = {imported for imported in used if not {imported, imported.rpartition(".")[0]} & ALLOWED}
    assert strangers == set()


@pytest.mark.parametrize("name", [name for name in modules("worker") if name.startswith(PURE)])
def test_mathematics_and_geometry_know_no_redis(name: str) -> None:
    assert {top(imported) for imported in imports(modules("worker")[name])} & {"redis", "rq"} == set()


def test_rq_is_imported_by_the_package_that_owns_it_and_its_tests_alone() -> None:
    folders = ("service", "worker", "tests", "bench", "tools")
    files = [file.relative_to(ROOT) for folder in folders for file in (ROOT / folder).rglob("*.py")]
    using = {file.parent for file in files if "rq" in {top(imported) for imported in imports(ROOT / file)}}
    assert using == {Path("worker/rq"), Path("tests/worker/rq")}


@pytest.mark.parametrize("name", [name for name in modules("worker") if name.startswith("worker.rq")])
def test_what_owns_rq_knows_the_store_and_neither_jobs_nor_models(name: str) -> None:
    used = {imported for imported in imports(modules("worker")[name]) if top(imported) == "worker"}
    known = ("worker.rq", "worker.store", "worker.logs", "worker.process", "worker.settings")
    assert {imported for imported in used if not imported.startswith(known)} == set()


def test_a_service_that_runs_has_loaded_no_arithmetic() -> None:
    source = "import service.app, sys; service.app.create_app(); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    loaded = {name for name in ran.stdout.split() if top(name) == "worker"}
    assert loaded - {"worker", "worker.rq", "worker.store", *PURE} <= ALLOWED
    assert "worker.models.lookup" in loaded  # it was this package that was loaded


def test_importing_it_connects_to_nothing() -> None:
    source = "import socket; socket.socket.connect = None; import service.app, worker.jobs; service.app.create_app()"
    subprocess.run([sys.executable, "-c", source], check=True)


def test_the_commands_that_serve_nothing_load_no_web_framework() -> None:
    commands = "service.up.command, service.commands.fetch, service.commands.collect"
    source = f"import sys, service.__main__, {commands}; sys.exit(bool({{'flask', 'numpy'}} & {{*sys.modules}}))"
    subprocess.run([sys.executable, "-c", source], check=True)
