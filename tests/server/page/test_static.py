"""The page at `/`, in a real browser, with the demonstration model on a real engine."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, Locator

from tests.support.browsing import Cable, Visit, running_browser, visit
from tests.support.scrapes import scrape
from tests.support.servers import DEMO, RunningServer, running_server

pytestmark = pytest.mark.slow

Visiting = Callable[..., AbstractContextManager[Visit]]

KEY = "the-key-of-the-page"
PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 740},
    "has_touch": True,
    "is_mobile": True,
}
# Many seconds on any machine.
LONG = {"max_tokens": 900, "first": 8, "second": 16}
# The first position of the slider.
ALWAYS = 0
TEXT = "Ben has 3 apples. On Monday he finds 5."


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Closed with this module: while Playwright runs, no other event loop can.
    with running_browser() as running:
        yield running


@pytest.fixture
def visiting(browser: Browser, demo_server: RunningServer) -> Visiting:
    """Visits to the demonstration; options are those of Playwright's context."""
    return partial(visit, browser, demo_server.url)


@pytest.fixture
def visited(visiting: Visiting) -> Iterator[Visit]:
    """The form asks for a thought before every token."""
    with visiting() as visited:
        visited.elements("#run:enabled").wait_for()
        visited.set(threshold=ALWAYS)
        yield visited


@pytest.fixture(scope="module")
def locked_server(browser: Browser) -> Iterator[RunningServer]:
    """A server that needs a key and does not show thoughts."""
    with running_server(DEMO, "--api-key", KEY) as running:
        yield running


def answers(server: RunningServer, visited: Visit) -> list[dict[str, Any]]:
    """The API's whole responses to the same requests."""
    found = []
    for body in visited.asked():
        whole = {k: v for k, v in body.items() if k not in ("stream", "stream_options")}
        answer = httpx.post(f"{server.url}/v1/completions", json=whole, timeout=120)
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
    return found


def logprob(percentage: str) -> float:
    """The logarithm of a percentage such as "96.8 %"."""
    return math.log(float(percentage.removesuffix(" %")) / 100)


def background(visited: Visit, selector: str) -> str:
    color: str = visited.elements(selector).first.evaluate(
        "element => getComputedStyle(element).backgroundColor"
    )
    return color


def test_both_budgets_show_what_the_api_returns(visited: Visit, demo_server: RunningServer) -> None:
    visited.run()
    assert [body["thought_budget"] for body in visited.asked()] == [0, 12]
    assert [body.get("thought_threshold") for body in visited.asked()] == [None, 0]
    assert all(body["stream"] for body in visited.asked())
    plain, thoughtful = answers(demo_server, visited)
    assert plain["choices"][0]["text"] != thoughtful["choices"][0]["text"] == " 10 apples."
    for number, answer in enumerate((plain, thoughtful)):
        (choice,) = answer["choices"]
        assert visited.pane(number).locator(".output").text_content() == choice["text"]
        assert visited.tokens(number).count() == answer["usage"]["completion_tokens"]
        numbers = visited.pane(number).locator(".totals dd").all_inner_texts()
        assert numbers[:2] == [
            str(answer["usage"]["completion_tokens"]),
            str(answer["usage"]["thought_tokens"]),
        ]
    gains = [t["mixed_logprob"] - t["base_logprob"] for t in thoughtful["choices"][0]["thoughts"]]
    assert float(numbers[3]) == pytest.approx(sum(gains), abs=0.01)


def test_tokens_have_the_colour_of_their_gain(visited: Visit, demo_server: RunningServer) -> None:
    """In a text in which thoughts help, hurt and have no effect."""
    visited.elements(".modes span >> text=Measure").click()
    visited.set(prompt="Ben has 7 apples. On Monday he finds 5. On Tuesday he sells half.")
    visited.run()
    _, answer = answers(demo_server, visited)
    thoughts = answer["choices"][0]["prompt_thoughts"]
    assert visited.tokens(1).count() == len(thoughts)
    strengths: dict[str, dict[float, float]] = {"helped": {}, "hurt": {}}
    for token, thought in zip(visited.tokens(1).all(), thoughts, strict=True):
        gain = thought["mixed_logprob"] - thought["base_logprob"] if thought else 0
        kind = token.get_attribute("data-gain")
        assert kind == (None if abs(gain) < 0.02 else "helped" if gain > 0 else "hurt")
        if kind:
            style = token.evaluate("element => element.style.getPropertyValue('--strength')")
            strengths[kind][abs(gain)] = float(style.removesuffix("%"))
    for by_gain in strengths.values():
        assert by_gain, "none of these: choose another text"
        assert [by_gain[gain] for gain in sorted(by_gain)] == sorted(by_gain.values())
    colours = {background(visited, f".token{kind}") for kind in ("", *map(attribute, strengths))}
    assert len(colours) == 3
    assert background(visited, ".token") == "rgba(0, 0, 0, 0)"
    assert visited.pane(0).locator("[data-gain]").count() == 0


