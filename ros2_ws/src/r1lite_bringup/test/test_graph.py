from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from depthvla_control.ros import isolation
from depthvla_policy.nodes.policy.inference_loop import chunk_rate_hz
from r1lite_bringup import graph
from r1lite_description import robot, tasks
from r1lite_description.share import share
from r1lite_sim.instructions import STAGED
from r1lite_sim.simulation import Simulation
from r1lite_sim.tasks import option_defaults

EVERYTHING = {"record": "true", "rviz": "true", "viewer": "true"}


@pytest.fixture
def model(real_model: str) -> str:
    return real_model


def nodes(model: str, **arguments: str) -> dict[str, graph.Node]:
    return {node.name: node for node in graph.graph({"model": model, **arguments})}


def test_a_simulation_runs_simulator_executor_and_policy(model):
    assert set(nodes(model)) == {"simulator_node", "chunk_executor_node", "policy_node"}


def test_who_starts_the_nodes_does_not_import_what_they_compute_with():
    code = (
        "import sys; from r1lite_bringup import graph, process_launch; graph.graph({});"
        "print([name for name in ('mujoco', 'torch', 'cv2', 'rclpy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_real_robot_needs_no_simulator(model):
    assert set(nodes(model, robot="real")) == {"chunk_executor_node", "policy_node"}


def test_only_a_simulated_robot_is_armed_without_being_asked(model):
    assert nodes(model, robot="sim")["chunk_executor_node"].parameters["mode_on_activate"] == "POLICY"
    assert nodes(model, robot="real")["chunk_executor_node"].parameters["mode_on_activate"] == "DISARMED"


def test_a_real_robot_has_no_default_checkpoint():
    with pytest.raises(graph.ArgumentError, match="model:='' is not allowed with robot:='real'"):
        graph.graph({"robot": "real"})
    assert graph.resolve({"robot": "sim"})["model"].endswith("r1lite-small")


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"policy": {"made_for": ["simulation"]}}, "made for simulation only"),
        ({"policy": {}}, 'add "made_for": ["real"]'),
        ({}, 'add "made_for": ["real"]'),
        ([], "cannot be read"),
    ],
)
def test_a_real_robot_takes_only_a_checkpoint_that_is_made_for_one(tmp_path, config, why):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(graph.ArgumentError) as error:
        graph.graph({"robot": "real", "model": str(tmp_path)})
    assert str(tmp_path) in str(error.value) and why in str(error.value)
    assert graph.graph({"robot": "sim", "model": str(tmp_path)})


def test_the_checkpoint_that_was_trained_in_simulation_never_gets_a_real_robot():
    with pytest.raises(graph.ArgumentError, match="made for simulation only"):
        graph.graph({"robot": "real", "model": graph.EMBEDDED})


def test_a_scripted_person_is_for_the_simulation_only(model):
    assert "leader_node" in nodes(model, robot="sim", leader="true")
    with pytest.raises(graph.ArgumentError, match="leader:='true' is not allowed with robot:='real'"):
        nodes(model, robot="real", leader="true")


def test_the_policy_may_die_but_not_what_moves_the_arms(model):
    essential = {name for name, node in nodes(model, **EVERYTHING).items() if node.essential}
    assert essential == {"simulator_node", "chunk_executor_node"}


def test_a_recorder_on_request_waits_for_its_service(model):
    assert nodes(model, record="true")["episode_recorder_node"].parameters["record_on_activate"] is True
    assert nodes(model, record="on_request")["episode_recorder_node"].parameters["record_on_activate"] is False


def test_recorder_rviz_and_viewer_are_there_only_when_asked_for(model):
    def added(**arguments):
        return set(nodes(model, **arguments)) - set(nodes(model))

    assert added(record="true") == {"episode_recorder_node"}
    assert added(rviz="true") == {"visualisation_node", "rviz2", "robot_state_publisher"}
    assert added(viewer="true") == {"viewer_node"}


def test_a_robot_publishes_its_own_description_unless_told_otherwise(model):
    own = nodes(model, robot="real", rviz="true", viewer="true")
    assert "robot_state_publisher" not in own
    assert "robot_state_publisher" in nodes(model, robot="real", rviz="true", robot_state_publisher="true")
    for name in ("visualisation_node", "viewer_node"):
        assert own[name].parameters["await_description"] is True
        assert nodes(model, **EVERYTHING)[name].parameters["await_description"] is False
        assert Path(own[name].parameters["urdf_file"]).exists()


def test_what_shows_the_others_hears_them(model):
    running = nodes(model, **EVERYTHING)
    for name in ("visualisation_node", "viewer_node"):
        heard = {target for _, target in running[name].remappings}
        assert all(target.split("/")[1] in running for target in heard) and len(heard) == 4


