"""Builds the wheel and the source archive, checks them, and runs the wheel in a clean environment.

    python scripts/check_dist.py dist

The environment is a new one with the wheel and its declared dependencies, nothing else: a package
that is missing from the metadata is missing there. It lies in a temporary folder, outside of the
checkout, so that nothing is imported from src. Files are not byte-compiled, which halves the time.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_BYTES = {".whl": 8_000_000, ".gz": 16_000_000}
# Needed to build, to cite, to test and to read what is in the archive.
IN_SOURCES = (
    "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md",
    "constraints.txt", "Makefile", "mkdocs.yml", "src/flagscope/__init__.py", "tests/conftest.py",
    "docs/hooks.py", "docs/gallery/index.md", "scripts/check_dist.py", "benchmarks/__main__.py",
)  # fmt: skip
IN_WHEEL = (
    "flagscope/py.typed", "flagscope/demo/step-010000.safetensors", "flagscope/demo/config.json",
    "flagscope/report/templates/page.html.j2", "flagscope/schema/flagscope.scan-2.json",
    "flagscope/arch/families/gpt2.toml",
)  # fmt: skip
JUNK = re.compile(
    r"(^|/)(__pycache__|\.venv|\.git|\.ci|site|dist|lab-results[^/]*|\.[\w-]+_cache)(/|$)"
    r"|\.py[co]$|\.DS_Store$|~$"
)
# Run outside of the checkout: what a user would run first, and that it is the installed package.
TRIALS = (
    ["flagscope", "--version"],
    ["flagscope", "demo", "--quiet", "--html", "demo.html"],
    ["flagscope", "families", "--json"],
    ["python", "-I", "-W", "error", "-c",
     "import flagscope; assert 'site-packages' in flagscope.__file__, flagscope.__file__"],
    ["python", "-m", "flagscope.schema"],
    ["python", "-m", "pip", "check"],
)  # fmt: skip


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run a command; show what it prints only if it fails."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n")
        sys.exit(f"failed: {' '.join(map(str, command))}")


def build(out: Path) -> tuple[Path, Path]:
    """The wheel, made from the source archive as pip would make it, and that archive."""
    run(sys.executable, "-m", "build", "--outdir", out)
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def check_contents(wheel: Path, archive: Path) -> None:
    """Sizes, files that must be there and files that must not."""
    with zipfile.ZipFile(wheel) as files:
        in_wheel = {info.filename for info in files.infolist()}
    with tarfile.open(archive) as files:
        members = files.getmembers()
    in_sources = {member.name.partition("/")[2] for member in members}
    faults = [f"not in the source archive: {name}" for name in IN_SOURCES if name not in in_sources]
    faults += [f"not in the wheel: {name}" for name in IN_WHEEL if name not in in_wheel]
    faults += [f"junk: {name}" for name in sorted(in_sources | in_wheel) if JUNK.search(name)]
    faults += [f"a link: {m.name}" for m in members if m.issym() or m.islnk()]
    # What git does not know, or knows and the wheel lacks, is a file that somebody forgot.
    kept = subprocess.run(
        ["git", "ls-files", "src/flagscope"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if kept:
        packed = {f"src/{name}" for name in in_wheel if name.startswith("flagscope/")}
        faults += [f"not the same in git and wheel: {name}" for name in sorted(packed ^ set(kept))]
    for file in (wheel, archive):
        size = file.stat().st_size
        print(f"{file.name}: {size / 1e6:.1f} MB")
        if size > MOST_BYTES[file.suffix]:
            faults.append(f"{file.name} is larger than {MOST_BYTES[file.suffix] / 1e6:.0f} MB")
    if faults:
        sys.exit("\n".join(faults))


def check_same(wheel: Path, out: Path) -> None:
    """The wheel made from the checkout holds the same files, byte for byte."""
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out)
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(next(out.glob("*.whl"))) as other:
        sums = [{info.filename: info.CRC for info in files.infolist()} for files in (one, other)]
    if sums[0] != sums[1]:
        differ = sorted(name for name, _ in sums[0].items() ^ sums[1].items())
        sys.exit(f"not the same from checkout and source archive: {', '.join(differ)}")


def check_description(wheel: Path) -> None:
    """The page of the package index has no link or picture that leads nowhere there."""
    with zipfile.ZipFile(wheel) as files:
        name = next(name for name in files.namelist() if name.endswith("METADATA"))
        metadata = message_from_bytes(files.read(name))
    text = metadata.get_payload()
    assert isinstance(text, str)
    relative = re.findall(r"\]\((?!https?:|#)([^)]+)\)", text)
    if relative:
        sys.exit(f"the long description links to files of the checkout: {', '.join(relative)}")
    if "flagscope" not in text:
        sys.exit("there is no long description")


def try_out(wheel: Path, folder: Path) -> None:
    """Install the wheel in a new environment, and run it outside of the checkout."""
    venv.create(folder / "venv", with_pip=True)
    programs = folder / "venv/bin"
    pip = (programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
           "--no-compile", "-c", ROOT / "constraints.txt")  # fmt: skip
    run(*pip, "torch")  # first and alone, so that the pinned build is taken
    run(*pip, wheel)
    for program, *arguments in TRIALS:
        run(programs / program, *arguments, cwd=folder)
    page = (folder / "demo.html").read_text(encoding="utf-8")
    if "<title>" not in page:
        sys.exit("flagscope demo --html made no page")


def main(out: Path) -> None:
    """Build, check and try."""
    for old in [*out.glob("flagscope-*.whl"), *out.glob("flagscope-*.tar.gz")]:
        old.unlink()
    wheel, archive = build(out)
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, archive)
    check_contents(wheel, archive)
    check_description(wheel)
    with tempfile.TemporaryDirectory() as folder:
        check_same(wheel, Path(folder))
        try_out(wheel, Path(folder))
    print("wheel and source archive: built, checked, and run in a clean environment")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
