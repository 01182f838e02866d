"""The public names: complete, sorted, documented, and loaded only when they are used."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import padless

HEAVY = ("torch", "numpy", "matplotlib", "pyarrow")


def modules_after(code: str, *, forbidden: tuple[str, ...] = HEAVY) -> list[str]:
    """Those of `forbidden` that a fresh interpreter has imported after `code`."""
    report = f"print('imported:', *[name for name in {forbidden!r} if name in sys.modules])"
    probe = f"{code}\nimport sys\n{report}"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].removeprefix("imported:").split()


public_name = pytest.mark.parametrize("name", [name for name in padless.__all__ if name != "__version__"])


def test_all_is_sorted_and_names_nothing_twice():
    assert padless.__all__ == sorted(set(padless.__all__))


def test_every_name_in_all_can_be_had():
    for name in padless.__all__:
        assert getattr(padless, name) is not None


def test_every_lazy_name_is_public_and_every_public_name_has_a_home():
    assert sorted([*padless._HOMES, "__version__"]) == padless.__all__


def test_names_for_type_checkers_are_those_of_all():
    source = Path(padless.__file__).read_text(encoding="utf-8")
    block = source.split("if TYPE_CHECKING:\n")[1].split("\n\n")[0]
    imported = [name for line in block.splitlines() for name in line.split(" import ")[1].split(", ")]
    assert sorted([*imported, "__version__"]) == padless.__all__


def test_dir_lists_every_public_name_before_any_is_loaded():
    code = "import padless\nassert set(padless.__all__) <= set(dir(padless)), dir(padless)"
    assert modules_after(code) == []


def test_star_import_brings_every_public_name():
    names: dict[str, object] = {}
    exec("from padless import *", names)
    assert set(padless.__all__) <= set(names)


def test_a_name_is_looked_up_once():
    pack = padless.pack
    assert vars(padless)["pack"] is pack


@pytest.mark.parametrize(
    "code",
    [
        "import padless",
        "import padless; padless.__version__; padless.LengthsError",
        "import padless; padless.waste([4, 6, 8, 5, 4, 3, 7, 8])",
        "import padless.report",
        "import padless.cli",
    ],
)
def test_torch_and_numpy_stay_unimported_after(code):
    assert modules_after(code) == []


def test_a_name_that_needs_torch_imports_it():
    assert "torch" in modules_after("import padless; padless.pack")


def test_an_unknown_name_is_an_error_that_suggests_the_near_one():
    with pytest.raises(AttributeError, match=r"no attribute 'accelrate'; did you mean 'accelerate'\?$"):
        padless.accelrate  # noqa: B018


def test_an_unknown_name_far_from_all_gets_no_suggestion():
    with pytest.raises(AttributeError, match=r"has no attribute 'xylophone'$"):
        padless.xylophone  # noqa: B018


@public_name
def test_public_name_has_a_docstring_of_its_own(name):
    assert getattr(padless, name).__doc__


@public_name
def test_public_members_are_documented(name):
    value = getattr(padless, name)
    if inspect.ismodule(value):
        members = {member: getattr(value, member) for member in value.__all__}
    elif inspect.isclass(value):
        members = {
            member: found
            for member, found in vars(value).items()
            if not member.startswith("_") and (inspect.isroutine(found) or isinstance(found, property))
        }
    else:
        members = {name: value}
    undocumented = [member for member, found in members.items() if not inspect.getdoc(found)]
    assert not undocumented


def names_in_all(path: Path) -> set[str]:
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        if "__all__" in [getattr(target, "id", None) for target in targets]:
            return set(ast.literal_eval(statement.value))  # type: ignore[attr-defined]
    return set()


def test_what_one_module_imports_from_another_is_in_its_all():
    """`__all__` of a package lists what users may use, that of a module also what the other modules use."""
    missing = []
    for path in Path(padless.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level and node.module:
                source = path.parents[node.level - 1].joinpath(*node.module.split(".")).with_suffix(".py")
                if source.is_file():
                    imported = {alias.name for alias in node.names}
                    missing += [f"{source.stem}.{name}" for name in imported - names_in_all(source)]
    assert missing == []


def test_version_is_that_of_the_installed_package():
    try:
        installed = metadata.version("padless")
    except metadata.PackageNotFoundError:
        pytest.skip("padless runs from a bare source tree")
    assert padless.__version__ == installed


def test_the_package_tells_type_checkers_that_it_is_typed():
    assert (Path(padless.__file__).parent / "py.typed").is_file()


def test_the_citation_names_this_version():
    citation = Path(__file__).parents[1] / "CITATION.cff"
    assert f"version: {padless.__version__}\n" in citation.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", padless.nn.__all__)
def test_a_layer_asked_of_the_package_itself_is_pointed_to(name):
    with pytest.raises(AttributeError, match=rf"did you mean 'padless\.nn\.{name}'"):
        getattr(padless, name)
