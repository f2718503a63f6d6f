"""Every legal transition from every state of every node, and every other request refused: real processes throughout."""

from __future__ import annotations

import signal

import numpy as np
import pytest

from r1lite_bringup.graph import NODES
from r1lite_description.share import urdf_file

TRANSITIONS = ("configure", "cleanup", "activate", "deactivate", "shutdown")
AFTER = {
    ("unconfigured", "configure"): "inactive",
    ("inactive", "cleanup"): "unconfigured",
    ("inactive", "activate"): "active",
    ("active", "deactivate"): "inactive",
    **{(state, "shutdown"): "finalized" for state in ("unconfigured", "inactive", "active")},
}
# Each ends in `finalized`, which has no way out, so it takes a process for every state that has one there.
WALKS = (
    ("configure", "cleanup", "configure", "activate", "deactivate", "activate", "shutdown"),
    ("configure", "shutdown"),
    ("shutdown",),
)
MODULES = {name: f"{package}.nodes.{name}" for name, package in NODES.items()}
MODULES["policy_node"] = "fixtures.policy_that_breaks"  # the node itself, with a policy that needs no checkpoint


@pytest.fixture(scope="session")
def bag(tmp_path_factory):
    """One message of each stream that a policy needs."""
    from synthetic_bag import SyntheticBag

    path = tmp_path_factory.mktemp("lifecycle") / "bag"
    with SyntheticBag(path) as bag:
        for camera in bag.robot.cameras:
            bag.image(camera.name, 0.0, np.zeros((36, 64, 3), np.uint8))
        for limb in bag.robot.limbs:
            bag.joints(limb.topics.arm_feedback, 0.0, np.zeros(len(limb.joints)))
            bag.joints(limb.topics.gripper_feedback, 0.0, [50.0])
    return path


def parameters(name, bag, folder):
    urdf = {"urdf_file": str(urdf_file())}
    own = {
        "episode_recorder_node": {
            "bag": f"{folder}/bag",
            "min_free_mb": 0,
            "record_on_activate": False,  # active twice within a second, it would record to the same name
        },
        "replay_node": {"bag": str(bag)},
        "visualisation_node": urdf,
        "viewer_node": urdf,
        "simulator_node": {"image_width": 64, "image_height": 36},
    }
    return {"autostart": False, **own.get(name, {})}


class Lifecycle:
    """Asks a node's process for transitions, by clients that stay: the answer to one that is new may be lost."""

    def __init__(self, probe, name):
        from lifecycle_msgs.srv import ChangeState, GetState

        self._probe = probe
        self._get, self._change = (
            probe.node.create_client(kind, f"/{name}/{service}")
            for kind, service in ((GetState, "get_state"), (ChangeState, "change_state"))
        )
        for client in (self._get, self._change):
            probe.wait_for(client.service_is_ready, what=client.srv_name)

    @property
    def state(self):
        return self._call(self._get, self._get.srv_type.Request()).current_state.label

    def ask(self, label="", number=0):
        request = self._change.srv_type.Request()
        request.transition.label, request.transition.id = label, number
        return self._call(self._change, request).success

    def _call(self, client, request):
        future = client.call_async(request)
        self._probe.wait_for(future.done, what=f"an answer of {client.srv_name}")
        return future.result()


@pytest.fixture(scope="module")
def probe(ros):
    """One for all, since a process that joins is found sooner than two that look for each other."""
    with ros.Probe() as probe:
        yield probe


@pytest.mark.parametrize("walk", WALKS, ids="-".join)
@pytest.mark.parametrize("name", MODULES)
def test_legal_transitions_work_others_are_refused_and_the_process_ends_well(ros, probe, tmp_path, bag, name, walk):
    with ros.NodeProcess(MODULES[name], parameters(name, bag, tmp_path)) as node:
        it, state = Lifecycle(probe, name), "unconfigured"
        for label in walk:
            if walk is WALKS[0]:
                for other in TRANSITIONS:
                    assert (state, other) in AFTER or not it.ask(other), f"{other} of a node that is {state}"
            assert it.ask(label), f"{label} of a node that is {state}:\n{node.output()}"
            state = AFTER[state, label]
            assert it.state == state
        assert not any(it.ask(label) for label in (*TRANSITIONS, "fly")) and not it.ask(number=99)
        assert it.state == "finalized"
        assert node.stop(signal.SIGTERM if walk is WALKS[1] else signal.SIGINT) == 0, node.output()
        assert "Traceback" not in node.output()


@pytest.mark.parametrize(
    ("walk", "number"),
    [
        ((), signal.SIGINT),
        (("configure",), signal.SIGTERM),
        (("configure", "activate"), signal.SIGTERM),
        (("configure", "cleanup"), signal.SIGINT),
    ],
)
def test_a_signal_ends_a_node_well_in_every_state(ros, probe, walk, number):
    with ros.NodeProcess("r1lite_sim.nodes.leader_node") as node:
        it = Lifecycle(probe, "leader_node")
        assert it.state == "unconfigured" and all(it.ask(label) for label in walk)
        assert node.stop(number) == 0
        assert "Traceback" not in node.output()
