"""Writes what the package says of itself into the pages of docs/ that show it.

    python scripts/fill_docs.py

Terms, numbers, families and keys of family files stand in the pages themselves, between markers, so
that they can be read in a clone; a test holds them to the package.
"""

import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS))

from hooks import filled  # noqa: E402

if __name__ == "__main__":
    for page in sorted([*DOCS.glob("*.md"), *DOCS.glob("gallery/*.md")]):
        before = page.read_text(encoding="utf-8")
        after = filled(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(page.relative_to(DOCS.parent))
