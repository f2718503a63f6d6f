"""Containers and workflows, as far as they can be tried here: what they copy, install and run, and how they talk."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from xml.etree import ElementTree

import dependency_table
import docker_files
import pytest
import yaml
from docker_files import COMPOSE_FILES, DOCKER, DOCKERFILES, ROOT

from r1lite_description.share import robot_file

PACKAGES = sorted((ROOT / "ros2_ws" / "src").glob("*/package.xml"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
ENTRYPOINT = str(DOCKER / "entrypoint.sh")
ENVIRONMENT = {"ROS_DOMAIN_ID": "2", "MODELS": "/checkpoints", "MODEL": "mine", "INSTRUCTION": "stack the blocks"}

# rosdep's index cannot be fetched where the tests run. These are the keys that our package.xml files may use, by what
# gives them in an image. REP 2001 says what ros_base is.
ROS_BASE = {
    *("ament_cmake", "ament_index_python", "launch", "launch_ros", "rclpy", "ros2launch", "robot_state_publisher"),
    *("python3-catkin-pkg-modules", "rosidl_default_generators", "rosidl_default_runtime"),
    *("builtin_interfaces", "diagnostic_msgs", "geometry_msgs", "lifecycle_msgs", "rcl_interfaces", "rosgraph_msgs"),
    *("sensor_msgs", "sensor_msgs_py", "std_msgs", "std_srvs", "tf2_msgs", "trajectory_msgs", "visualization_msgs"),
}
RVIZ = {"rviz2", "rviz_2d_overlay_plugins"}  # shown on the CPU image only
BUILD = {
    *("cmake", "g++", "libegl1", "libgl1", "libgl1-mesa-dri", "make", "python3-colcon-common-extensions"),
    *("python3.12-dev", "python3.12-venv"),
}


def dependencies() -> set[str]:
    own = {path.parent.name for path in PACKAGES}
    elements = [item for path in PACKAGES for item in ElementTree.parse(path).getroot()]
    return {item.text for item in elements if item.tag.endswith("depend")} - own


def apt_name(key: str) -> str:
    return key if key.startswith("python3-") else f"ros-jazzy-{key.replace('_', '-')}"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_every_copied_path_exists_and_is_not_ignored(path):
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    kept = [line.removeprefix("!") for line in ignore if line.startswith("!")]
    for text in docker_files.texts(path, "COPY"):
        for source in [word for word in text.split() if not word.startswith("--")][:-1]:
            assert (ROOT / source).exists(), source
            ways = [source, *map(str, Path(source).parents)]
            assert any(Path(way).match(pattern) for way in ways for pattern in kept), f"{source} is ignored"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_every_dependency_of_a_package_comes_into_the_image(path):
    names = ("requirements.txt", "requirements-robot.txt", "requirements-dev.txt")
    pinned = dependency_table.pinned(*(ROOT / name for name in names))
    by_pip = {key for key, requirement in dependency_table.LIBRARIES.values() if requirement in pinned}
    installed = docker_files.apt_packages(path)
    missing = {key for key in dependencies() - ROS_BASE - by_pip if apt_name(key) not in installed}
    assert missing == (set() if path.stem == "cpu" else RVIZ)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_every_debian_package_is_needed_and_named_as_its_key(path):
    assert docker_files.apt_packages(path) <= BUILD | set(map(apt_name, dependencies()))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_is_pinned_and_not_root(path):
    (image,) = [text for text in docker_files.texts(path, "ARG") if text.startswith("ROS_IMAGE=")]
    assert ":" in image and not image.endswith(":latest")
    assert docker_files.texts(path, "USER") == ["${USER_UID}:${USER_GID}"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_the_user_gets_the_ids_that_were_asked_for(path, tmp_path):
    """The command with the programs that change the system replaced: each writes down how it was called."""
    for name in ("id", "userdel", "groupadd", "useradd", "install"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/calls\n')
        (tmp_path / name).chmod(0o755)
    (command,) = [text for text in docker_files.texts(path, "RUN") if "useradd" in text]
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "USER_UID": "1234", "USER_GID": "56"}
    subprocess.run(["bash", "-euo", "pipefail", "-c", command], env=variables, check=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[:3] == ["id ubuntu", "userdel --remove ubuntu", "groupadd --non-unique --gid 56 depthvla"]
    assert calls[3].startswith("useradd --non-unique --uid 1234 --gid 56 ")


def test_the_cpu_image_installs_everything_but_the_network(tmp_path):
    (command,) = [text for text in docker_files.texts(DOCKER / "cpu.Dockerfile", "RUN") if text.startswith("sed")]
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    subprocess.run(["bash", "-c", command.partition("&&")[0]], cwd=tmp_path, check=True)
    before, after = (set((path / "requirements.txt").read_text().splitlines()) for path in (ROOT, tmp_path))
    assert {line.partition("==")[0] for line in before - after} == {"torch", "transformers", "accelerate"}


def test_what_the_cpu_image_is_for_imports_without_the_network(ros):
    modules = [
        *(f"depthvla_control.nodes.{name}" for name in ("chunk_executor_node", "operator_node")),
        *(f"depthvla_evaluation.nodes.{name}" for name in ("episode_recorder_node", "session", "viewer_node")),
        "depthvla_evaluation.nodes.visualisation_node",
        *("r1lite_bringup.preflight.__main__", "depthvla_evaluation.viewer.__main__"),
    ]
    code = f"import sys, importlib; [importlib.import_module(name) for name in {modules}]"
    code += "; sys.exit([name for name in ('torch', 'transformers', 'accelerate') if name in sys.modules] or 0)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_every_command_of_a_build_is_bash_and_every_script_of_ours_is_there(path):
    for command in docker_files.texts(path, "RUN"):
        subprocess.run(["bash", "-n", "-c", command], check=True)
    for name in ("tools/setup.sh", "docker/entrypoint.sh"):
        assert os.access(ROOT / name, os.X_OK)
    (entrypoint,) = docker_files.texts(path, "ENTRYPOINT")
    (folder,) = docker_files.texts(path, "WORKDIR")
    assert (ROOT / Path(json.loads(entrypoint)[0]).relative_to(folder)).samefile(ENTRYPOINT)


@pytest.mark.parametrize("program", ["actionlint", "hadolint", "shellcheck"])
def test_linters_find_nothing(program):
    found = shutil.which(program, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if not found:
        pytest.skip(f"{program} is not installed")
    arguments = {
        "actionlint": [*map(str, WORKFLOWS)],
        "hadolint": ["-c", "docker/hadolint.yaml", *map(str, DOCKERFILES)],
        "shellcheck": ["--external-sources", ENTRYPOINT],
    }
    subprocess.run([found, *arguments[program]], cwd=ROOT, check=True)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_commands_of_a_workflow_are_clean_and_its_actions_pinned(path):
    """As far as it goes without actionlint, whose wheel fetches a program that only some networks reach."""
    shellcheck = shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    for job in yaml.safe_load(path.read_text())["jobs"].values():
        for step in job["steps"]:
            assert re.fullmatch(r"[\w/-]+@v\d+", step.get("uses", "none@v0"))
            if shellcheck and "run" in step:
                words = [shellcheck, "--shell", "bash", "--exclude", "SC1091", "-"]
                subprocess.run(words, input=step["run"], text=True, check=True)


def test_the_entrypoint_gives_a_command_the_workspace_and_its_exit_code(ros):
    assert subprocess.run(["bash", ENTRYPOINT, "true"], cwd="/").returncode == 0
    assert subprocess.run(["bash", ENTRYPOINT, "sh", "-c", "exit 7"]).returncode == 7
    code = "import depthvla_msgs.msg, r1lite_bringup.graph"
    subprocess.run(["bash", ENTRYPOINT, "python", "-c", code], cwd="/", check=True)


def test_a_profile_left_empty_is_as_if_it_were_not_set(ros):
    for given, seen in (("", "unset"), ("/some.xml", "/some.xml")):
        environment = {**os.environ, "FASTRTPS_DEFAULT_PROFILES_FILE": given}
        words = ["bash", ENTRYPOINT, "sh", "-c", "echo ${FASTRTPS_DEFAULT_PROFILES_FILE-unset}"]
        assert subprocess.run(words, env=environment, capture_output=True, text=True).stdout.strip() == seen


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.stem)
def test_a_service_shares_network_and_memory_with_its_host_and_says_its_domain(path):
    for name, service in docker_files.services(path, ENVIRONMENT).items():
        assert service["network_mode"] == service["ipc"] == "host", name
        assert service["environment"]["ROS_DOMAIN_ID"] == 2
        build = service["build"]
        assert (DOCKER / build["context"]).resolve() == ROOT
        arguments = docker_files.texts(ROOT / build["dockerfile"], "ARG")
        assert set(build["args"]) <= {text.partition("=")[0] for text in arguments}


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.stem)
def test_a_service_is_stopped_in_order_and_has_the_time_for_it(path):
    from r1lite_bringup import process_launch

    for name, service in docker_files.services(path, ENVIRONMENT).items():
        assert service["stop_signal"] == "SIGINT", name
        assert float(service["stop_grace_period"].removesuffix("s")) > sum(
            limit_s for _, limit_s in process_launch.STOP_LIMITS_S
        )


def test_a_robot_needs_its_domain_and_a_checkpoint():
    for missing in ENVIRONMENT:
        given = {name: value for name, value in ENVIRONMENT.items() if name != missing}
        with pytest.raises(ValueError, match=missing):
            docker_files.services(DOCKER / "compose.policy-host.yaml", given)


@pytest.mark.parametrize(
    "file, name, nodes", [("policy-host", "graph", "real"), ("simulation", "simulation", "sim")], ids=["robot", "sim"]
)
def test_the_graph_is_started_with_arguments_that_it_has_and_asked_about_nodes_of_it(file, name, nodes, real_model):
    from r1lite_bringup import graph, process_launch

    service = docker_files.services(DOCKER / f"compose.{file}.yaml", ENVIRONMENT)[name]
    assert service["command"][:4] == ["ros2", "launch", graph.PACKAGE, "depthvla.launch.py"]
    arguments = graph.checked(process_launch.parse(service["command"][4:]), graph.ARGUMENTS)
    assert arguments["robot"] == nodes
    started = {node.name for node in graph.graph({"robot": nodes, "model": real_model})}
    script, *asked = service["healthcheck"]["test"][3:]
    assert (ROOT / script).exists() and set(asked) == started


def test_the_visualisation_is_started_as_the_graph_starts_it(real_model):
    from r1lite_bringup import graph, process_launch

    words = docker_files.services(DOCKER / "compose.policy-host.yaml", ENVIRONMENT)["visualisation"]["command"]
    nodes = graph.graph({"robot": "real", "rviz": "true", "model": real_model})
    (node,) = [item for item in nodes if item.name == "visualisation_node"]
    expected = process_launch.command(node)[1:]
    paths = [word.replace("/workspace/", f"{ROOT}/") for word in words[4:]]
    # It names itself, and finds the installed robot description by itself.
    left_out = {"__node:=visualisation_node", f'robot_file:="{robot_file()}"'}
    assert sorted(paths) == sorted(_without(expected, left_out))


def _without(words: list[str], values: set[str]) -> list[str]:
    """Words of a command line without these values and the -p or -r before each."""
    kept = []
    for word in words:
        kept = kept[:-1] if word in values else [*kept, word]
    return kept


TALK = """
import sys, time, rclpy
from std_msgs.msg import String
rclpy.init()
node = rclpy.create_node(sys.argv[1])
end_s, heard = time.monotonic() + float(sys.argv[2]), []
if sys.argv[1] == "talker":
    publisher = node.create_publisher(String, "/word", 1)
