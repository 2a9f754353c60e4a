"""Lets pages link to files of the repository: mkdocs puts those into the site, under `source/`.

On GitHub the same relative links lead to the files themselves.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).resolve().parent.parent
DOCS = "docs"
SOURCE = "source"

_LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?(\))")
"""A Markdown link or image: its start, path, anchor and end."""


def target_of(page: str, link: str) -> str:
    """Return the repository's file that a page's link names; for a folder its README.md."""
    found = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    return f"{found}/README.md" if (ROOT / found).is_dir() else found


def outside(target: str) -> bool:
    """Return whether a file of the repository is outside of the documentation."""
    return not target.startswith(f"{DOCS}/") and (ROOT / target).is_file()


def on_files(files: Any, config: Any) -> Any:
    """Add every file that is linked, and those that an added page links to."""
    waiting = [f"{DOCS}/{file.src_uri}" for file in files.documentation_pages()]
    seen: set[str] = set()
    while waiting:
        page = waiting.pop()
        for _, link, _, _ in _LINK.findall((ROOT / page).read_text(encoding="utf-8")):
            target = target_of(page, link)
            if not outside(target) or target in seen:
                continue
            seen.add(target)
            copy = File.generated(
                config,
                f"{SOURCE}/{target}",
                abs_src_path=str(ROOT / target),
                inclusion=InclusionLevel.NOT_IN_NAV,
            )
            files.append(copy)
            if target.endswith(".md"):
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links to files of the repository into links to their copies in the site."""
    here = page.file.src_uri
    added = here.startswith(f"{SOURCE}/")
    original = here.removeprefix(f"{SOURCE}/") if added else f"{DOCS}/{here}"

    def turned(found: re.Match[str]) -> str:
        target = target_of(original, found[2])
        if outside(target):
            site = f"{SOURCE}/{target}"
        elif added and target.startswith(f"{DOCS}/"):
            site = target.removeprefix(f"{DOCS}/")
        else:
            return found[0]
        link = posixpath.relpath(site, posixpath.dirname(here) or ".")
        return f"{found[1]}{link}{found[3] or ''}{found[4]}"

    return _LINK.sub(turned, markdown)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Lead the links of a notebook to pages of the site; those of Markdown mkdocs has led there."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html
    return re.sub(r'href="(?![a-z]+:)([^"#]+)\.md(#[^"]*)?"', r'href="\1.html\2"', html)
