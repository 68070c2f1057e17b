"""The page in a real headless Chromium: no errors, curves, a legend that hides lines, tables that sort, a live page."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.report.__main__ import report
from experiments.watch.live_server import Server, Watched

pytestmark = pytest.mark.browser
EVIL = "</script><script>document.title = 'taken'</script><img src=x onerror=document.title='taken'>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, with the log of its console."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    places = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if missing := [name for name, place in places.items() if place is None]:
        pytest.skip(f"{', '.join(missing)} not on PATH: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = places["chromium"]
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1300,1000"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(places["chromedriver"]))
    yield driver
    driver.quit()


def until(driver: Any, found: Callable[[], object]) -> object:
    """What ``found`` returns once it is true; at most for a minute."""
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(driver, 60, 0.1).until(lambda _: found())


def opened(driver: Any, address: str) -> None:
    """Open a page, and wait until it is drawn."""
    driver.get(address)
    until(driver, lambda: driver.execute_script("return document.body.dataset.drawn"))


def lines(driver: Any, panel: int = 0) -> list[str]:
    """The names of the lines that a panel shows."""
    script = (
        "return document.getElementById(arguments[0]).data.filter(t => t.visible === true && t.showlegend !== false)"
    )
    return [trace["name"] for trace in driver.execute_script(script, f"plot-{panel}")]


def drawn(driver: Any) -> int:
    """How many lines with points are drawn in the first panel."""
    lines = "[...document.querySelectorAll('#plot-0 .scatterlayer .js-line')]"
    return int(driver.execute_script(f"return {lines}.filter(line => line.getAttribute('d')).length"))


def cells(driver: Any, table: int, column: str) -> list[str]:
    """A column of a table, as it is shown."""
    script = """const t = document.querySelectorAll('table')[arguments[0]];
        const n = [...t.querySelectorAll('th')].findIndex(h => h.textContent === arguments[1]);
        return [...t.querySelectorAll('tbody tr')].map(r => r.children[n].textContent)"""
    return list(driver.execute_script(script, table, column))


def asked_for(driver: Any) -> list[str]:
    """The addresses that the browser asked for, but for data in the page itself."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith(("data:", "blob:"))]


def errors(driver: Any) -> list[dict[str, Any]]:
    """What the browser's console has but information, since the last call."""
    return [entry for entry in driver.get_log("browser") if entry["level"] != "INFO"]


def test_a_page_of_several_runs(browser, make_run, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By

    for seed in range(3):
        make_run(f"avg{seed}", [0.1, 0.3, 0.5 + seed / 10], seed, note=json.dumps(EVIL))
        make_run(f"prox{seed}", [0.1, 0.4, 0.8 - seed / 10], seed, "fedprox", events=[{"round": 1, "reason": EVIL}])
    report([tmp_path / "runs"], tmp_path / "r.html")
    asked_for(browser)
    opened(browser, (tmp_path / "r.html").as_uri())
    assert browser.title == "6 runs" and asked_for(browser) == [(tmp_path / "r.html").as_uri()]
    assert EVIL in browser.find_element(By.ID, "events").text
    assert len(lines(browser)) == 2 and drawn(browser) == 4  # two means and two bands
    shown = browser.execute_script("const t = document.getElementById('plot-0').data[1]; return [t.y, t.customdata]")
    # .5, .6, .7: mean .6, std .1, half = t(.975, 2) .1 / sqrt 3 = 4.302653 * .057735
    assert shown[0] == pytest.approx([0.1, 0.3, 0.6]) and shown[1][2] == pytest.approx(0.2484138)
    first, second = lines(browser)
    browser.find_elements(By.CSS_SELECTOR, "#plot-0 .legendtoggle")[0].click()
    until(browser, lambda: lines(browser) == [second] and lines(browser, 1) == [second])
    until(browser, lambda: drawn(browser) == 2)
    time.sleep(1)  # so that plotly takes the next click for no double click
    browser.find_elements(By.CSS_SELECTOR, "#plot-0 .legendtoggle")[0].click()
    until(browser, lambda: lines(browser) == [first, second])
    browser.find_element(By.CSS_SELECTOR, "#lines option[value=runs]").click()
    until(browser, lambda: len(lines(browser)) == 6 and drawn(browser) == 6)
    for axis in ("seconds", "bytes", "round"):
        browser.find_element(By.CSS_SELECTOR, f"#axis option[value={axis}]").click()
        assert len(lines(browser)) == 6
    heading = next(h for h in browser.find_elements(By.CSS_SELECTOR, "table th") if h.text == "accuracy")
    heading.click()
    assert cells(browser, 0, "accuracy") == sorted(cells(browser, 0, "accuracy"))
    assert cells(browser, 0, "run")[0] == "avg0" and heading.get_attribute("aria-sort") == "ascending"
    heading.click()
    assert cells(browser, 0, "run")[0] == "prox0" and heading.get_attribute("aria-sort") == "descending"
    assert browser.find_elements(By.CSS_SELECTOR, "#partition-0 .heatmaplayer image")
    assert errors(browser) == []


def test_odd_runs_are_drawn_without_an_error(browser, make_run, tmp_path: Path) -> None:
    make_run("empty", [], summary=None)
    make_run("going", [0.5], summary=None)
    make_run("none", [None, None])
    make_run("long", list(map(float, range(3000))))
    (make_run("broken") / "config.toml").write_text("= broken")
    report([tmp_path / "runs"], tmp_path / "r.html")
    opened(browser, (tmp_path / "r.html").as_uri())
    assert "broken: cannot be read" in browser.find_element("id", "page").text and len(lines(browser)) >= 1
    assert errors(browser) == []


def test_the_live_page_follows_its_runs(browser, make_run, tmp_path: Path) -> None:
    from selenium.webdriver import ActionChains

    run = make_run("a", [0.1, 0.2], summary=None)
    with Server(Watched([tmp_path / "runs"]), every=0.2) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            opened(browser, server.address)
            assert drawn(browser) == 1
            place = browser.find_element("css selector", "#plot-0 .nsewdrag")
            drag = ActionChains(browser).move_to_element(place).click_and_hold().move_by_offset(150, 0).pause(0.2)
            drag.release().perform()
            begin = "return document.getElementById('plot-0').layout.xaxis.range[0]"
            enlarged = until(browser, lambda: browser.execute_script(begin) > 0.3 and browser.execute_script(begin))
            with (run / "rounds.jsonl").open("a") as rows:
                rows.write('{"round": 2, "accuracy": 0.9, "loss": 1.0}\n')
            until(browser, lambda: cells(browser, 0, "accuracy") == ["0.9"])
            assert browser.execute_script(begin) == enlarged
            make_run("b", [0.4], seed=1)
            until(browser, lambda: cells(browser, 0, "run") == ["a", "b"])
            assert {url.partition("?")[0].partition("127.0.0.1")[2] for url in asked_for(browser)[-2:]} == {
                f":{server.server_address[1]}/data"
            }
            assert errors(browser) == []
        finally:
            server.shutdown()
            thread.join()
