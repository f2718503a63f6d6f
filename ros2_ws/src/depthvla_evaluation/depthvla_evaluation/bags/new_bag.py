"""A new rosbag2 folder: one MCAP file, named and described as rosbag2's own recorder does.

Own code beside rosbags' writer, which cannot hand an unfinished chunk to the file and needs every type defined.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from mcap.writer import IndexType, Writer
from rosbags.interfaces import Qos
from rosbags.rosbag2.metadata import dump_qos_v9

from depthvla_evaluation.bags.mcap_file import NEVER_NS
from depthvla_evaluation.bags.storage import METADATA
from r1lite_description import files

VERSION = 9  # of metadata.yaml, which says quality of service in words
LIBRARY = "depthvla"


@dataclass
class _Topic:
    name: str
    type: str
    hash: str
    qos: list
    count: int = 0


class NewBag:
    """Until it is closed, the folder has no metadata.yaml. Not thread-safe.

    Raises:
        FileExistsError: there is something at `path` already.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True)
        self.path = path
        self._name = f"{path.name}_0.mcap"
        self._file = (path / self._name).open("xb")
        fcntl.flock(self._file, fcntl.LOCK_EX)  # which ends with the process: `recover` must not take a bag in progress
        self._writer = Writer(self._file, index_types=IndexType.CHUNK | IndexType.MESSAGE | IndexType.METADATA)
        self._writer.start(profile="ros2", library=LIBRARY)
        self._schemas: dict[tuple[str, str, str], int] = {}
        self._topics: dict[int, _Topic] = {}
        self._start_ns, self._end_ns = NEVER_NS, 0

    def add_topic(
        self, topic: str, msgtype: str, *, encoding: str, definition: str, hash_: str = "", qos: Sequence[Qos] = ()
    ) -> int:
        """The number to write its messages with. encoding, definition, hash_: of the type; empty where nobody knows."""
        schema = (msgtype, encoding, definition)
        if schema not in self._schemas:
            self._schemas[schema] = self._writer.register_schema(msgtype, encoding, definition.encode())
        profiles = dump_qos_v9(list(qos))
        metadata = {"offered_qos_profiles": yaml.safe_dump(profiles), "topic_type_hash": hash_}
        number = self._writer.register_channel(topic, "cdr", self._schemas[schema], metadata)
        self._topics[number] = _Topic(topic, msgtype, hash_, profiles)
        return number

    def write(self, topic: int, time_ns: int, data: bytes | memoryview) -> None:
        self._writer.add_message(topic, time_ns, data, publish_time=time_ns)
        self._topics[topic].count += 1
        self._start_ns, self._end_ns = min(self._start_ns, time_ns), max(self._end_ns, time_ns)

    def flush(self) -> None:
        """Hand to the file what was written so far."""
        self._writer.flush()

    def close(self, custom_data: Mapping[str, str]) -> None:
        """Write the index, and metadata.yaml with `custom_data`."""
        metadata = self._metadata(dict(custom_data))
        self._writer.add_metadata("rosbag2", {"serialized_metadata": yaml.safe_dump(metadata, allow_unicode=True)})
        self._writer.finish()
        files.to_disk(self._file)
        self._file.close()
        temporary = self.path / f"{METADATA}.tmp"
        temporary.write_text(yaml.safe_dump({"rosbag2_bagfile_information": metadata}, allow_unicode=True))
        files.put(temporary, self.path / METADATA)

    def abort(self) -> None:
        """Close the file as it is."""
        self._file.close()

    def _metadata(self, custom_data: dict[str, str]) -> dict:
        count = sum(topic.count for topic in self._topics.values())
        start = {"nanoseconds_since_epoch": self._start_ns}
        duration = {"nanoseconds": max(0, self._end_ns - self._start_ns) if count else 0}
        topics = [
            {
                "topic_metadata": {
                    "name": topic.name,
                    "type": topic.type,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": topic.qos,
                    "type_description_hash": topic.hash,
                },
                "message_count": topic.count,
            }
            for topic in self._topics.values()
        ]
        return {
            "version": VERSION,
            "storage_identifier": "mcap",
            "duration": duration,
            "starting_time": start,
            "message_count": count,
            "topics_with_message_count": topics,
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": [self._name],
            "files": [{"path": self._name, "starting_time": start, "duration": duration, "message_count": count}],
            "custom_data": custom_data or None,
            "ros_distro": os.environ.get("ROS_DISTRO", ""),
        }
