"""The report: what is in the page, and how it behaves in a browser."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from asr.scoring.pairing import Line
from asr.scoring.report import (
    Posteriorgram,
    Section,
    data_uri,
    estimated_snr,
    most_errors,
    posteriorgram_data,
    write_report,
)
from asr.scoring.scored import score_set
from asr.types import Word

RATE = 16000


@pytest.fixture(scope="module")
def scored():
    """120 utterances of 8 speakers; number i has i % 4 errors, one of each kind, number 7 has a name full of markup."""
    lines, recognized = [], []
    confidences = (0.95, 0.9, 0.55, 0.99, 0.9, 0.97, 0.8, 0.9, 0.7, 0.4)
    for i in range(120):
        words = [f"w{i}", "the", "cat", "sat", "on", "the", "old", "mat", "until", "noon"]
        heard = list(words)
        if i % 4 >= 1:
            heard[2] = "hat"
        if i % 4 >= 2:
            del heard[6]
        if i % 4 >= 3:
            heard.append("uh")
        name = f"<img src=x onerror=alert(1)>-{i}" if i == 7 else f"s{i % 8}-{i:03d}"
        snr = 5.0 + i % 30 if i else None
        lines.append(Line(name, " ".join(words), speaker=f"s{i % 8}", duration=1.0 + i % 13, snr=snr))
        times = tuple(
            Word(word, k / 10, k / 10 + 0.1, c) for k, (word, c) in enumerate(zip(heard, confidences, strict=False))
        )
        recognized.append(Line(name, None) if i == 12 else Line(name, " ".join(heard), words=times))
    return score_set(lines, recognized, "none", characters=True)


@pytest.fixture(scope="module")
def page(scored, tmp_path_factory):
    time = np.arange(RATE) / RATE
    tone = (0.2 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    log_probs = np.full((50, 4), -20.0, dtype=np.float32)
    log_probs[np.arange(50), np.arange(50) // 10 % 4] = 0.0
    worst = most_errors(scored, 2)
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(
        path,
        [scored, score_set(scored.lines, scored.lines, "basic")],
        title="model <b>x</b> on </script> test",
        warnings=["one & <two>"],
        audio={i: data_uri(tone, RATE) for i in worst},
        posteriorgrams={worst[0]: Posteriorgram(log_probs, ["", " ", "a", "b"], 0.02)},
        flag_below=0.6,
        footer="the end",
    )
    return path


def data_of(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_the_page_is_one_file_that_holds_every_utterance_and_escapes_names(page, scored):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text)
    assert "<img src=x" not in text and "</script> test" not in text
    data = data_of(page)
    assert data["title"] == "model <b>x</b> on </script> test"
    assert [u["id"] for u in data["utterances"]] == [line.id for line in scored.lines]
    for utterance, reference, hypothesis in zip(data["utterances"], scored.references, scored.hypotheses, strict=True):
        parts = [(p, p) if isinstance(p, str) else p for p in utterance["a"]]
        assert " ".join(" ".join(p[0] for p in parts).split()) == reference
        assert " ".join(" ".join(p[1] for p in parts).split()) == hypothesis
    assert data["utterances"][12]["m"] == 1
    assert len(data["normalizers"]) == 3
    assert {c["title"]: sum(g["words"] for g in c["groups"]) for c in data["charts"]} == dict.fromkeys(
        ["WER by duration", "WER by speaker", "WER by signal-to-noise ratio"], 1200
    )
    assert {row["r"]: row["n"] for row in data["confused"]} == {"cat": 90}


def test_sections_show_the_spread_of_speakers_and_what_else_is_given(browser, scored, tmp_path):
    groups = [replace(group, name=f"condition {i}") for i, group in enumerate(scored.speakers[:3])]
    section = Section("Robustness", ["condition", "WER"], [["<b>clean</b>", "1 %"]], groups, "a note")
    write_report(tmp_path / "r.html", [scored], title="t", sections=[section])
    speakers, other = data_of(tmp_path / "r.html")["sections"]
    assert speakers["note"] == scored.speaker_spread.text() and "worst s3 30.00%" in speakers["note"]
    assert [row[0] for row in speakers["rows"]] == [group.name for group in scored.speaker_spread.groups]
    assert [group["name"] for group in other["groups"]] == ["condition 0", "condition 1", "condition 2"]
    browser.open(tmp_path / "r.html", width=390)
    browser.run("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
    assert browser.run("[...document.querySelectorAll('#sections h2')].map(n => n.textContent)") == [
        "Speakers", "Robustness"
    ]  # fmt: skip
    assert browser.run("document.querySelectorAll('#sections svg.plot circle').length") == 3
    assert browser.run("document.querySelector('#sections section:last-child td').textContent") == "<b>clean</b>"
    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert browser.errors == []


def test_confidences_are_measured_and_doubtful_words_named(page, scored, tmp_path):
    data = data_of(page)
    card = data["cards"][-1]
    figures = scored.confidences.quality()
    assert card["value"] == f"{100 * figures['expected_calibration_error']:.1f} %"
    assert card["lines"][0] == f"normalized cross entropy {figures['normalized_cross_entropy']:.3f}"
    assert card["lines"][2] == "208 below 0.6, 120 of them wrong"
    assert sum(count for _, _, count in data["reliability"]) == figures["words"]
    both = [[2, 0.55], [9, 0.4]]
    assert [u["f"] for u in data["utterances"][:4]] == [both, both, both[:1], both]
    write_report(tmp_path / "r.html", [scored], title="t")
    plain = data_of(tmp_path / "r.html")
    assert plain["flag"] is None and not any(u["f"] for u in plain["utterances"])
    bare = score_set(scored.lines, scored.lines, "none")
    write_report(tmp_path / "b.html", [bare], title="t")
    assert data_of(tmp_path / "b.html")["reliability"] == [] and len(data_of(tmp_path / "b.html")["cards"]) == 2


def test_estimated_ratios_are_called_so(scored, tmp_path):
    lines = [replace(line, snr_estimated=True) for line in scored.lines]
    estimated = score_set(lines, scored.hypothesis_lines, "none")
    write_report(tmp_path / "r.html", [estimated], title="t")
    titles = [chart["title"] for chart in data_of(tmp_path / "r.html")["charts"]]
    assert "WER by signal-to-noise ratio (estimated)" in titles
    assert "SNR (estimated)" in estimated.tables() and "estimated" not in scored.tables()


def test_only_the_worst_utterances_of_a_huge_set_are_kept(scored, tmp_path, monkeypatch):
    monkeypatch.setattr("asr.scoring.report.MOST_UTTERANCES", 10)
    write_report(tmp_path / "r.html", [scored], title="t")
    data = data_of(tmp_path / "r.html")
    assert data["total"] == 120 and len(data["utterances"]) == 10
    kept = {u["k"] for u in data["utterances"]}
    errors = scored.words.errors_and_lengths[:, 0]
    assert min(errors[list(kept)]) >= max(np.delete(errors, list(kept)))


def test_a_strip_has_the_labels_that_matter_and_the_blank_last():
    posteriors = np.full((6, 5), 0.001)
    posteriors[[0, 1, 2, 3, 4, 5], [0, 3, 1, 3, 0, 2]] = 0.9
    posteriors /= posteriors.sum(axis=1, keepdims=True)
    strip = posteriorgram_data(Posteriorgram(np.log(posteriors), ["", " ", "a", "b", "c"], 0.04))
    assert strip["labels"] == ["space", "a", "b", "blank"]
    many = np.log(np.eye(200)[np.arange(1, 120)[::-1]] * 0.9 + 0.0005)
    labels = [""] + [f"▁{i}" for i in range(1, 200)]
    pieces = posteriorgram_data(Posteriorgram(many, labels, 0.04))["labels"]
    assert len(pieces) == 49 and pieces[-1] == "blank"
    times = [119 - int(label[1:]) for label in pieces[:-1]]
    assert times == sorted(times)


def test_clips_play_and_snr_orders_recordings_by_their_noise():
    generator = np.random.default_rng(0)
    time = np.arange(2 * RATE) / RATE
    speech = 0.3 * np.sin(2 * np.pi * 300 * time) * (np.sin(2 * np.pi * 1.5 * time) > 0)
    noise = generator.standard_normal(2 * RATE)
    found = [estimated_snr((speech + level * noise).astype(np.float32), RATE) for level in (0.1, 0.01, 0.001)]
    assert found == sorted(found)
    expected = [10 * np.log10(0.045 / level**2) for level in (0.1, 0.01, 0.001)]
    assert found == pytest.approx(expected, abs=4)
    assert estimated_snr(np.zeros(RATE, dtype=np.float32), RATE) is None
    assert estimated_snr(speech[:2000].astype(np.float32), RATE) is None
    for rate, kind in ((16000, "mpeg"), (12345, "wav")):
        assert data_uri(speech.astype(np.float32), rate).startswith((f"data:audio/{kind}", "data:audio/wav"))


def ids(browser):
    return browser.run("[...document.querySelectorAll('.utt')].map(n => n.dataset.id)")


def choose(browser, element, value):
    browser.run(
        f"(() => {{ const n = document.getElementById('{element}'); n.value = '{value}';"
        f" n.dispatchEvent(new Event(n.tagName === 'INPUT' ? 'input' : 'change')); }})()"
    )


def test_sorting_filtering_and_searching(browser, page, scored):
    browser.open(page)
    assert browser.run("document.getElementById('title').textContent") == "model <b>x</b> on </script> test"
    assert ids(browser)[0] == scored.lines[12].id  # the missing one has ten errors
    assert len(ids(browser)) == 40
    browser.run("document.querySelector('.center button').click()")
    assert len(ids(browser)) == 80
    choose(browser, "sort", "order")
    assert ids(browser)[:3] == [line.id for line in scored.lines[:3]]
    choose(browser, "sort", "long")
    assert ids(browser)[0] == scored.lines[12].id
    choose(browser, "filter", "i")
    assert all(int(name.rpartition("-")[2]) % 4 == 3 for name in ids(browser))
    assert browser.run("document.getElementById('count').textContent").startswith("30 of 120 utterances")
    choose(browser, "filter", "missing")
    assert ids(browser) == [scored.lines[12].id]
    choose(browser, "filter", "all")
    choose(browser, "search", "W33 the")
    assert ids(browser) == ["s1-033"]
    choose(browser, "search", "nothing like it")
    assert ids(browser) == [] and browser.run("document.querySelector('.utts').textContent") == "No utterance matches."
    choose(browser, "search", "onerror")
    assert len(ids(browser)) == 1 and browser.run("document.querySelectorAll('img').length") == 0
    assert browser.errors == []


def test_words_lead_to_their_utterances(browser, page):
    browser.open(page)
    browser.run("document.querySelector('#words button.link').click()")
    assert browser.run("document.getElementById('search').value") == "cat → hat"
    assert browser.run("document.getElementById('count').textContent").startswith("90 of 120 utterances")
    assert browser.run("document.querySelector('.utt .s').textContent") == "cat hat"
    choose(browser, "filter", "all")
    choose(browser, "search", "")
    assert browser.run("document.getElementById('count').textContent").startswith("120 of 120 utterances")
    assert browser.errors == []


def test_doubtful_words_are_marked_where_they_stand(browser, page):
    browser.open(page)
    choose(browser, "sort", "order")
    marked = "[...document.querySelectorAll('.utt')].map(n => [...n.querySelectorAll('.f')].map(f => f.textContent))"
    assert browser.run(marked)[:4] == [["cat", "noon"], ["hat", "noon"], ["hat"], ["hat", "uh"]]
    assert browser.run("document.querySelector('.utt .f').title") == "confidence 0.55"
    assert browser.run("document.getElementById('doubtful').textContent") == "confidence below 0.6"
    choose(browser, "filter", "doubtful")
    assert browser.run("document.getElementById('count').textContent").startswith("119 of 120 utterances")
    assert browser.run("document.querySelectorAll('svg.plot circle.bin').length") > 3
    assert browser.errors == []


def test_players_play_and_the_strip_is_drawn_and_leads_to_its_place(browser, page):
    browser.open(page)
    assert browser.run("document.querySelectorAll('audio').length") == 2
    played = browser.run(
        "(async () => { const a = document.querySelector('audio'); await a.play();"
        " for (let i = 0; i < 200 && a.currentTime < 0.1; i++) await new Promise(r => setTimeout(r, 20));"
        " const t = a.currentTime; a.pause(); return [t, a.duration]; })()"
    )
    assert played[0] > 0.05 and played[1] == pytest.approx(1.0, abs=0.15)
    colors = browser.run(
        "(() => { const c = document.querySelector('canvas'); const d = c.getContext('2d').getImageData(0, 0, c.width,"
        " c.height).data; let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return 4 * n / d.length; })()"
    )
    assert 0.05 < colors < 0.6
    place = browser.run(
        "(async () => { const c = document.querySelector('canvas'), a = document.querySelector('audio'),"
        " r = c.getBoundingClientRect(); c.dispatchEvent(new MouseEvent('click', {clientX: r.right - r.width / 4,"
        " clientY: r.top + 5})); a.pause(); return a.currentTime; })()"
    )
    assert 0.6 < place < 0.8
    assert browser.errors == []


@pytest.mark.parametrize("width", [1280, 768, 390, 320])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_every_width_in_light_and_dark(browser, page, width, dark):
    browser.open(page, width=width, dark=dark)
    browser.run("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("document.querySelectorAll('svg.plot').length") == 4
    # every text stands out from what is behind it (WCAG: 4.5 for body text)
    contrast = """(() => {
      const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const behind = n => { for (; n; n = n.parentElement) { const c = getComputedStyle(n).backgroundColor;
        if (c !== "rgba(0, 0, 0, 0)") return c; } return "rgb(255, 255, 255)"; };
      const names = ["h1", ".sub", ".label", ".small", ".warn", ".text", ".text .s", ".text .d", ".text .i", ".meta"];
      return Math.min(...names
        .map(s => document.querySelector(s)).filter(Boolean).map(n => {
          const a = light(getComputedStyle(n).color), b = light(behind(n));
          return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); })); })()"""
    assert browser.run(contrast) >= 4.5
    assert browser.errors == []
