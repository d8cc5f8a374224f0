"""Reports in a headless Chromium: no errors, nothing fetched, and what moves moves."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bigtrain.reports.page import render
from bigtrain.reports.run import read_runs

from .browser import Opened, chromium
from .made_runs import add_offline_parts, event, make_run, write_log, write_recipe

NASTY = "<script>document.title='taken'</script><img src=x onerror=document.title='taken'>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    """One browser for all tests of this file."""
    with chromium(tmp_path_factory.mktemp("profile")) as context:
        yield context


@pytest.fixture(scope="module")
def opened(browser, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """A report of two runs, one of two ranks and with a hostile name, both with all parts."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [
        make_run(folder / "a", NASTY, world=2),
        make_run(folder / "b", "plain", phase=0.5, objective="relativistic"),
    ]
    for run in runs:
        add_offline_parts(run)
    page = folder / "report.html"
    page.write_text(render(read_runs(runs)))
    return Opened(browser, page)


def until(holds: Callable[[], bool], limit_s: float = 30.0) -> None:
    """Wait until something holds; the page's own policy forbids Playwright's way of waiting."""
    deadline_s = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline_s, "this never came to hold"
        time.sleep(0.05)


def hover(opened: Opened, selector: str, x: float) -> str:
    """Return what the tooltip of a plot says with the pointer at `x` of its axis."""
    plot = opened.tab.locator(selector).first
    plot.scroll_into_view_if_needed()
    pixel = plot.evaluate("(div, x) => div._fullLayout.xaxis._offset + div._fullLayout.xaxis.d2p(x)", x)
    box = plot.bounding_box()
    opened.tab.mouse.move(box["x"] + pixel - 3, box["y"] + box["height"] / 2)
    opened.tab.mouse.move(box["x"] + pixel, box["y"] + box["height"] / 2)
    shown = plot.locator(".hoverlayer text")
    shown.first.wait_for(state="attached")
    return " ".join(shown.all_text_contents())


def test_the_page_runs_without_complaint_and_fetches_nothing(opened: Opened) -> None:
    tab = opened.tab
    assert tab.locator(".plot .main-svg").count() > 30
    assert tab.locator("img").evaluate_all("all => all.every(each => !each.complete || each.naturalWidth > 0)")
    buttons = set(tab.locator(".modebar-btn").evaluate_all("all => all.map(each => each.dataset.title)"))
    assert {button.lower() for button in buttons} == {"download plot as a png", "reset axes"}, (
        "none that sends anything"
    )
    assert opened.complaints == []
    assert opened.fetched == []


def test_a_hostile_name_is_only_text(opened: Opened) -> None:
    assert opened.tab.title() == "2 runs · bigtrain"
    assert NASTY in opened.tab.locator(".runs tbody tr").first.inner_text()
    assert opened.tab.locator("img[src='x']").count() == 0


def test_the_slider_and_the_arrow_keys_move_the_pictures_of_both_runs(opened: Opened) -> None:
    first, second = opened.tab.locator(".lapse").all()
    said = first.locator("output")
    assert said.inner_text() == "64,000 images"
    last = first.locator("img").get_attribute("src")
    first.locator("input").fill("0")
    assert said.inner_text() == second.locator("output").inner_text() == "8,000 images"
    assert first.locator("img").get_attribute("src") != last
    first.press("ArrowRight")
    assert said.inner_text() == second.locator("output").inner_text() == "16,000 images"
    opened.tab.locator("#together").uncheck()
    first.locator("input").press("ArrowRight")
    assert (said.inner_text(), second.locator("output").inner_text()) == ("24,000 images", "16,000 images")


def test_play_goes_to_the_end(opened: Opened) -> None:
    lapse = opened.tab.locator(".lapse").first
    lapse.locator("input").fill("5")
    lapse.locator(".play").click()
    until(lambda: lapse.locator("output").inner_text() == "64,000 images")
    until(lambda: lapse.locator(".play").inner_text() == "▶")


def test_tooltips_name_runs_values_and_events(opened: Opened) -> None:
    losses = hover(opened, "[data-plot='training-0']", 32000)
    assert "32,000" in losses
    assert f"{NASTY} · generator : 2.854" in losses  # 3 + cos(8)
    assert "plain · discriminator : 0.5798" in losses  # 0.5 + sin(8.5) / 10
    assert "preempted" in losses
    assert "images differ <b>little</b>" in hover(opened, "[data-plot='training-0']", 40000)
    assert "1 " in hover(opened, "[data-curve='0'] .plot >> nth=2", 1.0)
    assert "plain : 8.25" in hover(opened, "[data-curve='0'] .plot >> nth=2", 1.0)  # 8 + (10 - 9)² / 4


def test_switches_change_what_is_drawn(opened: Opened) -> None:
    tab = opened.tab
    read = "document.querySelector(\"[data-plot='training-0']\")"
    assert tab.evaluate(f"{read}.layout.xaxis.title.text") == "images seen"
    tab.locator("#axis").select_option("hours")
    assert tab.evaluate(f"{read}.layout.xaxis.title.text") == "hours of training"
    assert tab.evaluate(f"{read}.data[0].x.at(-1)") == pytest.approx(640 / 3600, rel=1e-3)
    tab.locator("#axis").select_option("images")
    before = tab.evaluate(f"{read}.data.length")
    tab.locator("#smooth").fill("0.9")
    assert tab.evaluate(f"{read}.data.length") == before + 4  # the raw lines stay, paler
    tab.locator("#smooth").fill("0")
    tab.locator("#marks").uncheck()
    assert tab.evaluate(f"{read}.data.length") == 4
    tab.locator("#marks").check()
    tab.locator("[data-run='0']").click()
    assert all("plain" in name for name in tab.evaluate(f"{read}.data.map(each => each.name)"))
    tab.locator("[data-run='0']").click()
    tab.locator("[data-log='training-0']").check()
    assert tab.evaluate(f"{read}.layout.yaxis.type") == "log"


def test_it_fits_a_phone_and_follows_the_dark(opened: Opened) -> None:
    tab = opened.tab
    light = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.emulate_media(color_scheme="dark")
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.emulate_media(color_scheme="light")
    tab.locator("#theme").click()
    assert light != dark == tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.locator("#theme").click()
    tab.set_viewport_size({"width": 400, "height": 800})
    until(lambda: tab.evaluate("document.documentElement.scrollWidth") <= 400)
    tab.set_viewport_size({"width": 1280, "height": 900})
    assert opened.complaints == []


def test_a_run_with_nothing_but_a_torn_log_is_a_page_too(browser, tmp_path: Path) -> None:
    write_recipe(tmp_path / "bare")
    write_log(tmp_path / "bare", [event("start", 0)])
    (tmp_path / "bare" / "log.jsonl").open("a").write('{"event": "sta')
    (tmp_path / "page.html").write_text(render(read_runs([tmp_path / "bare"])))
    opened = Opened(browser, tmp_path / "page.html")
    assert opened.complaints == []
    assert "1 line(s) of log.jsonl could not be read" in opened.tab.locator("#missing").inner_text()
    assert "No grids in samples/." in opened.tab.locator("#samples").inner_text()
