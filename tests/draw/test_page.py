"""The page as a person meets it, in a headless Chromium: typing, dragging, pointing, pressing keys, looking."""

from __future__ import annotations

import random

import pytest

import padless
from padless.draw import draw_html
from padless.draw.colours import FEW

from .browser import Reader, chromium
from .kit import EIGHT, order_of, steps_of

pytestmark = pytest.mark.slow

STEPS = steps_of(EIGHT)
ORDER = order_of(EIGHT)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "batch.html"
    path.write_text(draw_html(EIGHT), encoding="utf-8")
    return path


@pytest.fixture
def reader(driver, page):
    reader = Reader(driver).open(page)
    reader.requests(), reader.complaints()
    yield reader
    assert reader.complaints() == []


def offset(step: int) -> int:
    return sum(map(len, STEPS[:step]))


def cell(step: int, slot: int, *, corner: bool = False) -> tuple[float, float]:
    """Where a cell of the grid of eight is, by fractions; its corner has no label on it."""
    within = 0.2 if corner else 0.5
    return (step + within) / 8, (slot + within) / 8


# ---- numbers ------------------------------------------------------------------------------------------


def assert_numbers(reader: Reader, lengths: list[int]) -> None:
    numbers = padless.waste(lengths)
    product = numbers.product()
    assert reader.text("saving") == (
        f"{numbers.rows:,} of {numbers.cells:,} cells are real: "
        f"{product.multiplications.saved:,} of {numbers.cells:,} multiplications saved"
    )
    for short, count in (("mul", product.multiplications), ("add", product.additions)):
        shown = [reader.number(f"{short}-{kind}") for kind in ("padded", "packed", "saved")]
        assert shown == [count.padded, count.needed, count.saved]
    shown = [reader.number(name) for name in ("sequences", "steps", "rows", "cells")]
    assert shown == [len(lengths), max(lengths), numbers.rows, numbers.cells]
    assert reader.text("fill") == f"{100 * numbers.fill:.1f} %"


def test_on_opening_it_shows_the_lengths_that_it_was_made_of(reader):
    assert reader.find("lengths").get_attribute("value") == "4 6 8 5 4 3 7 8"
    assert_numbers(reader, EIGHT)


@pytest.mark.parametrize("seed", range(6))
def test_typed_lengths_change_every_number_as_waste_counts_it(reader, seed):
    rng = random.Random(seed)
    lengths = [rng.randrange(10 ** rng.randrange(1, 6)) for _ in range(rng.randrange(1, 40))] + [1]
    reader.type(rng.choice([" ", ", ", "; ", "\n"]).join(map(str, lengths)))
    assert_numbers(reader, lengths)


def test_lengths_may_be_pasted_as_python_writes_them(reader):
    reader.type("[3, 0, 2.0]")
    assert_numbers(reader, [3, 0, 2])


def test_the_table_has_every_batch_size_with_its_rows(reader):
    reader.driver.execute_script("document.querySelector('details').open = true")
    lines = [
        [part.text for part in line.find_elements("tag name", "td")]
        for line in reader.find("runs").find_elements("tag name", "tr")
    ]
    shown = []
    for steps, size, rows in lines:
        first, _, last = steps.partition(" to ")
        begin, _, end = rows.partition(" to ")
        span = range(int(first), int(last or first) + 1)
        assert int(begin) == offset(span[0]) and int(end or begin) == offset(span[-1] + 1) - 1
        shown += [(step, int(size)) for step in span]
    assert shown == [(step, len(running)) for step, running in enumerate(STEPS)]


@pytest.mark.parametrize("name", ["few", "equal", "outlier", "sentences", "documents"])
def test_examples_are_lengths_like_any_others(reader, name):
    reader.driver.find_element("css selector", f"[data-example={name}]").click()
    reader.settle()
    lengths = [int(word) for word in reader.find("lengths").get_attribute("value").split()]
    assert_numbers(reader, lengths)


# ---- what is wrong ------------------------------------------------------------------------------------

MISTAKES = [
    ("4 6 x", "lengths[2] = x is not a whole number."),
    ("4 6.5", "lengths[1] = 6.5 is not a whole number."),
    ("4 -3", "lengths[1] = -3 is negative."),
    ("0 0", "Every length is 0, so there is no row to draw."),
    (" ", "Type at least one length, such as 4 6 8."),
    ("1000000001", "lengths[0] = 1000000001 is more steps than this page draws (1,000,000,000)."),
    ("9" * 60, f"lengths[0] = {'9' * 24}… is more steps than this page draws (1,000,000,000)."),
    ("<img src=x>", "lengths[0] = <img is not a whole number."),
]