def test_tokens_that_were_not_thought_about_are_told_apart(
    visiting: Visiting, demo_server: RunningServer
) -> None:
    """With the model's own threshold, which is the slider's position at first."""
    with visiting() as visited:
        visited.elements("#run:enabled").wait_for()
        default = model(demo_server)["default_thought_threshold"]
        assert visited.elements("#threshold").get_attribute("aria-valuetext") == f"{default} nats"
        hint = visited.elements("#threshold-hint").inner_text()
        assert hint == (
            f"The model’s thought gate tells what a thought may save. Default: {default} nats."
        )
        visited.elements(".modes span >> text=Measure").click()
        visited.run()
        _, adaptive = answers(demo_server, visited)
        assert [body.get("thought_threshold") for body in visited.asked()] == [None, default]
        thoughts = adaptive["choices"][0]["prompt_thoughts"]
        kinds = [
            None if thought is None else "there" if thought["token_ids"] else "skipped"
            for thought in thoughts
        ]
        assert {"there", "skipped"} <= set(kinds)
        tokens = visited.tokens(1).all()
        assert [token.get_attribute("data-thought") for token in tokens] == kinds
        lines = {kind: decoration(visited, tokens[kinds.index(kind)]) for kind in set(kinds)}
        assert lines["there"] != lines["skipped"] == "none"
        totals = dict(
            zip(
                visited.pane(1).locator(".totals dt").all_inner_texts(),
                visited.pane(1).locator(".totals dd").all_inner_texts(),
                strict=True,
            )
        )
        passes = adaptive["quiet_star"]["prompt_passes"]
        assert totals["passes"] == f"{passes}, not {13 * (len(tokens) - 1)}"
        for kind in ("there", "skipped"):
            index = kinds.index(kind)
            check_gains(visited, index, thoughts[index])


def check_gains(visited: Visit, index: int, thought: dict[str, Any]) -> None:
    """A token's card shows the expected gain, and the measured one where there was a thought."""
    visited.tokens(1).nth(index).hover()
    card = visited.card()
    assert number(card["expected"]) == pytest.approx(thought["expected_gain"], abs=0.006)
    if thought["token_ids"]:
        gain = thought["mixed_logprob"] - thought["base_logprob"]
        assert number(card["saved"]) == pytest.approx(gain, abs=0.006)
        assert card["thought"] == thought["text"].strip()
    else:
        assert "not expected to save more than the threshold" in card["note"]
        assert not {"saved", "thought", "weight", "gain"} & set(card)


def number(nats: str) -> float:
    """Of "+0.12 nats"."""
    return float(nats.removesuffix(" nats").replace("−", "-").lstrip("±+"))


def decoration(visited: Visit, token: Locator) -> str:
    line: str = token.evaluate("element => getComputedStyle(element).textDecorationLine")
    return line


def model(server: RunningServer) -> dict[str, Any]:
    described: dict[str, Any] = httpx.get(f"{server.url}/v1/models").json()["data"][0]
    quiet_star: dict[str, Any] = described["quiet_star"]
    return quiet_star


def attribute(kind: str) -> str:
    return f"[data-gain={kind}]"


def test_measuring_shows_the_text_itself(visited: Visit, demo_server: RunningServer) -> None:
    visited.elements(".modes span >> text=Measure").click()
    visited.set(prompt=TEXT, second=3)
    visited.run()
    for number, answer in enumerate(answers(demo_server, visited)):
        assert visited.pane(number).locator(".output").text_content() == TEXT
        assert answer["choices"][0]["text"] == TEXT
    cost = [-value for value in answer["choices"][0]["logprobs"]["token_logprobs"] if value]
    loss = visited.pane(1).locator(".totals dd").nth(2).inner_text().split(" → ")[1]
    assert float(loss) == pytest.approx(sum(cost) / len(cost), abs=0.001)


