"""The page in a real browser, at the width of a phone and of a desk, light and dark: nothing fetched, nothing amiss."""

import itertools
import re

import pytest
from browser import Browser, needed
from test_architecture import ROOT
from tiny import CARTPOLE, config

from rl_gns.report.page import write
from rl_gns.study.train import train

RESULTS = ROOT / "docs" / "results"
COMPARE, CONFOUNDS, BREAKOUT = (
    RESULTS / f"2026-11-23-{name}" for name in ("compare", "cartpole-confounds", "breakout-front")
)
pytestmark = pytest.mark.slow
SCREENSHOTS = ROOT / "runs" / "screenshots"
"""Kept for people; not in git."""
PHONE, DESK = 390, 1280
COLOURS = ("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]",)
COLOURS += ("getComputedStyle(document.querySelector('figure text')).fill",)
COLOURS += ("[...document.querySelectorAll('figure svg')].map(e => e.getBoundingClientRect().width)",)
COLOURS += (
    "Math.min(...[...document.querySelectorAll('figure svg text')]"
    ".map(e => Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b) * parseFloat(getComputedStyle(e).fontSize)))",
)
LEAST_TEXT = 9.5
"""Pixels: a digit of 9.5 pixels can still be read at arm's length (a guess)."""
POLICY = re.compile(r"<meta http-equiv=.Content-Security-Policy.*?>")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "<img src=x onerror=alert(1)>"
    train(config(CARTPOLE, {"total_env_steps": 4000, "control": {"policy": "follow", "max_batch_size": 512}}), path)
    return write([path, BREAKOUT], tmp_path_factory.mktemp("page"))[0]


@pytest.fixture(scope="module")
def other_page(tmp_path_factory):
    """All that the first one has not: a comparison of games, maps of learning rates, variants, a forced mixture."""
    out = tmp_path_factory.mktemp("other")
    return write([COMPARE, CONFOUNDS, BREAKOUT], out, force=True)[0]


@pytest.fixture(scope="module")
def browser():
    needed()
    with Browser() as one:
        yield one


def luminance(colour):
    """Of `rgb(r, g, b)`, relative, as WCAG 2 defines it."""
    values = [int(v) / 255 for v in re.findall(r"\d+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return sum(weight * v for weight, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("width, dark", list(itertools.product((PHONE, DESK), (False, True))))
def test_the_page_is_sound(browser, page, width, dark):
    seen = browser.look(page, width, dark, COLOURS)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    (SCREENSHOTS / f"report-{width}-{'dark' if dark else 'light'}.png").write_bytes(seen.screenshot)
    assert (seen.errors, seen.requests, seen.wide) == ([], [], [])
    (ink, paper), fill, widths, least_text = seen.values
    assert (luminance(paper) < 0.1) == dark and fill == ink
    assert contrast(ink, paper) > 7, "WCAG AAA"
    assert len(widths) == 6 and min(widths) >= max(560, 0.85 * min(width, 736))
    assert least_text > LEAST_TEXT
    assert len(seen.screenshot) > 50_000


THERE = ("[...document.querySelectorAll('section[id]')].map(e => e.id)",)
THERE += ("[...document.querySelectorAll('.forced')].map(e => e.innerText).join(' ')",)
THERE += ("[...document.querySelectorAll('h2')].map(e => e.innerText)",)
THERE += ("document.querySelector('header + main p').innerText",)
THERE += (
    "['figure', '.verdict'].map(e => document.querySelector(e).getBoundingClientRect().top)",
    COLOURS[-1],
)


@pytest.mark.parametrize("width, dark", [(PHONE, True), (DESK, False)])
def test_games_rates_variants_and_a_forced_mixture(browser, other_page, width, dark):
    seen = browser.look(other_page, width, dark, THERE)
    (SCREENSHOTS / f"report-games-{width}-{'dark' if dark else 'light'}.png").write_bytes(seen.screenshot)
    assert (seen.errors, seen.requests, seen.wide) == ([], [], [])
    ids, forced, titles, opening, (figure, table), least_text = seen.values
    assert {f"{COMPARE.name}--games", f"{CONFOUNDS.name}--rates", f"{BREAKOUT.name}--speed-up"} <= set(ids)
    assert "mix protocols" in forced and "there" in forced
    assert "Variants, and what set their floors" in titles
    assert opening.startswith("B_simple of the policy gradient") and "Fresh, resolved in 3 of 7 games" in opening
    assert (figure < table) == (width == PHONE), "on a phone the long table comes after the figures"
    assert least_text > LEAST_TEXT


def planted(page, tmp_path, what, with_policy):
    text = page.read_text(encoding="utf-8")
    assert POLICY.search(text)
    text = (text if with_policy else POLICY.sub("", text)).replace("</main>", f"{what}</main>")
    copy = tmp_path / "planted.html"
    copy.write_text(text, encoding="utf-8")
    return copy


IMAGE = '<img src="http://127.0.0.1:9/stolen.png">'


@pytest.mark.parametrize(
    "what, with_policy, found",
    [
        (IMAGE, False, "requests"),
        (IMAGE, True, "errors"),
        ("<script>console.error('no')</script>", False, "errors"),
        ("<script>throw 1</script>", False, "errors"),
        ("<script>1</script>", True, "errors"),
        ('<p style="width: 5000px">wide</p>', True, "wide"),
    ],
)
def test_what_is_planted_is_seen(browser, page, tmp_path, what, with_policy, found):
    seen = browser.look(planted(page, tmp_path, what, with_policy), PHONE)
    assert getattr(seen, found), "the check can fail"


def test_one_figure_alone_fetches_nothing(browser, page):
    seen = browser.look(page.parent / "learning-curves.svg", DESK)
    assert (seen.errors, seen.requests) == ([], [])