def test_the_viewer_is_for_this_machine_unless_a_parameter_file_says_otherwise(model):
    viewer = nodes(model, viewer="true", viewer_port="8090")["viewer_node"]
    assert yaml.safe_load(viewer.parameter_file.read_text())["viewer_node"]["ros__parameters"]["host"] == "127.0.0.1"
    assert viewer.parameters["port"] == 8090


def test_arguments_reach_the_nodes(model):
    running = nodes(
        model, instruction="stack: the 'blocks'", device="cuda", depth="false", seed="7", record="true", bag="x"
    )
    policy = running["policy_node"].parameters
    assert policy["instruction"] == "stack: the 'blocks'"
    assert (policy["model"], policy["device"]) == (model, "cuda")
    assert running["simulator_node"].parameters["seed"] == 7
    assert "x" in {Path(str(value)).name for value in running["episode_recorder_node"].parameters.values()}


def test_chunks_are_joined_as_the_parameter_file_says_unless_an_argument_does(model):
    assert "realtime_chunking" not in nodes(model)["policy_node"].parameters
    assert nodes(model, realtime_chunking="trained")["policy_node"].parameters["realtime_chunking"] == "trained"


def test_chunks_are_made_as_often_as_suits_the_device_unless_an_argument_says_how_often(model):
    for device, suits_hz in (("cpu", 3.75), ("cuda", 7.5)):
        policy = nodes(model, device=device)["policy_node"]
        in_file = yaml.safe_load(policy.parameter_file.read_text())["policy_node"]["ros__parameters"]["max_rate_hz"]
        assert "max_rate_hz" not in policy.parameters
        assert chunk_rate_hz(in_file, device) == suits_hz
        assert nodes(model, device=device, max_rate_hz="5")["policy_node"].parameters["max_rate_hz"] == 5.0
    assert chunk_rate_hz(0.0, "cuda:1") == 7.5 and chunk_rate_hz(12.0, "cuda:1") == chunk_rate_hz(12.0, "cpu") == 12.0


def test_a_simulation_has_an_instruction_of_its_own_and_a_robot_has_none(model):
    assert nodes(model)["policy_node"].parameters["instruction"] == tasks.load("lift").instruction
    staged = nodes(model, task="blocks_stacking")
    assert staged["simulator_node"].parameters["task"] == "blocks_stacking"
    told = staged["policy_node"].parameters["instruction"]
    assert told == "stack the green block on the red block and the blue block on the green block"
    assert nodes(model, robot="real")["policy_node"].parameters["instruction"] == ""


def test_what_the_task_names_is_staged_and_told_to_the_policy(model):
    staged = nodes(model, task_options="colour=blue side=left")
    assert staged["simulator_node"].parameters.items() >= {"colour": "blue", "side": "left"}.items()
    assert staged["policy_node"].parameters["instruction"] == "lift the blue block with the left arm"
    staged = nodes(model, task="blocks_stacking", task_options="colours=blue,red,green")
    assert staged["simulator_node"].parameters["colours"] == "blue,red,green"
    told = staged["policy_node"].parameters["instruction"]
    assert told == "stack the red block on the blue block and the green block on the red block"


@pytest.mark.parametrize("task", tasks.names())
def test_the_policy_is_told_what_the_simulator_stages(model, task):
    options = {name: value for name, value in STAGED.items() if name in option_defaults(task)}
    simulation = Simulation(robot.load(), task, task_options=options)
    simulation.reset(3)
    assert nodes(model, task=task)["policy_node"].parameters["instruction"] == simulation.instruction
    simulation.close()


def test_only_one_node_publishes_transforms(model):
    assert nodes(model)["simulator_node"].parameters["publish_transforms"] is True
    running = nodes(model, rviz="true")
    assert running["simulator_node"].parameters["publish_transforms"] is False
    assert "robot_state_publisher" in running
    running = nodes(model, rviz="true", robot_state_publisher="false")
    assert running["simulator_node"].parameters["publish_transforms"] is True
    assert "robot_state_publisher" not in running