def test_every_thought_can_be_reached_with_the_keyboard(
    visited: Visit, demo_server: RunningServer
) -> None:
    keyboard = visited.page.keyboard
    visited.elements("#prompt").focus()
    keyboard.press("Control+Enter")
    visited.wait_for_end()
    (choice,) = answers(demo_server, visited)[1]["choices"]
    while "token" not in focused(visited, "element => element.className"):
        keyboard.press("Tab")
    assert visited.card()["note"] == "Sampled without a thought."
    assert visited.elements(".token[tabindex='0']").count() == 2
    keyboard.press("Tab")
    while "token" not in focused(visited, "element => element.className"):
        keyboard.press("Tab")  # over the words that explain themselves
    for index, thought in enumerate(choice["thoughts"]):
        card = visited.card()
        assert card["thought"] == thought["text"].strip()
        shown = float(card["weight"].replace("−", "-"))
        assert shown == pytest.approx(thought["mixing_weight"], abs=0.006)
        for part in ("without", "with"):
            exact = thought["base_logprob" if part == "without" else "mixed_logprob"]
            if card[part] == "> 99.9 %":
                assert exact > math.log(0.999)
            else:
                assert logprob(card[part]) == pytest.approx(exact, abs=0.01)
        (likeliest,) = choice["logprobs"]["top_logprobs"][index : index + 1]
        assert card["likeliest"].count("%") == len(likeliest)
        label = focused(visited, "element => element.ariaLabel")
        assert label.startswith("end" if index == 3 else f"“{choice['logprobs']['tokens'][index]}”")
        assert focused(visited, "element => element.matches(':focus-visible')")
        assert focused(visited, "element => getComputedStyle(element).outlineStyle") == "solid"
        keyboard.press("ArrowRight")
    keyboard.press("Home")
    assert visited.card()["name"].endswith("10")
    keyboard.press("Escape")
    visited.elements("#card").wait_for(state="hidden")
    keyboard.press("End")
    assert visited.card()["name"] == "end of the text"
    keyboard.press("Shift+Tab")
    assert "token" not in focused(visited, "element => element.className")
    visited.elements("#card").wait_for(state="hidden")


def test_the_largest_gain_opens_its_card(visited: Visit, demo_server: RunningServer) -> None:
    """What it changed is there without a gesture, with both predictions."""
    visited.run()
    card = visited.card()
    (choice,) = answers(demo_server, visited)[1]["choices"]
    gains = [t["mixed_logprob"] - t["base_logprob"] for t in choice["thoughts"]]
    best = gains.index(max(gains))
    assert card["name"].endswith(choice["logprobs"]["tokens"][best].strip())
    assert card["thought"] == choice["thoughts"][best]["text"].strip()
    assert visited.tokens(1).nth(best).get_attribute("data-shown") == ""

    (asked,) = visited.looked_up()
    assert asked["thought_budget"] == 0
    (plain,) = httpx.post(f"{demo_server.url}/v1/completions", json=asked).json()["choices"]
    place = len(choice["prompt_token_ids"]) + best
    assert asked["prompt"] == [*choice["prompt_token_ids"], *choice["token_ids"]]
    for part, logprobs in (
        ("before", plain["logprobs"]["top_logprobs"][place]),
        ("likeliest", choice["logprobs"]["top_logprobs"][best]),
    ):
        names = sorted(logprobs, key=logprobs.__getitem__, reverse=True)
        shown = visited.elements(f"[data-part={part}] li .name").all_inner_texts()
        assert shown == [name.replace(" ", "␣") for name in names]
        (sampled,) = visited.elements(f"[data-part={part}] li.sampled").all_inner_texts()
        assert sampled.startswith("␣10")
    without = max(
        plain["logprobs"]["top_logprobs"][place].items(), key=lambda candidate: candidate[1]
    )
    assert card["change"].startswith(
        f"Without the thought “{without[0].strip()}” was the likeliest"
    )
    assert f"{math.exp(gains[best]):.1f} times as likely" in card["change"]

    # Away with it, by a click elsewhere.
    visited.elements("h1").click()
    visited.elements("#card").wait_for(state="hidden")


