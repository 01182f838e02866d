"""Files that commands write: checked before the work, and complete or unchanged afterwards."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from .errors import PadlessError, UsageError

__all__ = ["check_outputs", "check_writable", "replace", "write"]


def check_outputs(outputs: Iterable[Path | None], source: str | None) -> None:
    """Raise UsageError if two outputs of a command are one file, or an output is the file `source` that it reads."""
    files = [Path(source)] if source is not None else []
    for path in outputs:
        if path is None:
            continue
        for other in files:
            if path.resolve() == other.resolve() or (
                path.exists() and other.exists() and path.samefile(other)
            ):
                raise UsageError(
                    f"{path} is also the file {'to read' if str(other) == source else 'of another option'}"
                )
        files.append(path)


def check_writable(path: Path) -> None:
    """Raise PadlessError before minutes of work, not after, if `path` cannot be written; leave it as it is."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            return  # opening a pipe may block, and closing it ends what reads from it
        target = path.resolve()  # a link that leads nowhere stays one
        is_new = not target.exists()
        with target.open("a"):
            pass
        if is_new:
            target.unlink()
    except OSError as error:
        raise _unwritable(path, error) from None


def write(path: Path, content: str | bytes) -> None:
    """Write `content` to `path`, text as UTF-8. On a full disk, a file that is there stays as it was.

    Symbolic links, pipes and devices such as `/dev/stdout` are written to directly; so are files that another in
    their place would differ from: those with several names, of another owner, or in a folder that cannot be changed.

    Raises:
        PadlessError: `path` cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        if not (_is_replaceable(path) and _replaces(path, data)):
            path.write_bytes(data)
    except OSError as error:
        raise _unwritable(path, error) from None


def replace(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to a new file beside `path`, sync it to disk and move it there; it gets the permissions of the old.

    Raises:
        OSError: it cannot be written; what was at `path` is kept.
    """
    temporary = path.with_name(
        f".{path.name[:40]}.padless"
    )  # always the same: a killed process may leave it behind
    try:
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _replaces(path: Path, data: bytes) -> bool:
    """Replace `path`; False if it cannot be moved away, as a file that a container mounts."""
    try:
        replace(path, data)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _is_replaceable(path: Path) -> bool:
    """Whether a new file can take the place of `path` without any other difference."""
    if not os.access(path.parent, os.W_OK | os.X_OK) or path.is_symlink():
        return False
    if not path.exists():
        return True
    status = path.stat()
    is_ours = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and is_ours


def _unwritable(path: Path, error: OSError) -> PadlessError:
    return PadlessError(f"cannot write to {path}: {error.strerror or error}")
