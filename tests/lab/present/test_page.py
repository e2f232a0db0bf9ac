"""The frame of all pages: what its policy allows, and that no part can become another."""

import base64
import hashlib
import re

import pytest

from lab.present import page


def policy_of(html: str) -> dict[str, str]:
    text = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    return dict(part.split(" ", 1) for part in text.split("; "))


def allowed(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def test_style_and_program_are_allowed_by_their_digests_and_nothing_else() -> None:
    html = page.render(title="T", style="p { margin: 0; }", body="<p>x</p>\n", program="go();")
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    assert style.endswith("p { margin: 0; }")
    assert "color-scheme: light dark" in style
    assert policy_of(html) == {
        "default-src": "'none'",
        "style-src": allowed(style),
        "script-src": allowed("go();"),
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_a_page_without_a_program_allows_none_and_pictures_only_where_they_are_asked_for() -> None:
    html = page.render(title="T", style="", body="", images=True)
    assert "script-src" not in policy_of(html)
    assert "<script" not in html
    assert policy_of(html)["img-src"] == "'self'"
    assert "img-src" not in policy_of(page.render(title="T", style="", body=""))


def test_a_title_is_text() -> None:
    assert "<title>&lt;b&gt; &amp;</title>" in page.render(title="<b> &", style="", body="")


def test_a_part_cannot_name_another() -> None:
    assert page.fill("{{a}} {{b}}", {"a": "{{b}}", "b": "{{a}}"}) == "{{b}} {{a}}"
    with pytest.raises(KeyError):
        page.fill("{{missing}}", {})


def test_data_cannot_end_its_element() -> None:
    assert "<" not in page.script_data(["</script><!--", "é"])
    assert page.script_data({"a": [1, None]}) == '{"a":[1,null]}'
