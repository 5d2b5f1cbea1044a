"""What a browser is told before anything is drawn, and what it tells of itself."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from nicegui import ui

from iot_pipeline.explore._style import DARK, LIGHT, Palette

_STYLE = Path(__file__).with_name("style.css")
_NARROW = 700
_NARROWEST = 300
_SCRIPT = """<script>
addEventListener('popstate', () => emitEvent('moved', location.search));
matchMedia('(prefers-color-scheme: dark)').addEventListener('change',
  () => setTimeout(() => emitEvent('looks'), 100));
// A row loses the focus when it is moved within its table.
let focused = null;
addEventListener('focusin', event => focused = event.target);
addEventListener('pointerdown', () => focused = null);
new MutationObserver(changes => {
  if (focused && document.activeElement === document.body
      && changes.some(change => [...change.addedNodes].some(node => node.contains(focused))))
    focused.focus({preventScroll: true});
}).observe(document, {childList: true, subtree: true});
</script>"""
_LOOK = """({width: innerWidth, chart: document.querySelector('.chart').clientWidth,
    dark: document.body.classList.contains('body--dark')})"""
# Never to the page before this one.
_BACK = "history.state ? history.back() : emitEvent('whole')"


@dataclass(frozen=True, slots=True)
class Looks:
    """What the browser is like.

    Attributes:
        palette: Colours, light or dark.
        narrow: Whether it is as narrow as a telephone.
        columns: How many pixels wide the chart is.
    """

    palette: Palette = LIGHT
    narrow: bool = False
    columns: int = 900


def prepare(
    *,
    on_link: Callable[[str], Awaitable[None]],
    on_looks: Callable[[], Awaitable[None]],
    on_no_way_back: Callable[[], Awaitable[None]],
) -> None:
    """Style the page that is being built, and listen to its browser.

    Args:
        on_link: Called with the query of the link that the browser has gone back or forward to.
        on_looks: Called when the machine has become dark or light.
        on_no_way_back: Called instead of leaving the page by `go_back`.
    """
    ui.add_css(_STYLE)
    ui.add_head_html(_SCRIPT)
    ui.on("moved", lambda event: on_link(str(event.args)))
    ui.on("looks", on_looks)
    ui.on("whole", on_no_way_back)


async def look() -> Looks | None:
    """Ask the browser what it is like; None if it has gone."""
    found = await ui.run_javascript(_LOOK, timeout=10)
    if not found:
        return None
    palette = DARK if found["dark"] else LIGHT
    return Looks(palette, narrow=found["width"] < _NARROW, columns=max(found["chart"], _NARROWEST))


def go_back() -> None:
    """Show the view before."""
    ui.run_javascript(_BACK)
