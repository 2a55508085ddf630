"""The page of `asr explain` in a browser: it plays, its cursor follows, and it loads nothing."""

from __future__ import annotations

import pytest

from asr.__main__ import main


@pytest.fixture(scope="module")
def page(tiny_model, tmp_path_factory):
    import numpy as np
    import soundfile

    folder = tmp_path_factory.mktemp("explained")
    soundfile.write(folder / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(24000), 16000)
    path = folder / "page.html"
    assert main(["explain", str(folder / "a.wav"), "-m", str(tiny_model), "--text", "ab c", "-o", str(path)]) == 0
    return path


@pytest.mark.parametrize(("width", "dark"), [(1180, False), (390, True)])
def test_it_opens_everywhere(browser, page, width, dark):
    browser.errors.clear()
    browser.open(page, width=width, dark=dark)
    assert browser.run("Array.from(document.images).every(i => i.complete && i.naturalWidth > 900)")
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("getComputedStyle(document.body).backgroundColor") == (
        "rgb(21, 23, 27)" if dark else "rgb(251, 250, 248)"
    )
    assert browser.errors == []


def test_words_and_pictures_play(browser, page):
    browser.errors.clear()
    browser.open(page)
    browser.run("player.muted = true; new Promise(r => player.readyState ? r() : player.onloadedmetadata = r)")
    assert abs(browser.run("player.duration") - 1.5) < 0.1
    browser.run("document.querySelectorAll('button')[1].click()")
    browser.run("new Promise(r => player.seeking ? player.addEventListener('seeked', r) : r())")
    assert browser.run("player.currentTime - document.querySelectorAll('button')[1].dataset.start") >= 0
    left, time = browser.run("move(); [parseFloat(cursors[0].style.left) / 100, player.currentTime]")
    assert abs(left - (0.09 + 0.895 * time / 1.5)) < 0.05
    click = "new MouseEvent('click', {bubbles: true, clientX: box.left + (0.09 + 0.895 / 2) * box.width})"
    browser.run(
        f"box = document.images[0].parentElement.getBoundingClientRect(); document.images[0].dispatchEvent({click})"
    )
    assert abs(browser.run("player.currentTime") - 0.75) < 0.2
    assert browser.errors == []
