"""Whatever a file holds in place of what is wanted, the error is one line that names it."""

from __future__ import annotations

import pytest

from r1lite_description import files

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "5e" * 32 + "\nsize 11700000\n"


@pytest.mark.parametrize(
    ("content", "found"),
    [(POINTER, "git lfs pull"), ("", "empty"), ("<!DOCTYPE html><html>", "a web page"), ("\n<html>", "a web page")],
)
def test_what_is_evidently_something_else_is_not_even_read(tmp_path, content, found):
    path = tmp_path / "weights.bin"
    path.write_text(content)
    with (
        pytest.raises(ValueError, match=rf"weights\.bin: .*{found}.*; wanted: weights"),
        files.reading(path, "weights"),
    ):
        raise AssertionError("read")


def test_a_folder_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(ValueError, match="a folder; wanted: settings"):
        files.read_json(tmp_path, "settings")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist; wanted: settings"):
        files.read_yaml(tmp_path / "nowhere", "settings")


def test_what_a_library_raises_becomes_one_line_with_the_files_name(tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(ValueError) as refused, files.reading(tmp_path / "a", "a picture"):
        raise Exception("broken\nand three more lines")  # as tokenizers does
    assert str(refused.value) == f"{tmp_path / 'a'}: Exception: broken; wanted: a picture"


@pytest.mark.parametrize(
    ("read", "content"), [(files.read_json, b"{"), (files.read_yaml, b"a: ["), (files.read_json, b"\xff")]
)
def test_malformed_text_is_named(tmp_path, read, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match="a: .*; wanted: settings") as refused:
        read(tmp_path / "a", "settings")
    assert "\n" not in str(refused.value)


PACKAGE = "lib/python3.11/site-packages/depthvla_policy"


@pytest.mark.parametrize(
    ("module", "models"),
    [
        ("ros2_ws/src/depthvla_policy/depthvla_policy", "models"),
        (f"ros2_ws/install/depthvla_policy/{PACKAGE}", "models"),
        (f"install/depthvla_policy/{PACKAGE}", "src/clone/models"),
    ],
    ids=["source tree", "own workspace", "somebody's workspace"],
)
def test_the_repositorys_models_are_found_from_where_the_package_is(tmp_path, monkeypatch, module, models):
    (tmp_path / models).mkdir(parents=True)
    monkeypatch.setattr(files, "__file__", str(tmp_path / module / "files.py"))
    assert [path for path in files.models_folders() if path.exists()] == [tmp_path / models]
