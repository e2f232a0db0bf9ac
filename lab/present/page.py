"""The frame that all HTML pages of the lab share: one file that loads nothing it does not bring.

    html = render(title="A page", style=own_css, body="<p>text</p>", program=own_js)

The frame is page.html, the colours and the type page.css, both beside this file. The page's
content-security policy allows this style and this program by their digests, and nothing else. With
`images` it also allows pictures from the page's own folder.

What a page shows is put into its body by `fill`, and data for its program by `script_data`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any


def render(*, title: str, style: str, body: str, program: str = "", images: bool = False) -> str:
    """Return a whole page.

    style: CSS that follows the shared one; body: HTML; program: JavaScript, run at the body's end.
    """
    style = read_file("page.css") + style
    policy = ["default-src 'none'"]
    if images:
        policy.append("img-src 'self'")
    policy.append(f"style-src '{source_hash(style)}'")
    script = ""
    if program:
        policy.append(f"script-src '{source_hash(program)}'")
        script = f"<script>{program}</script>\n"
    policy += ["base-uri 'none'", "form-action 'none'"]
    parts = {
        "policy": html.escape("; ".join(policy), quote=False),  # in a quoted attribute, no quote
        "title": html.escape(title),
        "style": style,
        "body": body,
        "program": script,
    }
    return fill(read_file("page.html"), parts)


def read_file(name: str) -> str:
    """Return the text of a template, a style or a program of `lab/present`."""
    return resources.files("lab.present").joinpath(name).read_text("utf-8")


def fill(template: str, parts: Mapping[str, str]) -> str:
    """Return a template in which each {{name}} is the part of that name.

    Every part is put in once, so a part cannot name another.
    """
    pieces = template.split("{{")
    filled = pieces[0]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        filled += parts[name] + rest
    return filled


def script_data(document: Any) -> str:
    """Return JSON for a script element, in which no "<" can end the element that contains it."""
    data = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return data.replace("<", "\\u003c")


def source_hash(text: str) -> str:
    """Return the CSP source expression that allows exactly this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