@pytest.mark.parametrize(("typed", "message"), MISTAKES, ids=[typed[:12] for typed, _ in MISTAKES])
def test_a_mistake_is_reported_and_the_last_good_picture_stays(reader, typed, message):
    before = reader.colour("grid", *cell(0, 0, corner=True))
    reader.paste(typed)
    reader.wait(lambda: reader.text("problem"))
    assert reader.text("problem") == f"{message} The picture keeps the last good lengths."
    assert reader.find("lengths").get_attribute("aria-invalid") == "true"
    assert reader.find("problem").get_attribute("role") == "alert"
    assert reader.colour("grid", *cell(0, 0, corner=True)) == before
    reader.type("3 2")
    assert reader.text("problem") == ""
    assert reader.find("lengths").get_attribute("aria-invalid") is None
    assert_numbers(reader, [3, 2])


def test_more_sequences_than_it_draws_are_refused(reader):
    reader.paste("1 " * 10_001)
    reader.wait(lambda: reader.text("problem"))
    assert reader.text("problem").startswith("10,001 sequences are more than this page draws (10,000).")
    assert_numbers(reader, EIGHT)


# ---- time ---------------------------------------------------------------------------------------------


def assert_step(reader: Reader, step: int) -> None:
    size, packed = len(STEPS[step]), offset(step + 1)
    assert reader.find("step").get_attribute("value") == f"{step}"
    assert reader.text("status") == f"{step}: {size} of 8 still run"
    shown = [reader.number(name) for name in ("padded-now", "packed-now", "padded-sum", "packed-sum")]
    assert shown == [8, size, 8 * (step + 1), packed]
    widths = [
        float(reader.find(name).get_attribute("style").split("width:")[1].strip(" %;"))
        for name in ("padded-real", "padded-waste", "packed-real")
    ]
    assert widths == pytest.approx(
        [100 * packed / 64, 100 * (8 * (step + 1) - packed) / 64, 100 * packed / 64], abs=0.01
    )


def test_the_slider_goes_through_the_steps_by_keys(reader):
    from selenium.webdriver.common.keys import Keys

    slider = reader.find("step")
    slider.send_keys(Keys.HOME)
    for step in range(8):
        reader.settle()
        assert_step(reader, step)
        assert slider.get_attribute("aria-valuetext") == f"step {step} of 0 to 7"
        slider.send_keys(Keys.ARROW_RIGHT)
    reader.settle()
    assert_step(reader, 7)


def test_the_slider_is_dragged(reader):
    from selenium.webdriver import ActionChains

    slider = reader.find("step")
    width = slider.rect["width"]
    ActionChains(reader.driver).move_to_element_with_offset(
        slider, round(width / 2) - 8, 0
    ).click_and_hold().move_by_offset(-round(width * 4 / 7), 0).release().perform()
    reader.settle()
    assert_step(reader, 3)


def test_arrow_keys_and_space_work_anywhere_on_the_page(reader):
    from selenium.webdriver.common.keys import Keys

    reader.press(Keys.HOME)
    assert_step(reader, 0)
    reader.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert_step(reader, 1)
    reader.press(" ")
    assert reader.find("play").text == "Pause"
    reader.press(" ")
    assert reader.find("play").text == "Play"
    reader.press(Keys.END)
    assert_step(reader, 7)


def test_keys_in_the_box_of_lengths_stay_in_it(reader):
    from selenium.webdriver.common.keys import Keys

    reader.find("lengths").send_keys(Keys.HOME, Keys.ARROW_RIGHT, " ")
    reader.settle()
    assert_step(reader, 7)
    assert reader.find("play").text == "Play"


@pytest.mark.parametrize("calm", [False, True], ids=["motion", "reduced motion"])
def test_play_goes_from_the_first_step_to_the_last(driver, page, calm):
    reader = Reader(driver).open(page, calm=calm)
    reader.type("2 1 3")
    reader.driver.execute_script("""
        const shown = document.getElementById("status");
        window.seen = [];
        new MutationObserver(() => {
            if (window.seen.at(-1) !== shown.textContent) window.seen.push(shown.textContent);
        }).observe(shown, { childList: true });
    """)
    reader.find("play").click()
    reader.wait(lambda: reader.find("play").text == "Play")
    assert reader.driver.execute_script("return window.seen") == [
        "0: 3 of 3 still run",
        "1: 2 of 3 still run",
        "2: 1 of 3 still run",
    ]
    assert float(reader.style("padded-real", "transitionDuration").rstrip("s")) == (0 if calm else 0.2)
    assert reader.complaints() == []


def test_play_can_be_stopped_and_says_nothing_to_a_screen_reader_meanwhile(reader):
    reader.find("play").click()
    assert reader.find("status").get_attribute("aria-live") == "off"
    reader.wait(lambda: reader.text("status").startswith("1:"))
    reader.find("play").click()
    assert reader.find("status").get_attribute("aria-live") == "polite"
    stopped = reader.text("status")
    reader.settle()
    assert reader.text("status") == stopped and reader.find("play").text == "Play"


