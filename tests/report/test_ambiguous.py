"""Files that can be read in two ways: recognised and said in the title, or refused in one line; never miscounted."""

from __future__ import annotations

import pytest

from padless.cli import main
from padless.errors import LengthsError, UsageError
from padless.report.reading import read_lengths


@pytest.fixture
def read(tmp_path):
    def read(text: str, name: str, **options):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return read_lengths(str(path), **options)

    return read


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("[[1,2,3],[4,5]]", [3, 2]),
        ("[[1,2,3],\n [4,5]]\n", [3, 2]),
        ("[\n  4,\n  6,\n  0\n]", [4, 6, 0]),
        ('["a b c", "d"]', [3, 1]),
        ("[[[1,2],[3,4]]]", [2]),
    ],
)
def test_a_json_array_is_read_item_by_item(read, text, lengths):
    found = read(text, "data.json")
    assert found.values.tolist() == lengths
    assert found.note == "one JSON array"


def test_objects_of_a_json_array_have_columns(read):
    assert read('[{"text": "a b"}, {"text": "c"}]', "data.json").values.tolist() == [2, 1]


def test_json_lines_under_the_name_json_are_json_lines(read):
    found = read("[1,2,3]\n[4]\n", "data.json")
    assert found.values.tolist() == [3, 1] and found.note is None


def test_one_line_is_one_sequence_where_the_suffix_says_jsonl(read):
    assert read("[[1,2,3],[4,5]]\n", "data.jsonl").values.tolist() == [2]


def test_an_array_of_several_lines_is_recognised_without_a_suffix(read):
    assert read("[\n[1,2,3],\n[4]\n]", "data").values.tolist() == [3, 1]


def test_one_array_on_one_line_without_a_suffix_is_refused(read):
    with pytest.raises(UsageError, match="one JSON array on one line: --format json .* --format jsonl"):
        read("[[1,2,3],[4,5]]\n", "data")
    assert read("[[1,2,3],[4,5]]\n", "data", format="json").values.tolist() == [3, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": [1]}', r"data.json is an object; a JSON file must be one array"),
        ("[1, 2,\n x]", r"data.json, line 2: not JSON \(Expecting value at character 2\); if each line"),
        ("[[1], 3]", r"data.json, item 2: 3 is a number, but the items before have lists"),
        ("[3, -1]", r"data.json, item 2: -1 is negative"),
        ("[]", r"data.json holds no sequences"),
    ],
)
def test_errors_in_a_json_array_name_the_item(read, text, message):
    with pytest.raises(LengthsError, match=message):
        read(text, "data.json")


@pytest.mark.parametrize(
    ("delimiter", "name"), [(";", "separated by semicolons"), ("\t", "separated by tabs"), (",", None)]
)
def test_the_delimiter_of_a_table_is_recognised(read, delimiter, name):
    text = "\n".join(delimiter.join(cells) for cells in (("id", "length"), ("a", "4"), ("b", "6")))
    found = read(text, "data.csv", column="length")
    assert found.values.tolist() == [4, 6] and found.note == name
    with pytest.raises(UsageError, match="has 2 columns; choose one with --column: id, length"):
        read(text, "data.csv")


def test_two_kinds_of_delimiters_are_refused(read):
    with pytest.raises(UsageError, match="the first line has commas and semicolons"):
        read("a;b,c\n1;2,3\n", "data.csv", column="a")
    assert read('"a;b",c\n1,2\n', "data.csv", column="c").values.tolist() == [2]


TABLES = [
    "length,x\n3,1\n4,2\n",
    "length;x\n3;1\n",
    "length\tx\n3\t1\n",
    'text,"length of it"\n"a, b\nc",4\n\n"d",5.5\n',
    "\ufeff\r\nlength,x\r\n3,1\r\n4,2",
    "id,text\n" + "".join(f'{i},"a line\nanother"\n' for i in range(9_000)),
]


@pytest.mark.parametrize("text", TABLES, ids=range(len(TABLES)))
def test_a_table_without_a_suffix_is_not_counted_as_text(read, text):
    message = r"data looks like a table of 2 columns; choose one with --column: \w+, .* \(--format txt counts the words"
    with pytest.raises(UsageError, match=message):
        read(text, "data")
    assert read(text, "data", format="txt").unit == read(text, "data", words=True).unit == "words"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Dear Ann,\nhow are you, and\nwhere?\n", [2, 4, 1]),
        ("red, green\nblue, white\n", [2, 2]),
        ("a,b\nc\n", [1, 1]),
        ("in May,1984\nin June,1985\n", [2, 2]),
        ("a,3\n", [1]),
        ('say "a, b\n', [3]),
        ("\n\na b\n", [0, 0, 2]),
    ],
)
def test_a_text_with_commas_is_no_table(read, text, words):
    assert read(text, "data").values.tolist() == words


def test_the_title_says_how_the_file_was_understood(tmp_path, capsys):
    path = tmp_path / "data.json"
    path.write_text("[[1,2,3],[4,5]]")
    assert main(["report", str(path)]) == 0
    assert "data.json (one JSON array): 2 sequences, 5 items" in capsys.readouterr().out
