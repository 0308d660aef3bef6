"""Tables as CSV that a spreadsheet may open: names from files are text there, and no formulas."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

# With these a spreadsheet takes a cell for a formula, which can run programs and send data.
_FORMULA = "=+\\-@＝＋－＠"
# A cell begins where the text does, and where a semicolon parts cells, as in half of Europe.
_BEGINS = re.compile(rf"(^|;\s*)(?=[{_FORMULA}])")
# What would begin a line, and with it a cell, for one program or another.
_BREAKS = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")


def csv_text(table: pandas.DataFrame) -> str:
    """A table as CSV; a text that would be taken for a formula gets an apostrophe in front.

    Line ends and other control characters in a text are spelt out.

    References
    ----------
    OWASP, "CSV Injection".

    Examples
    --------
    >>> import pandas
    >>> print(csv_text(pandas.DataFrame({"name": ["=1+1", "fc"], "change": [-0.5, 2.0]})), end="")
    name,change
    '=1+1,-0.5
    fc,2.0
    """
    texts = table.select_dtypes(exclude="number").columns
    plain = table.assign(**{name: table[name].map(_as_text) for name in texts})
    return plain.to_csv(index=False, lineterminator="\n")


def _as_text(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    line = _BREAKS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), cell)
    return _BEGINS.sub(r"\1'", line)