def test_other_thoughts_of_a_token_can_be_sampled(
    visited: Visit, demo_server: RunningServer
) -> None:
    visited.set(second=4, thought_temperature=1.5)
    visited.run()
    first = visited.looked_up()
    visited.elements("[data-part=sample]").click()
    visited.elements("[data-part=others] li").first.wait_for()
    (asked,) = visited.looked_up()[len(first) :]
    assert (asked["thought_budget"], asked["thought_temperature"]) == (4, 1.5)
    # No other token can be sampled after them, so that their gains can be compared.
    assert asked["prompt"] == first[0]["prompt"][: len(asked["prompt"])]
    assert asked["allowed_token_ids"] == [first[0]["prompt"][len(asked["prompt"])]]
    answer = httpx.post(f"{demo_server.url}/v1/completions", json=asked, timeout=60).json()
    thoughts = [choice["thoughts"][0] for choice in answer["choices"]]
    assert len(thoughts) == 8
    gains = {t["text"].strip(): t["mixed_logprob"] - t["base_logprob"] for t in thoughts}
    assert len(gains) > 1
    shown = visited.elements("[data-part=others] .chip").all_inner_texts()
    assert [number(chip) for chip in shown] == pytest.approx(
        sorted(gains.values(), reverse=True), abs=0.006
    )
    assert set(visited.elements("[data-part=others] .thought").all_inner_texts()) == set(gains)
    summary = visited.card()["sampled"]
    assert summary.startswith(f"8 more thoughts, {len(gains)} different; on average ")
    # By the keyboard, of another token.
    visited.tokens(1).last.focus()
    assert visited.elements("[data-part=others] li").count() == 0
    visited.page.keyboard.press("Enter")
    visited.elements("[data-part=others] li").first.wait_for()
    assert visited.card()["name"] == "end of the text"


def test_a_thought_can_be_edited(visited: Visit, demo_server: RunningServer) -> None:
    """The API's prediction after it stands beside the other two."""
    visited.run()
    (choice,) = answers(demo_server, visited)[1]["choices"]
    own = choice["thoughts"][0]
    card, words = visited.elements("#card"), visited.elements("#card textarea")
    visited.elements("[data-part=edit]").click()
    assert focused(visited, "element => element.tagName") == "TEXTAREA"
    assert words.input_value() == own["text"].strip()
    # Neither the pointer nor a new size of the window takes away what is being written.
    visited.tokens(0).first.hover()
    visited.elements("h1").hover()
    visited.page.set_viewport_size({"width": 1000, "height": 700})
    words.fill("Monday 12 Tuesday 12")
    visited.page.keyboard.press("Enter")
    shown = visited.elements("[data-part=edited] li")
    shown.first.wait_for()
    _, asked = visited.looked_up()
    ids = [*choice["prompt_token_ids"], *choice["token_ids"]]
    place = len(choice["prompt_token_ids"])
    assert (asked["prompt"], asked["allowed_token_ids"]) == (ids[:place], [ids[place]])
    # With the space before its first word, which the words do not show.
    assert asked["first_thought"] == " Monday 12 Tuesday 12"
    assert asked["max_tokens"] == 1
    edited = predicted(demo_server, asked)
    assert shown.locator(".name").all_inner_texts() == names_by_logprob(edited)
    for part in ("before", "likeliest"):
        assert visited.elements(f"[data-part={part}] li").count() >= 5
    (thought,) = edited["thoughts"]
    said = visited.elements("#card .prediction").inner_text().replace("\u00a0", " ")
    assert said.startswith("After this thought “10” has ")
    after, without, with_own = map(float, re.findall(r"([\d.]+) %", said))
    for shown_percent, exact in (
        (after, thought["mixed_logprob"]),
        (without, own["base_logprob"]),
        (with_own, own["mixed_logprob"]),
    ):
        assert shown_percent == pytest.approx(100 * math.exp(exact), rel=0.01)
    assert f"Mixing weight {thought['mixing_weight']:.2f}." in said
    check_accessible(visited)

    # Escape leaves the thought as it was, and the card where it is.
    visited.page.keyboard.press("Escape")
    words.wait_for(state="hidden")
    assert card.is_visible()
    assert visited.card()["thought"] == own["text"].strip()
    assert shown.count() == 0


