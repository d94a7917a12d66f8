"""A chart's key: swatches with the colours and patterns of its bars, as the page's style sheet draws them."""

from reports.page.markup import Html, tag

# plotly's pattern, and the style sheet's class.
_CLASSES = {"/": "slash", "\\": "back", ".": "dots", "-": "dashes", "x": "crosses"}


def swatch(colour: str, pattern: str, *, is_hollow: bool = False) -> Html:
    """`colour`: a style variable's name; `pattern`: as plotly names it, "" for none. Hollow: the pattern
    alone has the colour."""
    classes = ["swatch", *([_CLASSES[pattern]] if pattern else []), *(["hollow"] if is_hollow else [])]
    return tag("i", class_=" ".join(classes), style=f"--fill:var({colour})")
