"""Documents: their links lead somewhere, and the commands, options, modules and files that they name exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import test_import_rule
from ros_harness import SOURCES

ROOT = SOURCES.parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("models/*/README.md"), *SOURCES.glob("*/README.md")]
)
# Not the change log, which names what is gone.
WITH_COMMANDS = [
    *(path for path in DOCUMENTS if path.name != "CHANGELOG.md"),
    ROOT / "Makefile",
    *sorted((ROOT / "docker").glob("*.*")),
]
FILES = [
    str(path.relative_to(ROOT))
    for top in ("docker", "docs", "models", "ros2_ws/src", "tools", ".github")
    for path in (ROOT / top, *(ROOT / top).rglob("*"))
]
FOLDERS = {"docker", "docs", "models", "ros2_ws", "tools", ".github", *test_import_rule.PACKAGES}
SUFFIXES = (".py", ".md", ".yaml", ".xml", ".xacro", ".rviz", ".msg", ".srv", ".sh", ".ini")
# Options of other programs that documents name by themselves.
OF_OTHERS = {"--symlink-install", "--build-arg", "--robot-side", "--nproc-per-node"}
OPTION = re.compile(r"(?<![\w-])--[a-z][\w.-]*\w|\b\w+:=")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(path: Path) -> set[str]:
    """Those that GitHub gives to the headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def options() -> dict[str, set[str]]:
    """Subcommand -> its options, from the committed completion, which a test compares with every help."""
    text = (SOURCES / "r1lite_bringup/completion/depthvla.bash").read_text()
    return {name: set(words.split()) for name, words in re.findall(r'\*" ([\w-]+)"\) options="(.*)"', text)}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_link_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=name_of)
def test_every_named_module_file_and_target_exists(path):
    text = path.read_text()
    for module in re.findall(r"-m ((?:depthvla|r1lite)_[\w.]*\w)", text):
        assert importlib.util.find_spec(module), module
    for name in re.findall(r"(?:[`\"' ])((?:[\w.<>*-]+/)+[\w.<>*-]*)(?=[`\"' :])", text):
        if name.startswith(("ros2_ws/install", "ros2_ws/build", "ros2_ws/log", "./", "out/")) or name.endswith("-v0"):
            continue
        if name.split("/")[0] in FOLDERS or name.endswith(SUFFIXES) and path.suffix == ".md":
            pattern = re.sub(r"<\w+>|\*+", "*", name.removeprefix("../").rstrip("/"))
            assert named(pattern), name
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE):
        assert target in targets, target


def named(pattern: str) -> bool:
    pattern = re.sub("^depthvla_msgs/(?=[A-Z])", "*/", pattern)  # a message by its ROS name
    end = re.compile("(?:^|/)" + re.escape(pattern).replace(r"\*", "[^/]*") + r"(\.msg|\.srv)?$")
    return any(end.search(file) for file in FILES)


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=name_of)
def test_every_named_subcommand_and_option_exists(path):
    known = options()
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    for name, rest in re.findall(r"(?<![\w/-])depthvla ([a-z][a-z-]*)([^\n`|;#)&\"]*)", code_in(text)):
        assert name in {*known, "completion"}, name
        assert set(OPTION.findall(rest)) - {"--help", "--show-args"} <= known.get(name, set()), f"{name} {rest}"
    for rest in re.findall(r"-m depthvla_policy\.train([^\n`|;#)&\"]*)", text):
        assert set(OPTION.findall(rest)) <= known["train"], rest
    anywhere = {*set().union(*known.values()), *OF_OTHERS}
    assert set(re.findall(r"`(--[a-z][\w.-]*\w)", text)) <= anywhere


def code_in(text: str) -> str:
    """What stands in code: fenced, in backticks, a recipe of the Makefile, a container's command as a list."""
    fenced = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    recipes = re.findall(r"^\t.*$", text, re.MULTILINE)
    lists = [re.sub('[",]', "", words) for words in re.findall(r"(?:command:|CMD) \[(.*)\]", text)]
    return "\n".join([*fenced, *re.findall(r"`([^`\n]+)`", text), *recipes, *lists])


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=name_of)
def test_every_node_that_is_run_is_an_executable_of_its_package(path):
    text = re.sub(r"[\[\],]|\n\s*- ", " ", path.read_text())  # a compose file has the words as a list
    for package, executable in re.findall(r"ros2 +run +(\w+) +(\w+)", text):
        if package in test_import_rule.PACKAGES:
            nodes = re.search(r"nodes = \((.*)\)", (SOURCES / package / "setup.py").read_text())
            assert nodes and f'"{executable}"' in nodes[1], f"{package} {executable}"
    for package, file in re.findall(r"ros2 +launch +(\w+) +([\w.]+)", text):
        assert (SOURCES / package / "launch" / file).exists(), f"{package} {file}"


def test_the_drawing_of_the_imports_is_the_truth():
    drawn = re.findall(r"^(\w+) +-> (.+)$", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    packages = test_import_rule.PACKAGES
    assert [name for name, _ in drawn] in ([*reversed(packages)], [*reversed(packages[2:]), packages[1], packages[0]])
    for name, below in drawn:
        tops = set().union(*(test_import_rule.tops(path) for path in test_import_rule.modules(name)))
        assert {*below.split(", ")} - {"nothing"} == tops & set(packages) - {name}, name


def test_the_modules_of_the_architecture_exist():
    text = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", text.split("## From a chunk to a command")[1], re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert len(names) > 8
    assert all(named(f"depthvla_control/depthvla_control/{name}.py") for name in names)