def predicted(server: RunningServer, asked: dict[str, Any]) -> dict[str, Any]:
    """The only choice of the API's answer to a request."""
    answer = httpx.post(f"{server.url}/v1/completions", json=asked, timeout=60)
    assert answer.status_code == 200, answer.text
    choice: dict[str, Any]
    (choice,) = answer.json()["choices"]
    return choice


def names_by_logprob(choice: dict[str, Any]) -> list[str]:
    """The likeliest tokens of a choice's only token, as the card has them."""
    (logprobs,) = choice["logprobs"]["top_logprobs"]
    names = sorted(logprobs, key=logprobs.__getitem__, reverse=True)
    return [name.replace(" ", "␣") for name in names]


def test_a_thought_is_edited_by_the_keyboard_and_refused_in_words(
    visited: Visit, demo_server: RunningServer
) -> None:
    visited.run()
    (choice,) = answers(demo_server, visited)[1]["choices"]
    keyboard, words = visited.page.keyboard, visited.elements("#card textarea")
    prediction = visited.elements("#card .prediction[role=status]")
    visited.tokens(1).nth(1).focus()
    keyboard.press("e")
    assert words.input_value() == choice["thoughts"][1]["text"].strip()
    assert words.get_attribute("aria-label") == f"Thought before {choice['logprobs']['tokens'][1]}"
    # Unchanged it is sent as it was sampled, and nothing changes.
    keyboard.press("Enter")
    prediction.filter(has_text="Mixing weight").wait_for()
    asked = visited.looked_up()[-1]
    assert asked["first_thought"] == choice["thoughts"][1]["token_ids"]
    names = [
        visited.elements(f"[data-part={part}] .name").all_inner_texts()
        for part in ("edited", "likeliest")
    ]
    assert names[0] == names[1]
    # Nothing, and more than the server takes.
    keyboard.press("Control+a")
    keyboard.press("Delete")
    keyboard.press("Enter")
    prediction.filter(has_text="The thought is empty").wait_for()
    assert visited.looked_up()[-1] == asked
    words.fill("Monday 12 " * 16)
    keyboard.press("Enter")
    prediction.filter(has_text="this server allows 1 to 16").wait_for()
    assert visited.elements("[data-part=edited] li").count() == 0
    keyboard.press("Escape")
    words.wait_for(state="hidden")
    assert focused(visited, "element => element.getAttribute('data-shown')") == ""
    keyboard.press("Escape")
    visited.elements("#card").wait_for(state="hidden")
    visited.expect_refusals()


def test_examples_know_their_answers(visited: Visit, demo_server: RunningServer) -> None:
    right = {"Ben’s apples": 10, "Eve’s apples": 20, "Cal’s eggs": 17}
    right |= {"A dial, ten turns": 6, "A dial, nine turns": 7}
    verdicts = visited.elements(".pane-verdict")
    found: set[str] = set()
    for title, answer in right.items():
        visited.elements(f"#examples >> text={title}").click()
        visited.requests.clear()
        visited.run()
        told = verdicts.all_inner_texts()
        for response, verdict in zip(answers(demo_server, visited), told, strict=True):
            numbers = re.findall(r"\d+", response["choices"][0]["text"])
            is_right = numbers[0] == str(answer)
            assert verdict == ("right" if is_right else f"wrong: {answer} is right")
        found |= {verdict.partition(":")[0] for verdict in told}
        assert told[1] == "right"
    assert found == {"right", "wrong"}
    # Nothing is known of another prompt, or of a text that is only measured.
    visited.set(prompt=TEXT)
    visited.run()
    assert verdicts.all_inner_texts() == ["", ""]


def test_words_explain_themselves(visited: Visit) -> None:
    visited.run()
    explained = check_terms(visited, "#card .term:visible")
    # The card covers others.
    visited.page.keyboard.press("Escape")
    visited.elements("#card").wait_for(state="hidden")
    explained |= check_terms(visited, ".term:visible")
    assert explained == {
        *("Thought budget", "Think only where it saves", "gain, nats", "passes"),
        *("expected to save", "saved", "mixing weight"),
    }


def check_terms(visited: Visit, selector: str) -> set[str]:
    """A click on each of the words explains it; Escape closes that, and nothing else."""
    words = visited.elements(selector)
    for word in words.all():
        about = visited.elements(f"#{word.get_attribute('popovertarget')}")
        assert not about.is_visible()
        word.click()
        about.wait_for()
        box = about.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert len(about.inner_text()) > 60
        visited.page.keyboard.press("Escape")
        about.wait_for(state="hidden")
    return set(words.all_inner_texts())


