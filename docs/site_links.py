"""Hooks of MkDocs: pages of the repository outside of docs/, and the links between all pages.

README.md, SECURITY.md, CONTRIBUTING.md, CHANGELOG.md and the pages in benchmarks/ are pages of the
site without being copied. Every page links as in the repository, so links also work where the
repository is read; here they become links of the site. What they miss, MkDocs reports.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
DOCS = "docs/"
# Page of the repository -> page of the site. All others lie in docs/.
OUTSIDE = {
    "README.md": "index.md",
    "SECURITY.md": "SECURITY.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "benchmarks/README.md": "benchmarks/README.md",
    "benchmarks/quality.md": "benchmarks/quality.md",
}
SOURCES = {page: source for source, page in OUTSIDE.items()}
LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages outside of docs/."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Turn links of the repository into links of the site."""
    here = page.file.src_uri
    folder = posixpath.dirname(SOURCES.get(here, DOCS + here))

    def site_link(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2]))
        target = OUTSIDE.get(target, target.removeprefix(DOCS))
        return link[1] + posixpath.relpath(target, posixpath.dirname(here) or ".") + link[3]

    return LINK.sub(site_link, markdown)
