"""TypeScript types from the OpenAPI document: examples/client.ts compiles, mistakes do not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.app import openapi_yaml

CLIENT = Path(__file__).parents[2] / "examples" / "client.ts"
#: The folder where `make types` installs the tools, then PATH.
PATH = f"{sys.prefix}/node/node_modules/.bin{os.pathsep}{os.environ['PATH']}"
TOOLS = {name: shutil.which(name, path=PATH) for name in ("openapi-typescript", "tsc")}
OPTIONS = ["--noEmit", "--strict", "--target", "es2022", "--module", "es2022"]
OPTIONS += ["--moduleResolution", "bundler", "--lib", "es2022,dom"]
MISTAKES = """
import type { components, operations } from "./cutaway";
type Schemas = components["schemas"];
declare const trace: Schemas["Trace"];
declare const values: Schemas["TensorValues"];
// @ts-expect-error: a status is one of five
trace.status === "finished";
// @ts-expect-error: null until it starts
trace.started_at.length;
// @ts-expect-error: undefined until the trace is done
trace.tensors.embed;
// @ts-expect-error: a model is required
const nothing: Schemas["TraceRequest"] = { text: "CBA" };
// @ts-expect-error: a number, null or lists
values.data.length;
const width: number = trace.config.model_type === "llama" ? trace.config.head_dim : 0;
// @ts-expect-error: not every family has it
trace.config.head_dim;
const path: operations["get_trace_tensor"]["parameters"]["path"] = { trace_id: trace.id, name: "embed" };
"""


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(TOOLS[str(command[0])]), *command[1:]], cwd=folder, capture_output=True, text=True, timeout=120
    )


@pytest.mark.skipif(not all(TOOLS.values()), reason="needs openapi-typescript and tsc: make types (Node.js)")
def test_the_typed_client_compiles_and_mistakes_do_not(tmp_path: Path) -> None:
    (tmp_path / "openapi.yaml").write_text(openapi_yaml(), encoding="utf-8")
    generated = run(
        "openapi-typescript", "openapi.yaml", "--default-non-nullable=false", "-o", "cutaway.d.ts", folder=tmp_path
    )
    assert generated.returncode == 0, generated.stderr
    shutil.copy(CLIENT, tmp_path)
    (tmp_path / "mistakes.ts").write_text(MISTAKES, encoding="utf-8")
    compiled = run("tsc", *OPTIONS, "client.ts", "mistakes.ts", folder=tmp_path)
    assert compiled.returncode == 0, compiled.stdout