if sys.argv[1] == "listener":
    node.create_subscription(String, "/word", heard.append, 1)
while time.monotonic() < end_s and not heard:
    if sys.argv[1] == "talker":
        publisher.publish(String(data="word"))
    rclpy.spin_once(node, timeout_sec=0.05)
memory = "/dev/shm/fastrtps" in open("/proc/self/maps").read()
print("heard" if heard else "nothing", "over shared memory" if memory else "without shared memory")
"""
SERVER = """<dds xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles"><profiles>
<participant profile_name="server" is_default_profile="true"><rtps><prefix>44.53.00.5f.45.50.52.4f.53.49.4d.41</prefix>
<builtin><discovery_config><discoveryProtocol>SERVER</discoveryProtocol></discovery_config>
<metatrafficUnicastLocatorList><locator><udpv4><address>127.0.0.1</address><port>PORT</port></udpv4></locator>
</metatrafficUnicastLocatorList></builtin></rtps></participant></profiles></dds>"""


class Talk:
    """Tiny nodes as processes, with Fast DDS profiles and nothing else decided about discovery."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, role: str, profile: Path | None, seconds: float) -> subprocess.Popen:
        decided = ("ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY", "FASTDDS_BUILTIN_TRANSPORTS")
        environment = {name: value for name, value in os.environ.items() if name not in decided}
        if profile:
            environment["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(profile)
        words = [sys.executable, "-c", TALK, role, str(seconds)]
        process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def listen(self, profile: Path | None, seconds: float) -> str:
        """What a listener says that runs beside a talker."""
        self.start("talker", profile, 60.0)
        listener = self.start("listener", profile, seconds)
        return listener.communicate()[0].strip()


def test_the_udp_profile_is_accepted_and_uses_no_shared_memory(ros):
    with Talk() as talk:
        assert talk.listen(DOCKER / "fastdds" / "udp_large_buffers.xml", 20.0) == "heard without shared memory"
        assert talk.start("listener", None, 20.0).communicate()[0].strip().endswith("over shared memory")


def test_a_super_client_hears_through_a_discovery_server_and_only_through_it(ros, tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    template = (DOCKER / "fastdds" / "discovery_super_client.xml").read_text()
    assert template.count("<address>10.42.0.180</address>") == template.count("<port>11811</port>") == 1
    client, server = tmp_path / "client.xml", tmp_path / "server.xml"
    client.write_text(template.replace("10.42.0.180", "127.0.0.1").replace("11811", port))
    server.write_text(SERVER.replace("PORT", port))
    with Talk() as talk:
        assert talk.listen(client, 2.0).startswith("nothing")
        talk.start("server", server, 60.0)
        assert talk.listen(client, 20.0) == "heard without shared memory"


HEALTHCHECK = [sys.executable, str(DOCKER / "healthcheck.py")]


def test_a_node_is_well_when_it_is_active_and_unwell_when_it_is_not_or_is_silent(ros):
    module = "depthvla_control.nodes.operator_node"
    with (
        ros.NodeProcess(module, {"autostart": True}, remappings={"__node": "active"}),
        ros.NodeProcess(module, {"autostart": False}, remappings={"__node": "inactive"}),
    ):
        asked = ("active", "inactive", "silent")
        unwell = subprocess.Popen(
            [*HEALTHCHECK, *asked, "--timeout-s", "5"], stdout=subprocess.PIPE, text=True, stderr=subprocess.STDOUT
        )
        well = subprocess.run([*HEALTHCHECK, "active"], capture_output=True, text=True)
        assert (well.returncode, well.stdout) == (0, "active: well\n"), well.stderr
        said = "active: well\ninactive: not active: unconfigured\nsilent: not heard\n"
        assert (unwell.communicate()[0], unwell.returncode) == (said, 1)


def test_a_check_of_no_node_fails():
    assert subprocess.run(HEALTHCHECK, capture_output=True).returncode == 1
