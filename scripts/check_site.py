"""Checks the built documentation: links lead somewhere, and the search works from disk.

    python scripts/check_site.py site

MkDocs checks the links of Markdown; this checks those of the pages as built, the ones to the
glossary, to pages of the gallery and to the search among them. The search needs a Chromium; without
one it is not tried, and the last line says so.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Places(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what a tag of any kind links to, and what it is called."""
        del tag
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def broken(site: Path) -> list[str]:
    """Links that lead nowhere, with their pages."""
    # The page for addresses that do not exist is served anywhere: its links start at the root.
    # Pages of the gallery make their anchors by script.
    pages = {page: Places(page.read_text(encoding="utf-8")) for page in site.rglob("*.html")
             if page.name != "404.html" and not _drawn(page)}  # fmt: skip
    faults = []
    for page, places in pages.items():
        for link in places.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page.resolve()
            known = pages.get(site.resolve() / target.relative_to(site.resolve()))
            if not target.is_file() or (
                parts.fragment and known and unquote(parts.fragment) not in known.anchors
            ):
                faults.append(f"{page.relative_to(site)}: {link}")
    return faults


def _drawn(page: Path) -> bool:
    return page.parent.name == "gallery" and page.name != "index.html"


def found(site: Path, word: str, browser: str) -> int:
    """How many pages the search lists for a word, in a page that is opened from disk."""
    shown = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=15000",
         "--dump-dom", f"{(site / 'index.html').resolve().as_uri()}?q={word}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    match = re.search(r"search-result__meta\">(\d+) matching documents?", shown)
    return int(match[1]) if match else 0


def main(site: Path) -> int:
    """Check, and say what was found."""
    site = site.resolve()
    faults = broken(site)
    for fault in faults:
        print(f"leads nowhere: {fault}")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print("search from disk: not tried, no Chromium is installed")
    elif (count := found(site, "overlap", browser)) == 0:
        print("search from disk: finds nothing for `overlap`")
        faults.append("search")
    else:
        print(f"search from disk: {count} pages for `overlap`")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