def test_a_request_that_waits_for_others_says_so(
    visited: Visit, demo_server: RunningServer
) -> None:
    """The server's batch is full with the answers of one other request."""
    body = {"prompt": "Ann has", "n": 64, "max_tokens": 900, "ignore_eos": True, "stream": True}
    body |= {"thought_budget": 16, "thought_threshold": 0}
    url = f"{demo_server.url}/v1/completions"
    with httpx.stream("POST", url, json=body, timeout=120) as other:
        lines = other.iter_lines()
        next(lines)
        visited.start()
        for column in (0, 1):
            state = visited.pane(column).locator(".pane-state")
            state.filter(has_text="waiting beside 1 other request").wait_for()
    visited.wait_for_end()
    assert visited.elements(".pane-state").all_inner_texts() == ["done", "done"]
    assert visited.pane(1).locator(".output").text_content() == " 10 apples."


def focused(visited: Visit, script: str) -> Any:
    return visited.page.evaluate(f"({script})(document.activeElement)")


def test_arrow_keys_go_to_the_next_line(visiting: Visiting) -> None:
    with visiting(**PHONE) as visited:
        visited.elements(".modes span >> text=Measure").click()
        visited.set(prompt=TEXT * 2, second=1, threshold=ALWAYS)
        visited.run()
        tops = visited.tokens(1).evaluate_all("all => all.map(e => e.getClientRects()[0].y)")
        visited.tokens(1).nth(3).focus()
        for key in ("ArrowDown", "ArrowUp"):
            visited.page.keyboard.press(key)
        at = [selected(visited, "ArrowUp"), selected(visited, "ArrowDown")]
        assert tops[at[0]] == tops[0] < tops[at[1]]


def selected(visited: Visit, key: str) -> int:
    """The number of the selected token after a key."""
    visited.page.keyboard.press(key)
    number: int = visited.tokens(1).evaluate_all(
        "all => all.findIndex(e => e.ariaSelected === 'true')"
    )
    return number


def test_the_card_of_a_token_stays_while_the_pointer_is_on_it(visited: Visit) -> None:
    visited.run()
    visited.tokens(1).first.hover()
    assert visited.card()["thought"].startswith("Monday 12")
    visited.elements("#card .thought").hover()
    assert visited.card()["thought"].startswith("Monday 12")
    visited.elements("h1").hover()
    visited.elements("#card").wait_for(state="hidden")


def test_both_budgets_stream_at_once_until_they_are_stopped(
    visited: Visit, demo_server: RunningServer
) -> None:
    visited.never_end()
    visited.set(**LONG)
    visited.start()
    # Both have begun, neither has ended.
    visited.page.wait_for_function(
        "() => [...document.querySelectorAll('.pane[aria-busy=true]')]"
        ".filter(pane => pane.querySelectorAll('.token').length > 2).length === 2"
    )
    assert running(demo_server) == 2
    visited.elements("#stop").click()
    visited.wait_for_end()
    assert visited.elements(".pane-state").all_inner_texts() == ["stopped", "stopped"]
    assert visited.elements("#status").inner_text() == "Stopped."
    while running(demo_server):
        pass  # at most as long as the test may take
    said = visited.elements(".output").all_inner_texts()
    assert all(said)
    # And again: nothing is left of the first run.
    visited.page.unroute("**/v1/completions")
    visited.set(max_tokens=24, second=12)
    visited.run()
    assert visited.pane(1).locator(".output").text_content() == " 10 apples."


def running(server: RunningServer) -> float:
    samples = scrape(server.url).samples
    return sum(
        value
        for state in ("running", "waiting")
        for value in samples[f"vllm:num_requests_{state}"].values()
    )


def test_the_servers_error_message_is_shown(visited: Visit, demo_server: RunningServer) -> None:
    visited.set(prompt="dial " * 1500, first=2, second=2)
    visited.run()
    body = visited.asked()[0]
    refusal = httpx.post(f"{demo_server.url}/v1/completions", json=body)
    assert refusal.status_code == 400
    message = refusal.json()["error"]["message"]
    assert visited.elements(".trouble").all_inner_texts() == [message, message]
    assert visited.elements("#status").inner_text() == "Failed."
    visited.expect_refusals()


