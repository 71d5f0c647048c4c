"""The page itself: templates filled, styles, scripts and pictures inside, all text from outside escaped."""

import datetime
import math
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_HERE = Path(__file__).parent
_ASSETS = _HERE / "assets"


def render(template: str, charts: list[dict], **content) -> str:
    """HTML of templates/`template`. charts: every plot's data, which the template refers to by their "number"."""
    pages = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,  # class names, paths and recipes come from users
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["figure"] = figure
    for number, chart in enumerate(charts):
        chart["number"] = number
    inside = {
        "styles": _asset("uPlot.min.css") + _asset("report.css"),
        "uplot": _asset("uPlot.iife.min.js"),
        "script": _asset("report.js"),
        "written": f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
    }
    return pages.get_template(template).render(charts=charts, **inside, **content)


def _asset(name: str) -> Markup:
    """A file of this project, trusted as it is."""
    return Markup((_ASSETS / name).read_text())


def figure(value: float | None, form: str) -> str:
    """A number in print; – where there is none."""
    return "–" if value is None or math.isnan(value) else format(value, form).replace("-", "−")
