"""What a reader does in a page, and where that leaves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

TIMEOUT = 20_000  # milliseconds, for a loaded machine


def address(page: Page) -> str:
    """The fragment of the page's URL, decoded."""
    return page.evaluate("decodeURIComponent(location.hash.slice(1))")


def arrived(page: Page, target: str, heading: str) -> None:
    """Assert that a target is in the URL, its object marked, in view, with the focus, announced."""
    page.wait_for_function(
        "target => decodeURIComponent(location.hash.slice(1)) === target", arg=target
    )
    assert page.locator(".marked").count() == 1
    page.wait_for_function(
        """id => {
          const box = document.getElementById(id).getBoundingClientRect();
          return box.top >= 0 && box.bottom <= innerHeight;
        }""",
        arg=heading,
        timeout=TIMEOUT,
    )
    assert page.evaluate("document.activeElement.id") == heading
    assert page.locator("#said").inner_text() != ""


def drawn(page: Page, selector: str) -> None:
    """Scroll to a figure and wait until Plotly has drawn it."""
    page.locator(selector).scroll_into_view_if_needed()
    page.wait_for_function(
        "selector => document.querySelector(selector)?.querySelector('.main-svg')",
        arg=selector,
        timeout=TIMEOUT,
    )


_PLACE = """([selector, trace, point]) => {
  const plot = document.querySelector(selector);
  const data = plot.data[trace];
  const { xaxis, yaxis } = plot._fullLayout;
  const box = plot.getBoundingClientRect();
  const [row, column] = Array.isArray(point) ? point : [point, point];
  const [x, y] = [data.x[column], data.y[row]];
  return [box.left + xaxis._offset + xaxis.d2p(x), box.top + yaxis._offset + yaxis.d2p(y)];
}"""


def click_point(page: Page, selector: str, trace: int, point: int | list[int]) -> None:
    """Click on a point of a figure, or on a cell, by its row and column."""
    drawn(page, selector)
    x, y = page.evaluate(_PLACE, [selector, trace, point])
    page.mouse.move(x - 3, y)
    page.mouse.move(x, y)
    page.mouse.click(x, y)


def traces(page: Page, selector: str) -> list[dict[str, Any]]:
    """The traces of a drawn figure: type, name, and what its points open."""
    return page.evaluate(
        """selector => document.querySelector(selector).data.map(({ name, customdata, x, y }) =>
          ({ name, targets: customdata ?? null, x, y }))""",
        selector,
    )


def all_drawn(page: Page) -> None:
    """Wait until every figure that is not folded away is drawn."""
    page.wait_for_function(
        """() => [...document.querySelectorAll('.plot')].every(plot => !plot.offsetWidth
          || plot.classList.contains('none') || plot.querySelector('.main-svg'))""",
        timeout=TIMEOUT,
    )
