"""Every package.xml is valid, and says of licence, version and dependencies what is so; requirements likewise."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import dependency_table as table
import pytest
import yaml
from test_import_rule import PACKAGES as LAYERS

catkin_package = pytest.importorskip("catkin_pkg.package", reason="catkin_pkg comes with colcon")

SOURCES = Path(__file__).resolve().parents[2]
ROOT = SOURCES.parents[1]
PACKAGES = {path.parent.name: path for path in sorted(SOURCES.glob("*/package.xml"))}
LICENCE = (ROOT / "LICENSE").read_text()
SOURCE_FOLDERS = {name: [path.parent / name, path.parent / "launch"] for name, path in PACKAGES.items()}
INTERFACE = re.compile(r"^([a-z]\w*)/[A-Z]", re.MULTILINE)
REQUIREMENTS = table.pinned(*ROOT.glob("requirements*.txt"))


def arguments_of_setup(path: Path) -> dict[str, object]:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    (call,) = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "setup"]
    return {item.arg: item.value.value for item in call.keywords if isinstance(item.value, ast.Constant)}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_file_is_valid(name):
    warnings: list[str] = []
    package = catkin_package.parse_package(str(PACKAGES[name]), warnings=warnings)
    package.validate(warnings=warnings)
    assert not warnings
    assert (package.name, package.package_format) == (name, 3)


@pytest.mark.parametrize("name", PACKAGES)
def test_licence_version_and_maintainer_are_the_same_everywhere(name):
    package = catkin_package.parse_package(str(PACKAGES[name]))
    assert [str(licence) for licence in package.licenses] == ["Apache-2.0"]
    assert LICENCE.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    setup = PACKAGES[name].with_name("setup.py")
    if setup.exists():
        (maintainer,) = package.maintainers
        expected = {"version": package.version, "license": "Apache-2.0"}
        expected |= {"maintainer": maintainer.name, "maintainer_email": maintainer.email}
        assert {key: value for key, value in arguments_of_setup(setup).items() if key in expected} == expected


@pytest.mark.parametrize("path", sorted(SOURCES.glob("*/setup.py")), ids=lambda path: path.parent.name)
def test_colcon_test_runs_pytest(path):
    assert 'tests_require=["pytest"]' in path.read_text()


def above(name: str) -> set[str]:
    """The package and those that it must not import: a cycle to colcon, which `test_import_rule` finds."""
    return set(LAYERS[LAYERS.index(name) :])


def needed(name: str) -> set[str]:
    """Dependencies that a package's own modules and interfaces have."""
    folders = [folder for folder in SOURCE_FOLDERS[name] if folder.exists()]
    modules = set().union(*map(table.imported, folders))
    definitions = [path.read_text() for kind in ("msg", "srv") for path in PACKAGES[name].parent.glob(f"{kind}/*")]
    return (table.keys(modules, set(PACKAGES)) | set(INTERFACE.findall("\n".join(definitions)))) - above(name)


def named(name: str) -> set[str]:
    """Own packages that a package's modules name: their nodes are started, their files are read."""
    texts = set().union(*(table.texts(folder) for folder in SOURCE_FOLDERS[name] if folder.exists()))
    return {other for other in set(PACKAGES) - above(name) if any(text.partition(".")[0] == other for text in texts)}


def needed_in_tests(name: str) -> set[str]:
    helpers = {path.stem for path in SOURCES.glob("*/test/*")}
    modules = table.imported(PACKAGES[name].parent / "test") - helpers
    return table.keys(modules, set(PACKAGES)) - above(name)


def declared(name: str) -> tuple[set[str], set[str]]:
    """What a package depends on at run time, and what in tests."""
    package = catkin_package.parse_package(str(PACKAGES[name]))
    at_run, in_tests = ([item.name for item in items] for items in (package.exec_depends, package.test_depends))
    assert len(set(at_run + in_tests)) == len(at_run + in_tests), "depends on something twice"
    return set(at_run), set(in_tests)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_depends_on_what_it_imports_and_on_nothing_else(name):
    at_run, in_tests = declared(name)
    without_import = {*table.AT_RUN_TIME, *named(name)}
    assert needed(name) - at_run == set(), "imported, not declared"
    assert at_run - needed(name) - without_import == set(), "declared, not imported"
    assert needed_in_tests(name) - at_run == in_tests


def test_a_dependency_that_is_not_imported_belongs_to_a_package():
    declared_at_run = set().union(*(declared(name)[0] for name in PACKAGES))
    assert set(table.AT_RUN_TIME) <= declared_at_run


def test_every_requirement_is_imported_or_a_tool():
    modules = set().union(*(table.imported(path.parent) for path in PACKAGES.values()))
    used = {table.LIBRARIES[module][1] for module in modules & set(table.LIBRARIES)}
    used |= {f"ros-{key.replace('_', '-')}" for name in PACKAGES for key in needed(name)}
    idle = set(REQUIREMENTS) - used - set(table.TOOLS)
    assert {name for name in idle if not name.startswith(table.BUILDS)} == set()


def test_rosdep_installs_what_is_pinned():
    keys = {key: name for key, name in table.LIBRARIES.values() if key.endswith("-pip") and name in REQUIREMENTS}
    expected = {key: {"ubuntu": {"pip": {"packages": [REQUIREMENTS[name]]}}} for key, name in keys.items()}
    assert yaml.safe_load((ROOT / "tools" / "rosdep.yaml").read_text()) == expected
