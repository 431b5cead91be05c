"""The static pages of explanations and comparisons in a real browser, on a phone and in the dark."""

import re

import numpy as np
import pytest

from modeling_aigcvqa import load_pipeline
from modeling_aigcvqa.comparison.compare import compare
from modeling_aigcvqa.comparison.page import page_html
from modeling_aigcvqa.explain import explain
from modeling_aigcvqa.explain.report import write_report
from tests.conftest import moving_gradient, write_video
from tests.modeling.comparison.test_comparison import answers_of, drawn

PROMPT = "a red gradient moving to the left"
PAINTED = """() => [...document.querySelectorAll('canvas')].every(canvas => {
  const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  return pixels.some((value, place) => place % 4 < 3 && value > 40); })"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The folder of an explanation of a clip in several windows."""
    folder = tmp_path_factory.mktemp("report")
    clip = write_video(folder / "clip.mp4", moving_gradient(40, 96, 128))
    write_report(explain(load_pipeline("small"), clip, PROMPT), clip, folder)
    return folder


def opened(browser, path, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.goto(path.as_uri())
    return page


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_an_explanation_fits_and_plays(browser, report, width, scheme):
    page = opened(browser, report / "report.html", width, scheme)
    page.wait_for_function("document.querySelector('.aigcvqa-player').dataset.started === '1'")
    page.wait_for_function(PAINTED)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    pictures = page.locator("canvas").all()
    assert len(pictures) == 3
    bottom = max(box["y"] + box["height"] for box in (picture.bounding_box() for picture in pictures))
    assert page.locator(".aigcvqa-controls").bounding_box()["y"] >= bottom, "the controls are outside of the picture"
    if width == 390:
        assert min(picture.bounding_box()["width"] for picture in pictures) > 300, "one below the other"
    sizes = page.locator(".aigcvqa-legend div").evaluate_all(
        "all => all.map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 12, "the legend is readable"
    ink = page.locator(".aigcvqa-timeline svg").evaluate("svg => getComputedStyle(svg).color")
    assert (ink == "rgb(0, 0, 0)") == (scheme == "light")
    page.locator(".aigcvqa-controls input").evaluate("s => { s.value = 8; s.dispatchEvent(new Event('input')); }")
    page.wait_for_function("document.querySelector('.aigcvqa-controls output').textContent.startsWith('1.0')")
    page.close()


def test_without_javascript_the_overlay_is_shown(browser, report):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto((report / "report.html").as_uri())
    assert page.locator("video").is_visible()
    assert page.locator("video").get_attribute("controls") is not None
    assert not page.locator(".aigcvqa-controls").is_visible()
    context.close()


def test_the_page_answers_what_people_ask(browser, report):
    """What was scored? Is this good? Compared with what? Where is it bad? Can I trust it?"""
    page = opened(browser, report / "report.html", 1280, "light")
    text = " ".join(page.locator("body").inner_text().split())
    assert "What was scored: clip.mp4, 128 x 96, 40 frames, 5.0 s against its prompt" in text
    assert re.search(r"(very low|low|middle|high|very high): above \d+ % of the reference", text)
    assert (
        "the share of validation clips of the synthetic benchmark, drawn scenes (1000 clips) that score lower" in text
    )
    assert re.search(r"None stands out|Without these words the alignment would be higher", text)
    assert re.search(r"technical -?\d+\.\d\d, -\d+\.\d\d from the mean, at \d|technical: no place stands out", text)
    assert "say little about real videos" in text
    page.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_of_a_comparison_fits(browser, tmp_path, width):
    scores = np.hstack([drawn(20, [2.0, 0.0]), drawn(20, [0.1], 1)])
    answers = answers_of(scores, ["animals", "cities"] * 10, technical_score=scores)
    (tmp_path / "page.html").write_text(page_html(compare(answers), "small", "A note."), encoding="utf-8")
    page = opened(browser, tmp_path / "page.html", width, "dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert "A is better than every other generator." in page.locator(".verdict").inner_text()
    rows = page.locator("table").first.locator("tbody tr").all_inner_texts()
    assert rows[0].split()[:2] == ["1", "A"]
    page.close()
