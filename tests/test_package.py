"""The installed package contains all files that it reads, as in the image."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
DESCRIBES = "import service.app as app; print(app.__file__); print(app.openapi_yaml(), end='')"


def test_installed_package_contains_all_files_it_reads(tmp_path: Path) -> None:
    source, installed = tmp_path / "source", tmp_path / "installed"
    for package in ("cutaway", "service", "worker"):
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

    output = subprocess.run(  # -I: isolated from this checkout
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(installed)!r}); {DESCRIBES}"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    file, described = output.split("\n", 1)
    assert Path(file).is_relative_to(installed)
    assert described == (ROOT / "openapi.yaml").read_text(encoding="utf-8")