def test_without_a_prompt_no_request_is_sent(visited: Visit) -> None:
    visited.set(prompt="")
    visited.start()
    assert "write a prompt" in visited.elements("#prompt-error").inner_text()
    assert focused(visited, "element => element.id") == "prompt"
    assert visited.elements("#prompt").get_attribute("aria-invalid") == "true"
    assert visited.asked() == []
    visited.set(prompt="Ann has")
    assert visited.elements("#prompt-error").inner_text() == ""


def test_a_lost_connection_is_reported(browser: Browser, demo_server: RunningServer) -> None:
    cable = Cable(demo_server.url)
    with visit(browser, cable.url) as visited:
        visited.elements("#run:enabled").wait_for()
        visited.never_end()
        visited.set(**LONG)
        visited.start()
        visited.tokens(1).nth(1).wait_for()
        cable.cut()
        visited.wait_for_end()
        message = visited.pane(1).locator(".trouble").inner_text()
        assert re.match(r"The connection to the server was lost after \d+ tokens?\.", message)
        visited.run()
        for message in visited.elements(".trouble").all_inner_texts():
            assert "lost before the first token" in message
        visited.expect_refusals()


def test_a_server_that_does_not_answer_yet_can_be_retried(visiting: Visiting) -> None:
    with visiting() as visited:
        visited.elements("#run:enabled").wait_for()
        # The network is made to fail here, between the page and a server that is there.
        visited.page.route("**/v1/models", lambda route: route.abort())
        visited.page.reload()
        visited.elements("text=The server does not answer.").wait_for()
        assert visited.elements("#run").is_disabled()
        visited.page.unroute("**/v1/models")
        visited.elements("#again").click()
        visited.elements("#run:enabled").wait_for()
        visited.elements("#problem").wait_for(state="hidden")
        visited.expect_refusals()


def test_a_key_is_requested_and_not_kept(browser: Browser, locked_server: RunningServer) -> None:
    """On a server that does not show its thoughts either."""
    with visit(browser, locked_server.url) as visited:
        visited.elements("text=This server needs an API key.").wait_for()
        assert focused(visited, "element => element.id") == "api-key"
        visited.elements("#api-key").fill("another")
        visited.page.keyboard.press("Enter")
        visited.elements("text=The server does not accept this key.").wait_for()
        visited.elements("#api-key").fill(KEY)
        visited.page.keyboard.press("Enter")
        visited.elements("#run:enabled").wait_for()
        assert not visited.elements("#key").is_visible()
        assert "--allow-return-thoughts" in visited.elements("#hidden-thoughts").inner_text()
        assert not visited.elements("#legend").is_visible()
        visited.run()
        assert visited.pane(1).locator(".output").text_content() == " 10 apples."
        assert visited.elements("[data-gain]:visible").count() == 0
        assert not any("return_thoughts" in body for body in visited.asked())
        visited.tokens(1).first.focus()
        card = visited.card()
        assert logprob(card["alone"]) < 0
        assert "not shown by this server" in card["note"]
        assert KEY not in visited.page.evaluate(
            "() => JSON.stringify([location.href, document.cookie, localStorage, sessionStorage])"
        )
        visited.page.reload()
        visited.elements("text=This server needs an API key.").wait_for()
        visited.expect_refusals()


def test_a_server_without_thinking(browser: Browser, quick_server: RunningServer) -> None:
    with visit(browser, quick_server.url) as visited:
        visited.elements("#run:enabled").wait_for()
        assert "does not think" in visited.elements("#no-thoughts").inner_text()
        assert visited.elements("#second").is_disabled()
        visited.run()
        assert visited.elements(".pane").count() == 1
        assert visited.tokens(0).count() > 1
        assert [body["thought_budget"] for body in visited.asked()] == [0]
        assert "return_thoughts" not in visited.asked()[0]


