"""The allowed imports between packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import cutaway
import service
import worker

ROOT = Path(__file__).parents[1]

ALLOWED = {
    *(f"worker.describe.{name}" for name in ("architecture", "blocks", "config", "counts", "expression", "formula")),
    *(
        f"worker.describe.{name}"
        for name in ("functions", "hooks", "index", "notation", "operation", "operations", "outline")
    ),
    *(f"worker.describe.{name}" for name in ("norm_operations", "position_operations", "rotary", "rules")),
    *(f"worker.families.{name}" for name in ("family", "gpt2", "registry")),
    *(f"worker.engine.{name}" for name in ("_kernels", "memory")),
    *(f"worker.weights.{name}" for name in ("base", "catalogue", "synthetic", "header", "digests", "folder", "stored")),
    *(
        f"worker.models.{name}"
        for name in ("lookup", "checkpoints", "safetensors_files", "reference", "sources", "tokens")
    ),
    *(f"worker.models.{name}" for name in ("byte_pairs", "pieces", "tokenizer")),
    *(f"worker.trace.{name}" for name in ("arena", "sampling", "work", "detail")),
    *(f"worker.layout.{name}" for name in ("geometry", "encode", "describe", "gltf", "llm_viz")),
    *(f"worker.explain.{name}" for name in ("cell", "words")),
    *(f"worker.store.{name}" for name in ("connection", "events", "keys", "listing", "pieces", "requests")),
    *(f"worker.store.{name}" for name in ("arrays", "bulk", "queues", "safetensors", "shared_jobs", "job_metrics")),
    *(f"worker.store.{name}" for name in ("archive", "digests", "results", "stored_bytes")),
    *(f"worker.rq.{name}" for name in ("jobs", "monitoring", "queue", "removal")),
    "worker.logs",
    "worker.reader",
    "worker.requests",
    "worker.settings",
    "worker.process",
}

#: Packages that do not use Redis.
PURE = tuple(
    f"worker.{package}"
    for package in ("describe", "families", "engine", "weights", "models", "trace", "layout", "explain")
)


def modules(package: str) -> dict[str, Path]:
    """Return the file of every module of a package, by name."""
    [root] = {"cutaway": cutaway, "service": service, "worker": worker}[package].__path__
    names = {
        ".".join((package, *file.relative_to(root).with_suffix("").parts)): file for file in Path(root).rglob("*.py")
    }
    return {name.removesuffix(".__init__"): file for name, file in names.items()}


def imports(file: Path) -> Iterator[str]:
    """Yield the modules that a file imports anywhere; `a.b` for `from a import b`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: imports must be absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top(name: str) -> str:
    return name.partition(".")[0]


def graph(package: str) -> dict[str, set[str]]:
    """Return the imports between the modules of a package."""
    known = modules(package)

    def module(imported: str) -> str:
        return imported if imported in known else imported.rpartition(".")[0]

    return {name: {module(used) for used in imports(file)} & {*known} - {name} for name, file in known.items()}


def folder(name: str, package: str) -> str:
    """Return the folder of a module; for a module directly in the package, the module itself."""
    parent = name.rpartition(".")[0]
    return name if modules(package)[name].name == "__init__.py" or parent in ("", package) else parent


def cycle(edges: dict[str, set[str]]) -> list[str]:
    """Return the nodes of a cycle in a graph; [] if it has none."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("package", ["cutaway", "service", "worker"])
def test_modules_have_no_import_cycles(package: str) -> None:
    assert cycle(graph(package)) == []


@pytest.mark.parametrize("package", ["cutaway", "service", "worker"])
def test_folders_have_no_import_cycles(package: str) -> None:
    edges: dict[str, set[str]] = {}
    for name, used in graph(package).items():
        own = folder(name, package)
        edges.setdefault(own, set()).update({folder(other, package) for other in used} - {own})
    assert cycle(edges) == []


def test_cycles_are_detected() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []


@pytest.mark.parametrize("name", modules("worker"))
def test_worker_imports_neither_the_service_nor_http(name: str) -> None:
    assert {top(imported) for imported in imports(modules("worker")[name])} & {"service", "flask", "werkzeug"} == set()


@pytest.mark.parametrize("name", modules("cutaway"))
def test_the_client_imports_neither_the_service_nor_the_worker(name: str) -> None:
    assert {top(imported) for imported in imports(modules("cutaway")[name])} & {"service", "worker"} == set()


@pytest.mark.parametrize("name", modules("service"))
def test_service_imports_only_allowed_modules_of_the_worker(name: str) -> None:
    used = {imported for imported in imports(modules("service")[name]) if top(imported) == "worker"}
    forbidden = {imported for imported in used if not {imported, imported.rpartition(".")[0]} & ALLOWED}
    assert forbidden == set()


@pytest.mark.parametrize("name", [name for name in modules("worker") if name.startswith(PURE)])
def test_model_code_does_not_import_redis(name: str) -> None:
    assert {top(imported) for imported in imports(modules("worker")[name])} & {"redis", "rq"} == set()


def test_only_worker_rq_and_its_tests_import_rq() -> None:
    folders = ("cutaway", "service", "worker", "tests", "bench", "tools")
    files = [file.relative_to(ROOT) for folder in folders for file in (ROOT / folder).rglob("*.py")]
    using = {file.parent for file in files if "rq" in {top(imported) for imported in imports(ROOT / file)}}
    assert using == {Path("worker/rq"), Path("tests/worker/rq")}


@pytest.mark.parametrize("name", [name for name in modules("worker") if name.startswith("worker.rq")])
def test_worker_rq_does_not_import_jobs_or_models(name: str) -> None:
    used = {imported for imported in imports(modules("worker")[name]) if top(imported) == "worker"}
    known = ("worker.rq", "worker.store", "worker.logs", "worker.process", "worker.settings")
    assert {imported for imported in used if not imported.startswith(known)} == set()


def test_running_service_has_loaded_only_allowed_modules() -> None:
    source = "import service.app, sys; service.app.create_app(); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    families = {name for name in modules("worker") if name.startswith("worker.families.")}
    loaded = {name for name in ran.stdout.split() if top(name) == "worker"} - families
    assert loaded - {"worker", "worker.rq", "worker.store", *PURE} <= ALLOWED
    assert "worker.models.lookup" in loaded  # the package was loaded at all


def test_importing_the_service_opens_no_connections() -> None:
    source = "import socket; socket.socket.connect = None; import service.app, worker.jobs; service.app.create_app()"
    subprocess.run([sys.executable, "-c", source], check=True)


def test_commands_other_than_the_api_do_not_load_the_web_framework() -> None:
    commands = "service.up.command, service.commands.fetch, service.commands.collect"
    source = f"import sys, service.__main__, {commands}; sys.exit(bool({{'flask', 'numpy'}} & {{*sys.modules}}))"
    subprocess.run([sys.executable, "-c", source], check=True)