def test_robot_description_reaches_robot_state_publisher(model):
    pytest.importorskip("xacro", reason="xacro is not installed")
    assert "<robot" in nodes(model, rviz="true")["robot_state_publisher"].parameters["robot_description"]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("robot", "gazebo", "sim, real"),
        ("device", "tpu", "cpu, cuda"),
        ("depth", "yes", "true, false"),
        ("record", "", "true, false"),
        ("seed", "first", "whole number"),
        ("viewer", "rerun", "true, false"),
        ("max_rate_hz", "0", "0.1 to 100"),
        ("max_rate_hz", "often", "0.1 to 100"),
        ("max_rate_hz", "nan", "0.1 to 100"),
        ("viewer_port", "0", "1 to 65535"),
        ("viewer_port", "http", "1 to 65535"),
        ("robot_state_publisher", "maybe", "auto, true, false"),
        ("model", "no-such-model", "config.json"),
        ("instrution", "stack", "instruction"),
        ("task_options", "blue", "NAME=VALUE"),
        ("task_options", "colour=pink", "red, green, blue, yellow"),
        ("task_options", "colour=random", "cannot be told"),
        ("task_options", "pace=fast", "colour, side, colours"),
        ("network", "lan", "auto, this_machine, shell"),
        ("robot_file", "/no/such/robot.yaml", "does not exist"),
        ("params_dir", "/no/such/folder", "does not exist"),
    ],
)
def test_a_bad_argument_is_named_with_its_value_and_what_is_allowed(model, name, value, allowed):
    with pytest.raises(graph.ArgumentError) as error:
        graph.graph({"model": model, name: value})
    assert name in str(error.value)
    assert value in str(error.value)
    assert allowed in str(error.value)


def test_every_parameter_file_exists_and_speaks_to_its_node_only(model):
    for node in nodes(model, record="true", viewer="true").values():
        content = yaml.safe_load(node.parameter_file.read_text())
        assert set(content) <= {node.name, f"/{node.name}", "/**"}, node.parameter_file
        assert all(set(section) == {"ros__parameters"} for section in content.values()), node.parameter_file


def test_params_dir_replaces_single_files(model, tmp_path):
    replacement = tmp_path / "chunk_executor_node.param.yaml"
    replacement.write_text("/**: {ros__parameters: {}}\n")
    running = nodes(model, params_dir=str(tmp_path))
    assert running["chunk_executor_node"].parameter_file == replacement
    assert running["policy_node"].parameter_file == share("depthvla_policy") / "config" / "policy_node.param.yaml"


ROBOT_SHELL = {
    "ROS_LOCALHOST_ONLY": "0",
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET",
    "ROS_STATIC_PEERS": "10.42.0.180",
    "ROS_DISCOVERY_SERVER": "10.42.0.180:11811",
    "FASTRTPS_DEFAULT_PROFILES_FILE": "/home/robot/super_client.xml",
    "FASTDDS_DEFAULT_PROFILES_FILE": "/home/robot/super_client.xml",
    "RMW_FASTRTPS_USE_QOS_FROM_XML": "1",
    "CYCLONEDDS_URI": "/home/robot/cyclone.xml",
}


def inside(arguments: dict[str, str], shell: dict[str, str]) -> dict[str, str]:
    """The environment of the nodes, started in a shell."""
    variables = dict(shell)
    isolation.apply(graph.environment(arguments, shell), variables)
    return variables


@pytest.mark.parametrize("shell", [{}, *({name: value} for name, value in ROBOT_SHELL.items()), ROBOT_SHELL], ids=str)
@pytest.mark.parametrize("arguments", [{"robot": "sim"}, {}, {"robot": "sim", "network": "this_machine"}], ids=str)
def test_a_simulation_stays_on_this_machine_whatever_its_shell_was_set_up_for(arguments, shell):
    alone = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "SKIP_DEFAULT_XML_FILE": "1"}
    assert inside(arguments, {"HOME": "/root", **shell}) == {"HOME": "/root", **alone}
    humble = {"ROS_DISTRO": "humble"}
    assert inside(arguments, {**humble, **shell}) == {**humble, "ROS_LOCALHOST_ONLY": "1", "SKIP_DEFAULT_XML_FILE": "1"}


@pytest.mark.parametrize("arguments", [{"robot": "real"}, {"robot": "sim", "network": "shell"}], ids=str)
def test_a_robot_and_who_asks_for_it_have_the_network_of_the_shell(arguments):
    assert inside(arguments, ROBOT_SHELL) == ROBOT_SHELL


def test_a_real_robot_may_be_kept_to_this_machine():
    assert inside({"robot": "real", "network": "this_machine"}, ROBOT_SHELL) == inside({"robot": "sim"}, ROBOT_SHELL)


def test_a_simulation_refuses_a_middleware_that_cannot_be_kept_to_this_machine():
    shell = {"RMW_IMPLEMENTATION": "rmw_zenoh_cpp"}
    with pytest.raises(graph.ArgumentError, match="RMW_IMPLEMENTATION=rmw_zenoh_cpp.*network:=shell"):
        graph.environment({}, shell)
    for arguments in ({"network": "shell"}, {"robot": "real"}):
        assert graph.environment(arguments, shell) == {}