def test_a_link_restores_prompt_and_settings(visited: Visit) -> None:
    settings = {
        "prompt": "Ünicode & more\n+ 100 %",
        "first": 3,
        "second": 7,
        "temperature": 0.5,
        "thought_temperature": 1.2,
        "max_tokens": 9,
        "seed": 42,
        "threshold": 4,
    }
    visited.set(**settings)
    link = visited.elements("#link").evaluate("link => link.href")
    visited.page.goto("about:blank")
    visited.page.goto(link)
    visited.elements("#run:enabled").wait_for()
    for name, value in settings.items():
        assert visited.elements(f"[name={name}]").input_value() == str(value)
    # The browser does not send it.
    assert not any("nicode" in request.url.partition("#")[0] for request in visited.requests)
    visited.requests = [r for r in visited.requests if not r.url.startswith("about:")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone(visiting: Visiting, scheme: str) -> None:
    with visiting(**PHONE, color_scheme=scheme) as visited:
        visited.elements("#run:enabled").wait_for()
        visited.set(threshold=ALWAYS)
        visited.run()
        # The card of the largest gain is there; the prompt is in the form only.
        assert visited.card()["thought"].startswith("Monday 12")
        for given in visited.elements(".given").all():
            assert given.inner_text().endswith("On Sunday Ben has")
            assert len(given.inner_text()) < 40
        # The window has gone to where the answers are.
        top = visited.pane(0).bounding_box()
        assert top is not None
        assert 0 < top["y"] < PHONE["viewport"]["height"]
        visited.tokens(1).first.tap()
        assert visited.card()["thought"].startswith("Monday 12")
        card = visited.elements("#card").bounding_box()
        token = visited.tokens(1).first.bounding_box()
        assert card is not None
        assert token is not None
        assert (card["x"], card["width"]) == (0, 360)
        assert 0 <= token["y"] < token["y"] + token["height"] <= card["y"]
        assert visited.page.evaluate("() => document.documentElement.scrollWidth") == 360
        check_accessible(visited)
        visited.elements("[data-part=edit]").tap()
        visited.elements("#card textarea").fill("Monday 12")
        visited.elements("#card [type=submit]").tap()
        visited.elements("[data-part=edited] li").first.wait_for()
        assert visited.page.evaluate("() => document.documentElement.scrollWidth") == 360
        check_accessible(visited)
        visited.elements("h2").first.tap()
        visited.elements("#card").wait_for(state="hidden")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(visiting: Visiting, scheme: str) -> None:
    with visiting(color_scheme=scheme) as visited:
        visited.elements("#run:enabled").wait_for()
        check_accessible(visited)
        visited.run()
        visited.tokens(1).first.focus()
        check_accessible(visited)
        paper = background(visited, "body")
        is_dark = max(map(int, re.findall(r"\d+", paper))) < 64
        assert is_dark is (scheme == "dark")
        # Of the strongest colours, too, which the checker does not always work out.
        for mark in (visited.elements("#scale li").first, visited.elements("#scale li").last):
            assert mark.evaluate(CONTRAST) >= 4.5


# Of a text with its background, as the browser would paint them.
CONTRAST = """element => {
    const canvas = new OffscreenCanvas(1, 1)
        .getContext('2d', {willReadFrequently: true});
    const luminance = (...colours) => {
        for (const colour of colours) {
            canvas.fillStyle = colour;
            canvas.fillRect(0, 0, 1, 1);
        }
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(value => {
            value /= 255;
            return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const style = getComputedStyle(element);
    const paper = getComputedStyle(document.body).backgroundColor;
    const values = [luminance(style.color), luminance(paper, style.backgroundColor)];
    return (Math.max(...values) + 0.05) / (Math.min(...values) + 0.05);
}"""


def check_accessible(visited: Visit) -> None:
    violations = Axe().run(visited.page).response["violations"]
    assert [(found["id"], found["nodes"]) for found in violations] == []


def test_reduced_motion_is_respected(visiting: Visiting) -> None:
    with visiting(reduced_motion="reduce") as visited:
        visited.elements("#run:enabled").wait_for()
        visited.never_end()
        visited.set(**LONG)
        visited.start()
        visited.tokens(0).first.wait_for()
        assert visited.page.evaluate("() => document.getAnimations().length") == 0
        visited.elements("#stop").click()
        visited.wait_for_end()


def test_answers_are_announced_to_screen_readers(visited: Visit) -> None:
    visited.run()
    assert visited.elements("#status[role=status]").inner_text() == "Done."
    spoken = visited.elements("#spoken[role=status]").text_content() or ""
    assert spoken.splitlines()[1] == "Budget 12:  10 apples."
