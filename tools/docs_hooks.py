"""MkDocs hooks: add the root's pages to the site, and adapt links."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
#: Pages outside docs/: their name in the repository, and in the site.
ROOT_PAGES = {name: name for name in ("SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")} | {"README.md": "index.md"}
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the root's pages."""
    for name, uri in ROOT_PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links between files of the repository to links between pages of the site."""
    folder = PurePosixPath("." if page.file.src_uri in ROOT_PAGES.values() else "docs")

    def rewrite(link: re.Match[str]) -> str:
        target = normpath(folder / link["target"])
        uri = ROOT_PAGES.get(target, target.removeprefix("docs/"))
        if files.get_file_from_path(uri) is not None:
            return f"{link['image']}[{link['text']}]({uri}{link['anchor'] or ''})"
        if ":" not in link["target"] and (ROOT / target).exists():
            return link["text"]  # a file that the site does not have
        return link[0]

    return _LINK.sub(rewrite, markdown)
