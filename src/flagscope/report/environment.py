"""Templates of pages, and what of style and script they hold."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_STYLES = ("theme", "layout", "parts", "instrument")


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates of this package, with every value escaped."""
    import jinja2  # here, since few commands write a page

    return jinja2.Environment(
        loader=jinja2.PackageLoader("flagscope.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@lru_cache(maxsize=4)
def assets(scripts: Sequence[str], styles: Sequence[str] = ()) -> tuple[Markup, Markup]:
    """Style and script: the package's own text, and so the one thing that is not escaped.

    Parameters
    ----------
    scripts
        Names of the scripts, in order.
    styles
        Names of style sheets besides those of every page.
    """
    from markupsafe import Markup

    folder = resources.files("flagscope.report") / "templates"
    style, script = (
        "\n".join((folder / f"{name}.{ending}").read_text("utf-8") for name in names)
        for names, ending in (((*_STYLES, *styles), "css"), (scripts, "js"))
    )
    return Markup(style), Markup(script)
