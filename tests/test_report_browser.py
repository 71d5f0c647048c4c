"""The report in a real browser: nothing fetched, no error, and all that answers does, by mouse and by keyboard."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

import report

INSTALL = "apt-get install chromium"  # Debian, Ubuntu
NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser to test the report in; install one: {INSTALL}")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@contextmanager
def opened(browser, path: Path, **options):
    """The page at `path`; afterwards nothing but itself may have been asked for, and nothing complained about."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    page = context.new_page()
    trouble, requests = [], []
    page.on("console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("dialog", lambda dialog: trouble.append(f"dialog {dialog.message}"))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.resolve().as_uri())
    page.wait_for_selector(".uplot canvas")
    yield page
    assert trouble == []
    assert [url for url in requests if not url.startswith("data:")] == [path.resolve().as_uri()]
    context.close()


@pytest.fixture(scope="module")
def compared(finished, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    other = shutil.copytree(finished, folder / "other")
    assert report.main([str(finished), str(other), "--out", str(folder / "page.html")]) == 0
    return folder / "page.html"


def test_every_image_loads(browser, finished):
    with opened(browser, finished / "report.html") as page:
        sizes = page.eval_on_selector_all(
            "img", "all => Promise.all(all.map(i => i.decode().then(() => i.naturalWidth)))"
        )
        assert len(sizes) > 20 and min(sizes) > 0


def test_tabs(browser, finished):
    with opened(browser, finished / "report.html") as page:
        shown = ".gallery:not([hidden])"
        assert page.locator(shown).count() == 1
        page.get_by_role("tab", name="det").first.click()
        assert page.locator("#panel-gallery-1").is_visible() and not page.locator("#panel-gallery-0").is_visible()
        page.keyboard.press("ArrowRight")
        assert page.locator("#panel-gallery-2").is_visible() and page.locator(shown).count() == 1
        page.keyboard.press("ArrowRight")  # round
        assert page.locator("#panel-gallery-0").is_visible()
        assert page.locator("#panel-scores-0").is_visible()  # the other tabs stayed


def test_the_slider_steps_through_the_stages_of_the_same_images(browser, finished):
    with opened(browser, finished / "report.html") as page:
        gallery = page.locator("#panel-gallery-0")
        visible = ".picture:visible"
        examples = gallery.locator(".example").count()
        assert gallery.locator(visible).count() == 4 * examples  # side by side: truth and three stages
        slider = gallery.locator(".slider")
        slider.focus()
        page.keyboard.press("Home")
        for stage in ("after seg", "after det", "after cls"):
            assert gallery.locator("output").inner_text() == stage
            assert slider.get_attribute("aria-valuetext") == stage
            labels = gallery.locator(visible).all_inner_texts()
            assert len(labels) == 2 * examples
            assert all(label.startswith((stage, "truth")) for label in labels)
            page.keyboard.press("ArrowRight")
        gallery.get_by_role("button", name="one stage at a time").click()
        assert gallery.locator(visible).count() == 4 * examples


def test_tables_sort_by_number_with_what_is_undefined_last(browser, finished):
    with opened(browser, finished / "report.html") as page:
        table = page.locator("#panel-scores-0 table").nth(1)
        column = "rows => rows.map(row => row.cells[1].dataset.value)"
        head = table.locator("th").nth(1)
        for direction in ("descending", "ascending"):
            head.get_by_role("button").press("Enter")
            assert head.get_attribute("aria-sort") == direction
            values = table.locator("tbody tr").evaluate_all(column)
            known = [float(value) for value in values if value]
            assert known == sorted(known, reverse=direction == "descending")
            assert len(known) > 2 and all(not value for value in values[len(known) :])


def test_plots_tell_their_values_to_mouse_and_keyboard(browser, finished):
    with opened(browser, finished / "report.html") as page:
        chart = page.locator(".chart").first
        values = chart.locator(".u-legend .u-value")
        page.mouse.move(0, 0)
        chart.locator(".plot").focus()
        page.keyboard.press("End")
        assert values.first.inner_text() == "5"
        by_keyboard = values.all_inner_texts()
        assert all(float(text) >= 0 for text in by_keyboard)
        page.keyboard.press("Home")
        assert values.first.inner_text() == "2" and values.nth(3).inner_text() == "–"  # cls: not learned yet
        over = chart.locator(".u-over")
        over.scroll_into_view_if_needed()
        box = over.bounding_box()
        page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 40)
        assert values.all_inner_texts() == by_keyboard
        name = chart.locator(".u-series th").nth(1)
        name.press("Enter")
        assert "u-off" in chart.locator(".u-series").nth(1).get_attribute("class")


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_of_the_screen(browser, finished, compared, width):
    for path in (finished / "report.html", compared):
        with opened(browser, path, viewport={"width": width, "height": 800}) as page:
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_light_and_the_readers_choice(browser, finished):
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, finished / "report.html", color_scheme="light") as page:
        light = page.evaluate(ground)
        page.get_by_role("button", name="dark / light").click()
        dark = page.evaluate(ground)
        assert dark != light and page.locator(".uplot canvas").count() == page.locator(".chart").count()
        page.emulate_media(media="print")
        assert page.locator("#panel-gallery-0").is_visible() and page.locator("#panel-gallery-1").is_visible()
        assert not page.locator(".controls").first.is_visible()
    with opened(browser, finished / "report.html", color_scheme="dark") as page:
        assert page.evaluate(ground) == dark


def test_it_prints(browser, finished, tmp_path):
    with opened(browser, finished / "report.html") as page:
        printed = page.pdf(path=tmp_path / "report.pdf")
        assert printed.startswith(b"%PDF") and len(printed) > 50_000


def test_without_javascript_all_tasks_and_stages_are_there(browser, finished):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((finished / "report.html").resolve().as_uri())
    assert page.locator(".gallery").count() == 3 and page.locator(".gallery:visible").count() == 3
    assert page.locator(".picture").count() == page.locator(".picture:visible").count()
    assert not page.locator(".controls:visible").count()
    context.close()


def test_comparison(browser, compared):
    with opened(browser, compared) as page:
        assert page.locator(".chart").count() == 5
        page.locator(".plot").first.focus()
        page.keyboard.press("Home")
        assert page.locator(".chart").first.locator(".u-value").first.inner_text() != "–"
