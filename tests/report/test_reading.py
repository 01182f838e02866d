"""Reading lengths: every format, cut anywhere, and one line for whatever is wrong with a file."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from padless.errors import LengthsError, PadlessError, UsageError
from padless.report.reading import Collected, read_lengths, source
from padless.report.reading.txt import read_txt

LENGTHS = [4, 6, 8, 5, 4, 3, 7, 8]
TEXTS = ["a line of four", "two words", "", "one", "  blanks   around  "]
WORDS = [4, 2, 0, 1, 2]


@pytest.fixture
def write(tmp_path):
    """Writes text, bytes or a Parquet table to a file of this name, and gives its path."""

    def write(name: str, content: object) -> str:
        path = tmp_path / name
        if isinstance(content, (dict, pyarrow.Table)):
            pyarrow.parquet.write_table(
                content if isinstance(content, pyarrow.Table) else pyarrow.table(content),
                path,
                row_group_size=3,
            )
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(str(content), encoding="utf-8", newline="")
        return str(path)

    return write


def lines(values: object) -> str:
    return "".join(f"{value}\n" for value in values)  # type: ignore[attr-defined]


def table(**columns: list[object]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


# ---- what is read -------------------------------------------------------------------------------------

READ = [
    ("lengths.txt", lines(LENGTHS), {}, "lengths", LENGTHS),
    ("lengths", "4\r\n6\r\n 8\t\n+5", {}, "lengths", [4, 6, 8, 5]),
    ("lengths.txt", "\ufeff4\n6\n\n \n", {}, "lengths", [4, 6]),
    ("words.txt", lines(TEXTS), {}, "words", WORDS),
    ("words.txt", "\n\na b", {}, "words", [0, 0, 2]),
    ("words.txt", "no-break\u00a0space ideographic\u3000space\n\x0b\n", {}, "words", [4, 0]),
    ("words.txt", "1984\nwas a year\n", {"words": True}, "words", [1, 3]),
    ("words.txt", "inf 5\nnan\n4.5\n", {}, "words", [2, 1, 1]),
    ("lengths.log", "12 34\n5 6 7\n", {}, "words", [2, 3]),
    ("lengths.csv", "4\n6\n", {}, "lengths", [4, 6]),
    ("floats.csv", "4.0\n6.0\n", {}, "lengths", [4, 6]),
    ("lengths.csv", "\nn\n4\n\n6.0\n", {}, "lengths", [4, 6]),
    ("table.csv", table(id=[1, 2], n=[4, 6]), {"column": "n"}, "lengths", [4, 6]),
    ("table.csv", table(id=[*range(5)], text=TEXTS), {"column": "text"}, "words", WORDS),
    ("table.csv", table(text=["a, b\nc", 'say "d e"']), {}, "words", [3, 3]),
    ("table.csv", table(text=["in 1984", "1984"]), {"words": True}, "words", [2, 1]),
    ("table.tsv", "id\ttext\n1\ta, b c\n", {"column": "text"}, "words", [3]),
    ("table.dat", table(id=[1, 2], n=[4, 6]), {"column": "n"}, "lengths", [4, 6]),
    ("lengths.jsonl", "4\n6.0\n\n 8 \n", {}, "lengths", [4, 6, 8]),
    ("texts.jsonl", lines(map(json.dumps, TEXTS)), {}, "words", WORDS),
    ("lists.jsonl", '[1, 2]\n[]\n[[1, 2], "x", {}]\n', {}, "items", [2, 0, 3]),
    ("objects.ndjson", '{"text": "a b", "n": 2}\n{"n": 1, "text": ""}\n', {"column": "text"}, "words", [2, 0]),
    ("objects.jsonl", '{"tokens": [1, 2, 3]}\n{"tokens": []}\n', {}, "items", [3, 0]),
    ("objects.dat", '{"tokens": [1, 2, 3]}\n', {}, "items", [3]),
    ("lengths.parquet", {"n": LENGTHS}, {}, "lengths", LENGTHS),
    ("table.parquet", {"id": ["a"] * 5, "text": TEXTS}, {"column": "text"}, "words", WORDS),
    ("lists.pq", {"x": [[1.0, 2.0], [], [3.0]]}, {}, "items", [2, 0, 1]),
    ("floats.parquet", {"n": [4.0, 6.0]}, {}, "lengths", [4, 6]),
    ("dictionary.parquet", {"t": pyarrow.array(["a b", "c", "a b"]).dictionary_encode()}, {}, "words", [2, 1, 2]),
    ("fixed.parquet", {"x": pyarrow.array([[1, 2], [3, 4]], pyarrow.list_(pyarrow.int8(), 2))}, {}, "items", [2, 2]),
    ("dots.parquet", {"a": [[1, 1, 1], [2, 2, 2]], "a.list": [[7], [8]]}, {"column": "a.list"}, "items", [1, 1]),
    ("dots.parquet", {"a": [[1, 1, 1]], "a.list.element": [5]}, {"column": "a.list.element"}, "lengths", [5]),
    ("dots.parquet", {"a": [{"b": 1}, {"b": 2}], "a.b": [7, 8]}, {"column": "a.b"}, "lengths", [7, 8]),
    ("dots.parquet", {"a": [{"b": 1}, {"b": 2}], "a.b": ["x y", "z"]}, {"column": "a.b"}, "words", [2, 1]),
    ("dots.parquet", {"a.b": [7, 8], "a": [{"b": 1}, {"b": 2}]}, {"column": "a.b"}, "lengths", [7, 8]),
    ("unsigned.parquet", {"n": pyarrow.array([4, 6], pyarrow.uint8())}, {}, "lengths", [4, 6]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "options", "unit", "expected"), READ, ids=[f"{i}-{r[0]}" for i, r in enumerate(READ)]
)
def test_a_file_is_read_as_what_it_is(write, name, content, options, unit, expected):
    found = read_lengths(write(name, content), **options)
    assert (found.values.tolist(), found.unit) == (expected, unit)
    assert found.values.itemsize == 4


@pytest.mark.parametrize("format", ["txt", "csv", "jsonl"])
def test_the_format_can_be_forced(write, format):
    assert read_lengths(write("lengths.parquet", "4\n6\n"), format=format).values.tolist() == [4, 6]


@pytest.mark.parametrize("name", ["texts.txt.gz", "texts.gz", "texts.txt"])
def test_what_is_packed_by_gzip_is_unpacked_whatever_its_name(write, name):
    found = read_lengths(write(name, gzip.compress(lines(TEXTS).encode())))
    assert found.values.tolist() == WORDS


def test_a_column_s_name_is_kept_and_a_lone_integer_in_the_first_row_is_no_name(write):
    assert read_lengths(write("a.csv", "n\n4\n")).column == "n"
    assert read_lengths(write("b.csv", "4\n")).column is None
    assert read_lengths(write("c.jsonl", '{"n": 4}\n')).column == "n"
    assert read_lengths(write("d.parquet", {"n": [4]})).column == "n"


# ---- blocks that end anywhere --------------------------------------------------------------------------

texts = st.lists(st.text("ab \t5-", max_size=12), max_size=12).map("\n".join)


def cut(text: str, sizes: list[int]) -> list[str]:
    blocks = []
    for size in sizes:
        blocks.append(text[:size])
        text = text[size:]
    return [block for block in [*blocks, text] if block]


@given(
    st.lists(st.text("a b\t\u3000", max_size=30), min_size=1), st.lists(st.integers(1, 9)), st.integers(1, 40)
)
def test_words_are_those_of_every_line_wherever_blocks_end_and_however_long_lines_are(texts, sizes, kept):
    text = "".join(f"{line}\n" for line in texts)
    found = Collected("a file")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("padless.report.reading.txt._KEPT", kept)  # longer lines are counted in parts
        read_txt(cut(text, sizes), found, words=True)
    assert found.values.tolist() == [len(line.split()) for line in texts]


@given(
    st.lists(st.integers(0, 2**31 - 1), min_size=1),
    st.lists(st.integers(1, 9)),
    st.sampled_from(["\n", "\r\n"]),
)
def test_lengths_are_those_of_every_line_wherever_blocks_end(lengths, sizes, end):
    found = Collected("a file")
    read_txt(cut(end.join(map(str, lengths)), sizes), found, words=False)
    assert (found.values.tolist(), found.unit) == (lengths, "lengths")


@given(texts, st.lists(st.integers(1, 9)))
def test_what_a_text_is_read_as_does_not_depend_on_where_blocks_end(text, sizes):
    def outcome(blocks: list[str]) -> object:
        found = Collected("a file")
        try:
            read_txt(blocks, found, words=False)
        except LengthsError as error:
            return str(error)
        return found.values.tolist(), found.unit

    assert outcome(cut(text, sizes)) == outcome([text])


@given(st.lists(st.tuples(st.text("ab \n\",'", max_size=8), st.integers(0, 99)), min_size=1))
def test_a_csv_column_is_what_the_writer_put_there(rows):
    text = table(text=[text for text, _ in rows], n=[n for _, n in rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("padless.report.reading.csv_rows._ROWS", 3)
        for column, expected in (("text", [len(t.split()) for t, _ in rows]), ("n", [n for _, n in rows])):
            found = Collected("a file")
            from padless.report.reading.csv_rows import read_csv

            read_csv(io.StringIO(text, newline=""), found, column, words=False, delimiter=",")
            assert found.values.tolist() == expected


@pytest.mark.parametrize("block", [3, 1 << 20])
@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_lines_end_as_on_any_system(write, monkeypatch, end, block):
    monkeypatch.setattr(source, "_BLOCK", block)
    monkeypatch.setattr(source, "_HEAD", block)
    assert read_lengths(write("a.txt", end.join(["4", "6", "8"]))).values.tolist() == [4, 6, 8]
    assert read_lengths(write("a.csv", f"n,t{end}4,a{end}6,b c"), column="t").values.tolist() == [1, 2]
    assert read_lengths(write("b.txt", f"a b{end}c{end}{end}d e f")).values.tolist() == [2, 1, 0, 3]
    assert block == 3 or read_lengths(write("c", f"[1, 2]{end}[3]{end}")).values.tolist() == [2, 1]


def test_numbers_between_commas_are_words_if_asked_for_or_among_words(write):
    assert read_lengths(write("a.txt", "4,6,8\nnan\n"), words=True).values.tolist() == [1, 1]
    assert read_lengths(write("a.txt", "1,000 people\n4,6\ninf\n")).values.tolist() == [2, 1, 1]


def test_a_text_of_many_blocks_is_read_whole_and_progress_tells_its_bytes(write, monkeypatch):
    monkeypatch.setattr(source, "_BLOCK", 1 << 10)
    monkeypatch.setattr(source, "_HEAD", 1 << 6)
    text = lines(f"{'wörd ' * (i % 7)}" for i in range(2_000))
    seen: list[tuple[int, int | None]] = []
    path = write("words.txt", text)
    found = read_lengths(path, progress=lambda done, total: seen.append((done, total)))
    assert found.values.tolist() == [i % 7 for i in range(2_000)]
    size = os.path.getsize(path)
    assert seen[-1] == (size, size) and len(seen) > 20
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_progress_of_a_packed_file_is_reported_in_the_file_s_own_bytes(write):
    path = write("words.txt.gz", gzip.compress(lines(["a b"] * 100_000).encode()))
    seen: list[tuple[int, int | None]] = []
    read_lengths(path, progress=lambda done, total: seen.append((done, total)))
    assert all(done <= os.path.getsize(path) == total for done, total in seen)  # type: ignore[operator]


def test_progress_of_parquet_is_reported_in_rows(write):
    seen: list[tuple[int, int | None]] = []
    read_lengths(write("n.parquet", {"n": LENGTHS}), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (8, 8)


# ---- what is wrong ------------------------------------------------------------------------------------

HUGE = 10**30
LINES = "is not an integer, but lengths precede it (--words counts words)"
CELLS = "is not an integer, but lengths precede it (--words counts words)"
NEAR = "; did you mean 'text'?"
CHOOSE = "columns; choose one with --column:"
MANY = ", ".join(f"c{i}" for i in range(12))
LIMIT = "is over 2,147,483,647; are these lengths?"
TWICE = pyarrow.table([[4], [6]], names=["n", "n"])
NOT_UTF8 = pyarrow.array([b"a", b"", b"b c", b"d", b"e\xff"]).view(pyarrow.string())
BAD = [
    # txt
    ("a.txt", "", {}, "{} is empty"),
    ("a.txt", "\n \n", {}, "{} holds no sequences"),
    ("a.txt", "4\n-5\n", {}, "{}, line 2: -5 is negative"),
    ("a.txt", f"4\n{HUGE}\n", {}, f"{{}}, line 2: {HUGE} {LIMIT}"),
    ("a.txt", "4\n" + "9" * 5_000, {}, f"{{}}, line 2: a number of about 4,983 digits {LIMIT}"),
    ("a.txt", "4\n6\nfour words are here\n", {}, f"{{}}, line 3: 'four words are here' {LINES}"),
    ("a.txt", "4\n\n6\n", {}, "{}, line 2: blank, but the lines around it are lengths"),
    ("a.txt", "\n4\n", {}, "{}, line 1: blank, but the lines around it are lengths"),
    ("a.txt", "4\n1_000\n", {}, f"{{}}, line 2: '1_000' {LINES}"),
    ("a.txt", "4\n\u0664\n", {}, f"{{}}, line 2: '\u0664' {LINES}"),
    ("a.txt", "4\n" + "x" * 100_000, {}, f"{{}}, line 2: 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx ... {LINES}"),
    ("a.txt", "two words\n42\n", {}, "{}, line 2: '42' is an integer among words (--words counts it as a word)"),
    ("a.txt", "n\n4\n", {}, "{}, line 2: '4' is an integer among words (--words counts it as a word, --format csv"),
    ("a.txt", "n\nm\n4\n", {}, "{}, line 3: '4' is an integer among words (--words counts it as a word)"),
    ("a.txt", "4.5\n", {}, "{}, line 1: 4.5 is not a whole number (--words counts it as a word)"),
    ("a.txt", "4,6,8\n", {}, "{}, line 1: '4,6,8' is several integers; put one length on a line (--words count"),
    ("a.txt", "4,6," * 40_000, {}, "{}, line 1: '4,6,4,6,4,6,4,6,4,6,4,6,4,6,4,6,4,6 ... is several integers; put one"),
    ("a.txt", "\nnan\n", {}, "{}, line 2: nan is not a whole number (--words counts it as a word)"),
    ("a.txt", "-inf\n4\n", {}, "{}, line 1: -inf is not a whole number (--words counts it as a word)"),
    ("a.txt", "a\rb\0c\r", {}, "{}, line 2: a NUL byte, so this is not txt"),
    ("a.txt", b"a\r\nb\r\xffc\n", {}, "{}, line 3: byte 0xff is not UTF-8, so this is not txt"),
    ("a.npy", b"\x93NUMPY\x01\0v\0{'descr': '<i8'}", {}, "{} is an array in NumPy's format; save it as text first"),
    ("a.txt", "a\nb\0c\n", {}, "{}, line 2: a NUL byte, so this is not txt"),
    ("a.txt", b"a\nb\xffc\n", {}, "{}, line 2: byte 0xff is not UTF-8, so this is not txt"),
    ("a.txt", b"a\nb\xe2\x82", {}, "{}, line 2: byte 0xe2 is not UTF-8, so this is not txt"),
    ("a.txt", "a b".encode("utf-16"), {}, "{} is UTF-16; convert it to UTF-8 first"),
    ("a.txt", gzip.compress(b"4\n" * 9)[:-9], {}, "{} cannot be decompressed: Compressed file ended before"),
    ("a.txt", b"\x1f\x8b\x08junk", {}, "{} cannot be decompressed: "),
    # csv
    ("a.csv", "id,n,text\n1,2,a\n", {}, "{} has 3 columns; choose one with --column: id, n, text"),
    ("a.csv", "id,n,text\n1,2,a\n", {"column": "texts"}, f"{{}} has no column 'texts'; there are id, n, text{NEAR}"),
    ("a.csv", 'a,"b\nc\x1b[1m"\n1,2\n', {}, "{} has 2 columns; choose one with --column: a, b\\nc\\x1b[1m"),
    ("a.csv", "n,n\n1,2\n", {"column": "n"}, "{} has 2 columns 'n'"),
    ("a.csv", ",".join(f"c{i}" for i in range(20)) + "\n", {}, f"{{}} has 20 {CHOOSE} {MANY} and 8 more"),
    ("a.csv", "n\n", {}, "{} holds no sequences"),
    ("a.csv", "\n\n", {}, "{} holds no sequences"),
    ("a.csv", "n\n4\n-1\n", {}, "{}, line 3: -1 is negative"),
    ("a.csv", f"n\n{HUGE}\n", {}, f"{{}}, line 2: {HUGE} {LIMIT}"),
    ("a.csv", 'n,t\n4,"a\nb"\n\n5,c\nx,d\n', {"column": "n"}, f"{{}}, line 6: 'x' {CELLS}"),
    ("a.csv", "n\n4\n4.5\n", {}, "{}, line 3: '4.5' is not a whole number"),
    ("a.csv", "n,t\n4,a\n,b\n", {"column": "n"}, "{}, line 3: '' is not a whole number"),
    ("a.csv", "t\na b\n42\n", {}, "{}, line 3: '42' is an integer among words (--words counts it as a word)"),
    ("a.csv", "n,t\n4,a\n5\n", {"column": "n"}, "{}, line 3: 1 cells, but the first row has 2"),
    ("a.csv", "\n \nn,t\n4,a\n5\n", {"column": "n"}, "{}, line 5: 1 cells, but the first row has 2"),
    ("a.csv", 'n,t\n4,"a\n', {"column": "n"}, "{}, line 2: unexpected end of data (is a quote left open?)"),
    # jsonl
    ("a.jsonl", "4\nfour\n", {}, "{}, line 2: not JSON (Expecting value at character 1)"),
    ("a.jsonl", "4\n4 5\n", {}, "{}, line 2: not JSON (more than one value, after character 1)"),
    ("a.jsonl", "[" * 100_000, {}, "{}, line 1: not JSON ("),
    ("a.jsonl", "9" * 5_000, {}, "{}, line 1: not JSON (a number of thousands of digits)"),
    ("a.jsonl", "4\n-5\n", {}, "{}, line 2: -5 is negative"),
    ("a.jsonl", f"{HUGE}\n", {}, f"{{}}, line 1: {HUGE} {LIMIT}"),
    ("a.jsonl", "4\n4.5\n", {}, "{}, line 2: 4.5 is not a whole number"),
    ("a.jsonl", "4\nNaN\n", {}, "{}, line 2: nan is not a whole number"),
    ("a.jsonl", '4\n"a b"\n', {}, "{}, line 2: 'a b' is a string, but the lines before have numbers"),
    ("a.jsonl", '"a b"\n[1, 2]\n', {}, "{}, line 2: [1, 2] is a list, but the lines before have strings"),
    ("a.jsonl", "[1]\nnull\n", {}, "{}, line 2: null, but the lines before have lists"),
    ("a.jsonl", "true\n", {}, "{}, line 1: true or false has no length; use numbers, strings or lists"),
    ("a.jsonl", '{"a": {}}\n', {}, "{}, line 1: an object has no length; use numbers, strings or lists"),
    ("a.jsonl", '{"text": "a", "n": 1}\n', {}, "{} has objects of 2 keys; choose one with --column: text, n"),
    ("a.jsonl", '{"text": "a", "n": 1}\n', {"column": "txt"}, f"{{}} has no key 'txt'; there are text, n{NEAR}"),
    ("a.jsonl", "{}\n", {}, "{} has objects without keys"),
    ("a.jsonl", '{"n": 1}\n{"m": 1}\n', {}, "{}, line 2: the object has no 'n'"),
    ("a.jsonl", '{"n": 1}\n5\n', {}, "{}, line 2: 5 is not an object with key 'n'"),
    ("a.jsonl", "\n\n", {}, "{} holds no sequences"),
    # parquet
    ("a.parquet", "no table", {}, "{} cannot be read as Parquet: Parquet magic bytes not found in footer."),
    ("a.parquet", b"PAR1", {}, "{} cannot be read as Parquet: Parquet file size is 4 bytes, smaller than"),
    ("a.txt", {"n": [4]}, {}, "{} is Parquet, not txt; read it with --format parquet"),
    ("a.parquet", {"id": [1], "n": [4]}, {}, "{} has 2 columns; choose one with --column: id, n"),
    ("a.parquet", {"id": [1], "n": [4]}, {"column": "nn"}, "{} has no column 'nn'; there are id, n; did you mean 'n'?"),
    ("a.parquet", {"n": [1, 2, 3, 4, None]}, {}, "{}, row 5: null; an empty sequence is an empty list or text"),
    ("a.parquet", {"n": [1, 2, 3, 4, -5]}, {}, "{}, row 5: -5 is negative"),
    ("a.parquet", {"n": [1, 2**40]}, {}, f"{{}}, row 2: {2**40} {LIMIT}"),
    ("a.parquet", {"n": [1.0, 2.5]}, {}, "{}, row 2: 2.5 is not a whole number"),
    ("a.parquet", {"n": [True]}, {}, "{}: column 'n' is bool; use one of integers, text or lists"),
    ("a.parquet", {"n": pyarrow.array([], pyarrow.int64())}, {}, "{} holds no sequences"),
    ("a.parquet", TWICE, {"column": "n"}, "{} has 2 columns 'n'"),
    ("a.parquet", pyarrow.table({}), {}, "{} has no columns"),
    ("a.parquet", {"t": NOT_UTF8}, {}, "{}, row 5: byte 0xff is not UTF-8"),
    ("a.parquet", {"t": NOT_UTF8.dictionary_encode()}, {}, "{}, row 5: byte 0xff is not UTF-8"),
    # options
    ("a.txt", "4\n", {"column": "n"}, "--column is for csv, tsv, json, jsonl and parquet, but {} is read as txt"),
    ("a.jsonl", "4\n", {"words": True}, "--words is for txt, csv and tsv, but {} is read as jsonl"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "options", "message"), BAD, ids=[f"{i}-{m[:60]}" for i, (*_, m) in enumerate(BAD)]
)
def test_what_is_wrong_is_reported_in_one_line_with_its_place(write, name, content, options, message):
    path = write(name, content)
    with pytest.raises(PadlessError) as caught:
        read_lengths(path, **options)
    assert str(caught.value).startswith(message.format(path)), str(caught.value)
    assert "\n" not in str(caught.value)
    is_usage = (
        "--column" in message or " column '" in message or "columns '" in message or "--words is" in message
    )
    assert isinstance(caught.value, UsageError) or not is_usage or "whole number" in message


def test_what_is_no_file_is_reported(tmp_path):
    for path, message in [
        (tmp_path / "missing", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ]:
        with pytest.raises(PadlessError, match=f"^cannot read {re.escape(str(path))}: {message}$"):
            read_lengths(str(path))


def test_a_path_with_a_nul_is_reported():
    with pytest.raises(UsageError, match="^cannot read 'a\\\\x00b': embedded null byte$"):
        read_lengths("a\0b")


def test_a_line_that_no_format_of_whole_lines_can_hold_is_refused_before_it_is(write, monkeypatch):
    monkeypatch.setattr(source, "LONGEST_LINE", 1_000)
    monkeypatch.setattr(source, "_BLOCK", 100)
    monkeypatch.setattr(source, "_HEAD", 100)
    path = write("a.jsonl", "4\n" + " " * 5_000)
    with pytest.raises(LengthsError, match=r"line 2: longer than 1,000 characters; is this jsonl\?$"):
        read_lengths(path)


def test_without_pyarrow_parquet_is_reported_to_need_it(write, monkeypatch):
    path = write("a.parquet", {"n": [4]})
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(PadlessError, match=r"^reading Parquet needs pyarrow: pip install pyarrow$"):
        read_lengths(path)


def test_the_process_s_limit_of_csv_fields_is_given_back(write):
    before = csv.field_size_limit()
    read_lengths(write("a.csv", table(text=["x" * 200_000])))
    assert csv.field_size_limit() == before


def test_a_file_of_two_million_sequences_takes_little_more_than_four_bytes_each(tmp_path):
    import tracemalloc

    path = tmp_path / "lengths.txt"
    path.write_text("123\n" * 2_000_000)
    tracemalloc.start()
    try:
        found = read_lengths(str(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.values) == 2_000_000
    assert (
        peak < 2_000_000 * 4 * 1.25 + 60e6
    )  # an array grows by an eighth; a block is some hundred thousand lines


def test_parquet_inside_of_gzip_is_refused_by_name(write, tmp_path):
    packed = tmp_path / "lengths.parquet.gz"
    packed.write_bytes(gzip.compress(Path(write("lengths.parquet", {"n": [4]})).read_bytes()))
    with pytest.raises(LengthsError, match="Parquet compressed by gzip; decompress it first"):
        read_lengths(str(packed))
