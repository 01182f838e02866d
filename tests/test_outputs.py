"""Files that commands write: whole, or as they were before."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from padless import outputs
from padless.errors import PadlessError

posix = pytest.mark.skipif(os.name != "posix", reason="links, permissions and limits of POSIX")


def fails_with(number: int):
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_file_that_is_new_has_the_usual_permissions_and_one_that_was_there_keeps_its_own(tmp_path):
    (tmp_path / "usual").touch()
    outputs.write(tmp_path / "new", "é\n")
    assert (tmp_path / "new").read_bytes() == "é\n".encode()
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode
    (tmp_path / "new").chmod(0o640)
    mode = (tmp_path / "new").stat().st_mode
    outputs.write(tmp_path / "new", b"other")
    assert ((tmp_path / "new").stat().st_mode, (tmp_path / "new").read_bytes()) == (mode, b"other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "usual"]


@pytest.mark.parametrize("name", ["old", "new"])
def test_a_disk_that_fills_leaves_the_folder_as_it_was(name, tmp_path, monkeypatch):
    (tmp_path / "old").write_text("old")
    monkeypatch.setattr(os, "fsync", fails_with(errno.ENOSPC))
    with pytest.raises(PadlessError, match=f"^cannot write to .*{name}: No space left on device$"):
        outputs.write(tmp_path / name, "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old", "old")]


@posix
def test_links_stay_links_and_lead_to_the_new_content(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "nowhere").symlink_to("file2")
    (tmp_path / "other").hardlink_to(tmp_path / "file")
    for name in ("link", "other", "nowhere"):
        outputs.write(tmp_path / name, name)
        assert (tmp_path / name).read_text() == name
    assert (tmp_path / "link").is_symlink() and (tmp_path / "nowhere").is_symlink()
    assert (tmp_path / "file").read_text() == "other" and (tmp_path / "file2").read_text() == "nowhere"


@posix
def test_a_file_in_a_folder_that_cannot_be_changed_is_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "replace", lambda *_: pytest.fail("replaced"))
    outputs.write(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


def test_what_a_killed_process_left_is_removed_and_long_names_stay_possible(tmp_path):
    name = "é" * 120
    (tmp_path / f".{name[:40]}.padless").write_text("half")
    outputs.write(tmp_path / name, "new")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_that_cannot_be_moved_is_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(os, "replace", fails_with(errno.EBUSY))
    outputs.write(tmp_path / "file", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "new")]


@posix
@pytest.mark.parametrize(
    "command",
    ["report lengths.txt --html", "draw 4 6 --svg", "draw 4 6 --html", "draw 4 6 --png"],
)
def test_no_command_destroys_a_file_on_a_full_disk(command, tmp_path):
    import resource

    if command.endswith("png"):
        pytest.importorskip("matplotlib")
    (tmp_path / "lengths.txt").write_text("4\n6\n")
    (tmp_path / "old").write_text("old")
    for name in ("old", "new"):
        done = subprocess.run(
            [sys.executable, "-m", "padless", *command.split(), name], capture_output=True, text=True, timeout=60,
            cwd=tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000)),
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (1, f"padless: cannot write to {name}: File too large\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lengths.txt", "old"]
    assert (tmp_path / "old").read_text() == "old"


@posix
def test_standard_output_is_written_to_where_it_is_a_file(tmp_path):
    command = [sys.executable, "-m", "padless", "draw", "4", "6", "--svg", "/dev/stdout"]
    with (tmp_path / "out").open("a") as out:
        assert subprocess.run(command, stdout=out, timeout=60).returncode == 0
    assert (tmp_path / "out").read_text().endswith("wrote /dev/stdout\n")
