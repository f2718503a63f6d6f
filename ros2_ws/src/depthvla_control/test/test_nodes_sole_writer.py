"""Who else writes to the command topics, told from a graph that changes from look to look."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

TOPICS = ("/arm", "/gripper")
LATE_S = 60.0


class Graph:
    """Publishers by topic: endpoint -> node. Counts how often names were asked for."""

    def __init__(self):
        self.publishers = {topic: {1: "executor"} for topic in TOPICS}
        self.asked = 0

    def get_namespace(self):
        return "/"

    def get_name(self):
        return "executor"

    def count_publishers(self, topic):
        return len(self.publishers[topic])

    def get_publishers_info_by_topic(self, topic):
        self.asked += 1
        return [
            SimpleNamespace(
                node_namespace=name.rpartition("/")[0] or "/",
                node_name=name.rpartition("/")[2],
                endpoint_gid=endpoint if isinstance(endpoint, bytes) else [endpoint],
            )
            for endpoint, name in self.publishers[topic].items()
        ]


@pytest.fixture
def graph():
    return Graph()


@pytest.fixture
def writer(ros, graph):
    from depthvla_control.nodes.executor.sole_writer import SoleWriter

    writer = SoleWriter(graph, TOPICS, ["/tracker"])
    assert writer.rival(0.0) is None
    return writer


def unknown():
    from depthvla_control.nodes.executor.sole_writer import UNKNOWN

    return UNKNOWN


def test_a_rival_is_seen_at_the_next_look_whatever_its_topic(writer, graph):
    for topic in TOPICS:
        assert writer.look(0.0) is None
        graph.publishers[topic][2] = "teleop"
        found = writer.look(0.0)
        assert found.rival and found.text.startswith(f"/teleop publishes to {topic} too")
        del graph.publishers[topic][2]


def test_an_unknown_publisher_is_no_rival_before_two_seconds_and_none_at_all_once_it_is_an_allowed_one(writer, graph):
    graph.publishers["/gripper"][2] = unknown()
    found = writer.look(1.0)
    assert not found.rival and "not known yet publishes to /gripper" in found.text
    assert not writer.look(2.9).rival
    assert writer.look(3.1).rival
    graph.publishers["/gripper"][2] = "tracker"
    assert writer.look(3.2) is None


def test_a_rival_counts_before_an_unknown_publisher(writer, graph):
    graph.publishers["/arm"][2] = unknown()
    graph.publishers["/gripper"][3] = "teleop"
    assert "/teleop publishes" in writer.look(0.0).text


def test_an_unknown_publisher_that_goes_away_is_a_rival_once(writer, graph):
    graph.publishers["/arm"][2] = unknown()
    assert not writer.look(0.0).rival
    del graph.publishers["/arm"][2]
    found = writer.look(0.1)
    assert found.rival and "left before it was known" in found.text
    assert writer.look(0.2) is None


def test_of_a_publisher_that_leaves_the_name_stays_known(writer, graph):
    graph.publishers["/arm"][2] = "tracker"
    assert writer.look(0.0) is None
    graph.publishers["/arm"] = {1: "executor", 2: unknown(), 3: "tracker"}
    assert writer.look(0.1) is None


def test_what_was_not_known_at_an_earlier_time_does_not_matter_when_looking_begins_anew(writer, graph):
    graph.publishers["/arm"][2] = unknown()
    assert not writer.look(0.0).rival
    del graph.publishers["/arm"][2]
    assert writer.rival(LATE_S) is None
    graph.publishers["/arm"][2] = unknown()
    assert "not known yet" in writer.rival(LATE_S)


def test_a_node_of_the_same_name_is_a_rival(writer, graph):
    graph.publishers["/arm"][2] = "executor"
    assert writer.look(0.0).rival


def test_a_rival_that_takes_the_place_of_an_allowed_publisher_is_found_although_the_number_stays(writer, graph):
    graph.publishers["/arm"][2] = "tracker"
    assert writer.look(0.0) is None
    graph.publishers["/arm"] = {1: "executor", 3: "teleop"}
    found = [writer.look(0.3 * number) for number in range(1, len(TOPICS) + 1)]
    assert any(stranger and stranger.rival for stranger in found)


def test_as_long_as_nothing_changes_names_are_rarely_asked_for(writer, graph):
    assert writer.look(0.0) is None
    before = graph.asked
    for tick in range(1, 16):
        assert writer.look(tick / 15) is None
    assert graph.asked - before <= 4


def test_whoever_publishes_alone_is_no_stranger_where_nobody_is_named(ros, graph):
    from depthvla_control.nodes.executor.sole_writer import SoleWriter

    writer = SoleWriter(graph, TOPICS, writer="")
    assert writer.rival(0.0) is None
    graph.publishers["/arm"] = {7: unknown()}
    assert "not known yet" in writer.rival(0.1)
    graph.publishers["/arm"] = {7: "simulator", 8: unknown()}
    assert not writer.look(0.2).rival
    graph.publishers["/arm"] = {7: "simulator", 8: "robot_driver"}
    assert writer.look(0.3).rival
    assert "publishes to /arm too" in writer.rival(0.4)


def test_of_two_nodes_with_the_name_of_the_writer_one_is_a_rival(ros, graph):
    from depthvla_control.nodes.executor.sole_writer import SoleWriter

    writer = SoleWriter(graph, TOPICS, writer="/simulator")
    graph.publishers = {topic: {1: "simulator"} for topic in TOPICS}
    assert writer.rival(0.0) is None
    graph.publishers["/gripper"][2] = "simulator"
    assert "/simulator publishes to /gripper too" in writer.rival(0.1)


# Where a publisher is

HERE, THERE = b"\x01\x0f\xaa\x01", b"\x01\x0f\xbb\x02"


def writer_on(graph, *allowed, own=HERE + b"own"):
    from depthvla_control.nodes.executor.sole_writer import SoleWriter

    graph.publishers = {topic: {own: "executor"} for topic in TOPICS}
    return SoleWriter(graph, TOPICS, allowed)


@pytest.mark.parametrize(
    ("allowed", "publisher", "text"),
    [
        ("/robot/tracker", "/robot/tracker", None),
        ("/tracker", "/robot/tracker", "as /robot/tracker@bb02"),
        ("/robot/tracker@bb02", "/robot/tracker", None),
        ("/robot/tracker@here", "/robot/tracker", "as /robot/tracker@bb02"),
        ("/robot/tracker@aa01", "/robot/tracker", "as /robot/tracker@bb02"),
    ],
)
def test_an_allowed_publisher_is_its_full_name_and_the_host_that_was_named(ros, graph, allowed, publisher, text):
    writer = writer_on(graph, allowed)
    graph.publishers["/arm"][THERE + b"it"] = publisher
    found = writer.rival(0.0)
    assert found is None if text is None else found.endswith(text)


def test_here_is_the_host_of_this_node(ros, graph):
    writer = writer_on(graph, "/tracker@here")
    graph.publishers["/arm"][HERE + b"it"] = "tracker"
    assert writer.rival(0.0) is None


def test_where_the_middleware_tells_no_host_an_entry_with_one_allows_nobody(ros, graph):
    writer = writer_on(graph, "/tracker@here", own=b"\x01\x10own")
    graph.publishers["/arm"][b"\x01\x10it"] = "tracker"
    assert writer.rival(0.0).startswith("/tracker publishes")


@pytest.mark.parametrize("entry", ["tracker", "/", "/tracker/", "/tracker@", "/tracker@there", "/a b", "~/tracker"])
def test_an_entry_that_is_no_full_name_is_refused(ros, graph, entry):
    with pytest.raises(ValueError, match="allowed_publishers has .*; allowed: a node's full name"):
        writer_on(graph, entry)
