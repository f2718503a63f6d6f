"""Pages from the jinja2 templates in `templates`, with the style and script of `assets` inside: a page is one file."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from depthvla_evaluation import colours

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Cell:
    """Of a table, when it is more than text. badge: good, bad or none."""

    text: str
    detail: str = ""
    bold: bool = False
    badge: str = ""
    link: str = ""


def render(template: str, **context: object) -> str:
    """The page as text; whatever the context holds is escaped."""
    return _ENVIRONMENT.get_template(f"{template}.html.jinja").render(context)


def with_unit(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}} {unit}".strip()


def percent(value: float | None) -> str:
    return with_unit(value, ".0%")


def _asset(name: str) -> Markup:
    return Markup((HERE / "assets" / name).read_text())


def _data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"percent": percent, "unit": with_unit, "data_uri": _data_uri}
_ENVIRONMENT.globals |= {"asset": _asset, "colours": colours}
