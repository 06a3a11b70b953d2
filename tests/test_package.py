"""What is installed from the package, as the image does: the code brings along all that it reads."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
DESCRIBES = "import service.app as app; print(app.__file__); print(app.openapi_yaml(), end='')"


def test_installed_by_itself_it_finds_all_that_it_reads(tmp_path: Path) -> None:
    source, installed = tmp_path / "source", tmp_path / "installed"
    for package in ("service", "worker"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for file in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / file, source)
    build = ["-c", "import setuptools; setuptools.setup()", "-q", "build_py", "--build-lib", str(installed)]
    subprocess.run([sys.executable, *build], cwd=source, check=True, capture_output=True)

    read = {
        path.relative_to(source) for path in source.glob("*/**/*") if path.suffix in {".json", ".safetensors", ".html"}
    }
    assert Path("service/openapi/examples.json") in read
    assert Path("worker/families/nano-gpt.safetensors") in read
    assert {path for path in read if not (installed / path).exists()} == set()

    told = subprocess.run(  # -I: nothing of this checkout is found beside it
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(installed)!r}); {DESCRIBES}"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    where, described = told.split("\n", 1)
    assert Path(where).is_relative_to(installed)
    assert described == (ROOT / "openapi.yaml").read_text(encoding="utf-8")
