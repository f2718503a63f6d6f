"""Messages of a bag from their bytes: by the definitions in the bag, else by those that are known here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

IDL_SECTION = "=" * 80 + "\n"


class MessageTypes:
    """missing: types that the bag does not define. foreign: those of them that a standard or installed definition
    is taken for.
    """

    def __init__(self, distribution: str = "") -> None:
        """`distribution`: of ROS, that recorded the bag; it says which standard definitions are taken."""
        self.missing: set[str] = set()
        self.foreign: set[str] = set()
        self._distribution = distribution
        self._standard: Typestore | None = None
        self._defined: dict[str, tuple[str, str]] = {}
        self._stores: dict[str, Typestore | str] = {}

    def add(self, msgtype: str, encoding: str, text: str) -> None:
        """A type, and how the bag defines it: "ros2msg", "ros2idl" or "omgidl"; anything else is no definition."""
        if encoding in ("ros2msg", "ros2idl", "omgidl") and text:
            self._defined.setdefault(msgtype, (encoding, text))
            self.missing.discard(msgtype)
            self.foreign.discard(msgtype)
        elif msgtype not in self._defined and msgtype not in self.missing:
            self.missing.add(msgtype)
            if not isinstance(self._store(msgtype), str):
                self.foreign.add(msgtype)

    def problem(self, msgtype: str) -> str:
        """Why messages of a type cannot be read; empty where they can."""
        store = self._store(msgtype)
        return store if isinstance(store, str) else ""

    def definition(self, msgtype: str) -> tuple[str, str] | None:
        """Text in the .msg language and hash (RIHS01) of a type; None where it cannot be read."""
        store = self._store(msgtype)
        if isinstance(store, str):
            return None
        return store.generate_msgdef(msgtype, ros_version=2)[0], store.hash_rihs01(msgtype)

    def deserialise(self, data: bytes, msgtype: str) -> Any:
        """Raises ValueError where there is no definition, or the bytes are not of the one there is."""
        store = self._store(msgtype)
        if isinstance(store, str):
            raise ValueError(store)
        try:
            return store.deserialize_cdr(data, msgtype)
        except Exception as error:  # the code that is generated for a type has errors of every kind
            where = " of its standard definition: the bag has none" if msgtype in self.missing else ""
            raise ValueError(f"{len(data)} bytes are no {msgtype}{where} ({error})") from error

    def _store(self, msgtype: str) -> Typestore | str:
        """What reads a type, or why nothing does."""
        if msgtype not in self._stores:
            try:
                self._stores[msgtype] = self._make_store(msgtype)
            except Exception as error:  # of parsers, and of the looking up of packages
                self._stores[msgtype] = f"the definition of {msgtype} cannot be read ({error})"
        return self._stores[msgtype]

    def _make_store(self, msgtype: str) -> Typestore | str:
        if msgtype in self._defined:
            store = get_typestore(Stores.EMPTY)
            store.register(_parse(msgtype, *self._defined[msgtype]))
            return store
        if self._standard is None:
            # What the two differ in is small, and its messages are longer or shorter than the other's.
            humble = self._distribution == "humble"
            self._standard = get_typestore(Stores.ROS2_HUMBLE if humble else Stores.ROS2_JAZZY)
        with suppress(LookupError, OSError, ValueError):
            register_type(self._standard, msgtype, installed_definition)
        if msgtype in self._standard.fielddefs:
            return self._standard
        return f"there is no definition of {msgtype or 'its type'}, neither in the bag nor installed"


def register_type(typestore: Typestore, msgtype: str, read_definition: Callable[[str], str]) -> None:
    """Add a message type to a rosbags typestore, with the types it is made of, unless the store has it."""
    if msgtype in typestore.fielddefs:
        return
    types = get_types_from_msg(read_definition(msgtype), msgtype)
    for _, fields in types.values():
        for _, field in fields:
            kind, detail = field
            while kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
                kind, detail = detail[0]
            if kind is Nodetype.NAME and detail not in types:
                register_type(typestore, detail, read_definition)
    typestore.register(types)


def _parse(msgtype: str, encoding: str, text: str) -> dict:
    if encoding == "ros2msg":
        return get_types_from_msg(text, msgtype)
    types: dict = {}
    for part in text.split(IDL_SECTION):
        _, _, idl = part.partition("\n") if part.startswith("IDL: ") else ("", "", part)
        types |= get_types_from_idl(idl) if idl.strip() else {}
    return types


def message_class(msgtype: str) -> type:
    """The class of an installed type, named as a ROS graph or a bag does: "sensor_msgs/msg/Image".

    Raises:
        ImportError: it is not installed.
    """
    package, kind, name = msgtype.split("/")
    module = importlib.import_module(f"{package}.{kind}")
    if not hasattr(module, name):
        raise ImportError(f"package {package} has no type {msgtype}")
    return getattr(module, name)


def installed_definition(msgtype: str) -> str:
    """The .msg text of a type, from the installed packages or else from those in this source tree.

    Raises:
        LookupError, OSError, ValueError: there is none.
    """
    package, _, name = msgtype.split("/")
    folders = [parent / package for parent in Path(__file__).parents]
    with suppress(ImportError, LookupError):
        from ament_index_python.packages import get_package_share_directory

        folders.insert(0, Path(get_package_share_directory(package)))
    paths = [path for folder in folders if (path := folder / "msg" / f"{name}.msg").is_file()]
    if not paths:
        raise LookupError(f"package {package}, where there is one, has no message {name}")
    return paths[0].read_text()
