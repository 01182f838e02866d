"""The functions of Python's standard library as sequences of tokens; needs no torch.

Every machine that runs Python has this data, so the demo downloads nothing. It is read from the source
files each time (takes some seconds); the same interpreter gives the same sequences in the same order.
"""

from __future__ import annotations

import ast
import bisect
import hashlib
import io
import itertools
import sysconfig
import tokenize
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Data", "Function", "read_functions", "stdlib_files", "to_data"]

SHORTEST, LONGEST = 6, 2_700  # tokens; shorter functions are stubs, longer ones generated tables
CLASS_MINIMUM = 60  # functions; packages with fewer are too small to train and test on
VOCABULARY_MAXIMUM = 8_000
OCCURRENCES_MINIMUM = 3  # of a word in the training part; rarer words share the token of their kind
HELD_OUT_PERCENT = 15
KINDS = ("<name>", "<number>", "<string>")  # token ids 0, 1, 2: the kinds of rare words
_SKIPPED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages"})
_LAYOUT_WORDS = {tokenize.NEWLINE: "<newline>", tokenize.INDENT: "<indent>", tokenize.DEDENT: "<dedent>"}
_BLOCK_TOKENS = frozenset({tokenize.INDENT, tokenize.DEDENT})
_DROPPED_TOKENS = frozenset({tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER})


@dataclass(frozen=True, slots=True)
class Function:
    """One function: its top-level package or module, and its words."""

    package: str
    words: tuple[str, ...]

    @property
    def is_held_out(self) -> bool:
        """Whether it is in the held-out part; decided by a hash of the words, so copies of a function stay together."""
        digest = hashlib.sha256("\0".join(self.words).encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % 100 < HELD_OUT_PERCENT


@dataclass(frozen=True, slots=True)
class Data:
    """Functions as token ids with a class each, split into a training and a held-out part."""

    sequences: tuple[tuple[int, ...], ...]
    labels: tuple[int, ...]
    training: tuple[int, ...]  # indices into sequences
    held_out: tuple[int, ...]
    classes: tuple[str, ...]
    vocabulary_size: int

    @property
    def fingerprint(self) -> str:
        """Hash of all contents; a run is resumed only with equal data."""
        parts = (
            self.sequences,
            self.labels,
            self.training,
            self.held_out,
            self.classes,
            self.vocabulary_size,
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    @property
    def majority_accuracy(self) -> float:
        """Held-out accuracy of always predicting the most frequent class of the training part."""
        (majority, _), *_ = Counter(self.labels[i] for i in self.training).most_common(1)
        return sum(self.labels[i] == majority for i in self.held_out) / len(self.held_out)


def stdlib_files() -> tuple[Path, list[Path]]:
    """The standard library's folder and its source files without tests, in a fixed order."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [path for path in root.rglob("*.py") if not _SKIPPED_FOLDERS & set(path.relative_to(root).parts)]
    return root, sorted(files, key=lambda path: path.relative_to(root).parts)


def read_functions(
    root: Path, files: list[Path], *, progress: Callable[[int], None] = lambda done: None
) -> list[Function]:
    """All functions and methods of `files`; those inside another function belong to the outer one.

    Files that this Python cannot parse (the library ships some on purpose) are skipped.
    """
    functions: list[Function] = []
    for done, path in enumerate(files, 1):
        package = path.relative_to(root).parts[0].removesuffix(".py")
        try:
            with tokenize.open(path) as file:
                source = file.read()
            tree = _parse(source)
            tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
        except (OSError, SyntaxError, ValueError, tokenize.TokenError):
            progress(done)
            continue
        lines = [token.start[0] for token in tokens]
        for first, last in _function_lines(tree):
            span = tokens[bisect.bisect_left(lines, first) : bisect.bisect_right(lines, last)]
            words = tuple(_words(span))
            if SHORTEST <= len(words) <= LONGEST:
                functions.append(Function(package, words))
        progress(done)
    return functions


def to_data(functions: Sequence[Function], *, class_minimum: int = CLASS_MINIMUM) -> Data:
    """`functions` as token ids and classes; classes are ordered by name, the vocabulary by frequency.

    Functions of packages with fewer than `class_minimum` functions are left out.
    """
    sizes = Counter(function.package for function in functions)
    classes = tuple(sorted(package for package, size in sizes.items() if size >= class_minimum))
    label_of = {package: label for label, package in enumerate(classes)}
    kept = [function for function in functions if function.package in label_of]
    held_out = [function.is_held_out for function in kept]
    training = tuple(i for i, is_held_out in enumerate(held_out) if not is_held_out)

    counts = Counter(word for i in training for word in kept[i].words)
    frequent = sorted((-count, word) for word, count in counts.items() if count >= OCCURRENCES_MINIMUM)
    vocabulary = [*KINDS, *(word for _, word in frequent[: VOCABULARY_MAXIMUM - len(KINDS)])]
    token_of = {word: token for token, word in enumerate(vocabulary)}
    return Data(
        sequences=tuple(
            tuple(token_of.get(word, _rare(word)) for word in function.words) for function in kept
        ),
        labels=tuple(label_of[function.package] for function in kept),
        training=training,
        held_out=tuple(i for i, is_held_out in enumerate(held_out) if is_held_out),
        classes=classes,
        vocabulary_size=len(vocabulary),
    )


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():  # some of the library's own files have invalid escapes
        warnings.simplefilter("ignore")
        return ast.parse(source)


def _function_lines(node: ast.AST) -> Iterator[tuple[int, int]]:
    """First and last line of every function under `node` that is not inside another."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield child.lineno, child.end_lineno or child.lineno
        elif not isinstance(child, ast.expr):
            yield from _function_lines(child)


def _words(tokens: Sequence[tokenize.TokenInfo]) -> Iterator[str]:
    # Dedents of preceding blocks come before a function's first token; they are not part of it.
    for token in itertools.dropwhile(lambda token: token.type in _BLOCK_TOKENS, tokens):
        if token.type not in _DROPPED_TOKENS:
            yield _LAYOUT_WORDS.get(token.type, token.string)


def _rare(word: str) -> int:
    """The token of the kind of `word`."""
    if word.isidentifier():
        return 0
    return 1 if word[:1].isdigit() or word[:1] == "." else 2