def test_a_step_that_a_shorter_batch_does_not_have_becomes_its_last(reader):
    reader.find("step").send_keys("\ue013")  # arrow up: a step on from the last is the last
    reader.type("3 1")
    assert reader.text("status") == "2: 1 of 2 still run"


# ---- places -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "slot"), [(0, 0), (0, 7), (3, 6), (4, 2), (7, 1)])
def test_a_cell_tells_its_place_in_memory(reader, step, slot):
    reader.point("grid", *cell(step, slot))
    row = offset(step) + slot
    assert reader.text("found").startswith(f"Sequence {ORDER[slot]}, step {step}: row {row} in memory.")


@pytest.mark.parametrize(("step", "slot"), [(3, 7), (7, 2), (7, 7)])
def test_a_cell_of_padding_is_nowhere_in_memory(reader, step, slot):
    reader.point("grid", *cell(step, slot))
    assert reader.text("found").startswith(f"Sequence {ORDER[slot]}, step {step}: padding, ")


def test_every_row_in_memory_tells_its_cell(reader):
    across = 16
    lines = 64 // across
    rows = [(step, index) for step, running in enumerate(STEPS) for index in running]
    for row in range(0, 64, 3):
        line, column = divmod(row, across)
        reader.point("memory", (column + 0.5) / across, (line + 0.2) / lines)
        if row < len(rows):
            step, index = rows[row]
            assert reader.text("found").startswith(f"Sequence {index}, step {step}: row {row} in memory."), (
                row
            )
        else:
            assert reader.text("found").startswith("Point at a cell"), row


def test_a_click_goes_to_the_step_of_the_cell(reader):
    reader.point("grid", *cell(2, 5), click=True)
    assert_step(reader, 2)
    reader.point("memory", 15.5 / 16, 1.2 / 4, click=True)  # row 31: the first of step 4
    assert_step(reader, 4)


