"""`depthvla`: every package's subcommands behind one command, with their help and completion."""

from __future__ import annotations

import importlib
import os
import subprocess

import pytest

command = pytest.importorskip("r1lite_bringup.command", reason="ROS is not installed")
MODULES = {name: module for commands in command.by_package().values() for name, (module, _) in commands.items()}


def test_every_package_with_commands_brings_them():
    from ros_harness import SOURCES

    assert set(command.by_package()) == {path.parent.name for path in SOURCES.glob("*/*/commands.py")}


def test_every_subcommand_is_in_the_help(capsys):
    assert command.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in MODULES)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_the_help_of_a_subcommand_names_the_command(ros, name, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["depthvla"])
    try:
        assert command.main([name, "--help"]) == 0
    except SystemExit as end:
        assert not end.code
    assert capsys.readouterr().out.startswith(f"usage: depthvla {name} ")


def test_an_unknown_subcommand_is_answered_with_what_may_be_meant(capsys):
    assert command.main(["trian"]) == 2
    assert "no subcommand 'trian'; did you mean train?" in capsys.readouterr().err


def test_a_computer_without_ros_is_told_which_command_needs_it(capsys, monkeypatch):
    def missing(_):
        raise ModuleNotFoundError("No module named 'rclpy'", name="rclpy")

    monkeypatch.setattr(importlib, "import_module", missing)
    monkeypatch.setattr("sys.argv", ["depthvla"])
    assert command.main(["up"]) == 1
    assert "depthvla up needs ROS 2" in capsys.readouterr().err


def test_the_committed_completion_is_up_to_date(ros):
    from r1lite_bringup import completion

    assert command.completion_file().read_text() == completion.text(), "depthvla reference writes it anew"


@pytest.mark.parametrize(
    ("words", "offered"),
    [("depthvla tr", "train"), ("depthvla train --loss.max", "--loss.max-delay"), ("depthvla up rob", "robot:=")],
)
def test_bash_completes(words, offered):
    script = f"""source {command.completion_file()}
      COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); compopt() {{ :; }}
      _depthvla; echo "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    assert offered in done.stdout.split()