def test_the_grid_is_read_by_keyboard(reader):
    from selenium.webdriver.common.keys import Keys

    reader.find("step").send_keys(Keys.HOME, Keys.TAB)
    assert reader.driver.switch_to.active_element.get_attribute("id") == "grid"
    assert reader.style("grid", "outlineStyle") == "solid" and reader.style("grid", "outlineWidth") == "3px"
    reader.press(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert reader.text("found").startswith(f"Sequence {ORDER[2]}, step 1: row 10 in memory.")
    reader.press(Keys.END)
    assert reader.text("found").startswith(f"Sequence {ORDER[2]}, step 7: padding")
    reader.press(Keys.ARROW_LEFT, Keys.ENTER)
    assert_step(reader, 6)
    reader.press(Keys.ESCAPE)
    assert reader.text("found").startswith("Point at a cell")


def test_the_memory_is_read_by_keyboard(reader):
    from selenium.webdriver.common.keys import Keys

    reader.find("step").send_keys(Keys.HOME, Keys.TAB, Keys.TAB)
    assert reader.driver.switch_to.active_element.get_attribute("id") == "memory"
    rows = [(step, index) for step, running in enumerate(STEPS) for index in running]
    reader.press(Keys.ARROW_RIGHT)
    assert reader.text("found").startswith(f"Sequence {rows[1][1]}, step {rows[1][0]}: row 1 in memory.")
    reader.press(Keys.ARROW_DOWN)
    assert reader.text("found").startswith(f"Sequence {rows[17][1]}, step {rows[17][0]}: row 17 in memory.")
    reader.press(Keys.END)
    assert reader.text("found").startswith(f"Sequence {rows[44][1]}, step {rows[44][0]}: row 44 in memory.")
    reader.press(Keys.HOME, Keys.ARROW_LEFT)
    assert ": row 0 in memory." in reader.text("found")


def test_what_changes_is_reported_to_screen_readers(reader):
    for name in ("saving", "found"):
        assert reader.find(name).get_attribute("role") == "status"
    for name in ("grid", "memory"):
        field = reader.find(name)
        assert field.get_attribute("aria-label") and field.get_attribute("aria-describedby") == "keys found"
    assert reader.find("canvas").get_attribute("aria-hidden") == "true"


# ---- what is seen -------------------------------------------------------------------------------------


def test_each_cell_has_its_sequence_s_colour_and_padding_has_none(reader):
    for slot, index in enumerate(ORDER):
        for step in range(0, 8, 3):
            seen = reader.colour("grid", *cell(step, slot, corner=True))
            if step >= EIGHT[index]:
                assert seen not in FEW
            elif index < 7:
                assert seen == FEW[index]


def test_memory_shows_the_rows_in_packed_order(reader):
    rows = [index for running in STEPS for index in running]
    for row, index in enumerate(rows):
        line, column = divmod(row, 16)
        seen = reader.colour("memory", (column + 0.25) / 16, (line + 0.05) / 4)
        assert seen == (FEW[index] if index < 7 else "#23272f"), row


def test_steps_that_are_not_computed_yet_are_pale(reader):
    from selenium.webdriver.common.keys import Keys

    full = reader.colour("grid", *cell(5, 0, corner=True))
    reader.find("step").send_keys(Keys.HOME)
    reader.settle()
    assert reader.colour("grid", *cell(5, 0, corner=True)) != full
    assert reader.colour("grid", *cell(0, 0, corner=True)) == full


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_follows_the_system_s_theme_and_the_button_turns_it(driver, page, dark):
    grounds = {False: "rgb(251, 250, 246)", True: "rgb(19, 22, 27)"}
    reader = Reader(driver).open(page, dark=dark)
    assert reader.style("body", "backgroundColor") == grounds[dark]
    last = reader.colour("grid", *cell(0, 1, corner=True))  # sequence 7: dark on light, light on dark
    reader.find("theme").click()
    reader.settle()
    assert reader.style("body", "backgroundColor") == grounds[not dark]
    assert reader.find("theme").get_attribute("aria-pressed") == str(not dark).lower()
    assert {last, reader.colour("grid", *cell(0, 1, corner=True))} == {"#23272f", "#f2f2f2"}


@pytest.mark.parametrize("width", [320, 360, 768, 1400])
@pytest.mark.parametrize("lengths", [[1], EIGHT, [3, 30, *[2] * 8], [9_000] * 500, [10**9] * 5_000], ids=len)
def test_nothing_is_cut_off_at_any_width(driver, page, width, lengths):
    reader = Reader(driver).open(page, width=width)
    reader.paste(" ".join(map(str, lengths)))
    reader.driver.execute_script("document.querySelector('details').open = true")
    assert reader.driver.execute_script("return document.documentElement.scrollWidth") <= width
    figure = reader.find("figure").rect
    for field in (reader.find("grid").rect, reader.find("memory").rect):
        assert field["x"] >= figure["x"] and field["x"] + field["width"] <= figure["x"] + figure["width"] + 1
        assert (
            field["y"] >= figure["y"] and field["y"] + field["height"] <= figure["y"] + figure["height"] + 1
        )


def test_what_is_scaled_says_so(reader):
    assert reader.text("scaled") == ""
    reader.driver.find_element("css selector", "[data-example=documents]").click()
    reader.settle()
    shown = reader.text("scaled")
    assert (
        shown.startswith("Scaled: one line is 3 sequences") and "memory is on the scale of all cells" in shown
    )


def test_ten_thousand_sequences_of_up_to_a_billion_steps_are_shown_and_found(driver, tmp_path):
    lengths = [1 + i * 100_000 for i in range(9_999)] + [10**9]
    path = tmp_path / "large.html"
    path.write_text(draw_html(lengths), encoding="utf-8")
    reader = Reader(driver).open(path)
    assert_numbers(reader, lengths)
    reader.point("grid", 0.0005, 0.0005)
    assert reader.text("found").startswith("Sequence 9,999, step ")
    reader.point("memory", 0.0001, 0.5)
    assert "in memory" in reader.text("found")
    assert reader.colour("grid", 0.001, 0.99) != reader.colour("grid", 0.99, 0.9)
    reader.find("play").click()
    reader.wait(lambda: not reader.text("status").startswith("999,999,999:"))
    reader.find("play").click()
    assert reader.complaints() == []


# ---- alone --------------------------------------------------------------------------------------------


def test_it_asks_no_one_for_anything(driver, page):
    from selenium.webdriver.common.keys import Keys

    reader = Reader(driver)
    reader.driver.get_log("performance")
    reader.open(page)
    reader.type("9 8 7")
    reader.find("theme").click()
    reader.press(Keys.TAB)
    assert reader.requests() <= {page.as_uri(), "data:,"}
    assert reader.complaints() == []


def test_its_policy_stops_every_other_script_style_and_request(reader):
    result = reader.driver.execute_script("""
        const results = {};
        window.ran = false;
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.body.append(script);
        results.ran = window.ran;
        return results;
    """)
    assert result == {"ran": False}
    blocked = reader.driver.execute_async_script("""
        const done = arguments[0];
        fetch("data:,x").then(() => done(false), () => done(true));
    """)
    assert blocked is True
    assert all("Content Security Policy" in complaint for complaint in reader.complaints())


def test_a_file_s_name_is_shown_as_text(driver, tmp_path):
    name = "</label><script>window.ran = true</script>.txt"
    path = tmp_path / "named.html"
    path.write_text(draw_html(EIGHT, name=name), encoding="utf-8")
    reader = Reader(driver).open(path)
    assert reader.text("lengths-label") == f"Lengths of {name}"
    assert reader.driver.execute_script("return window.ran === undefined")
