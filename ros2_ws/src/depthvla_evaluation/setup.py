from glob import glob

from setuptools import find_packages, setup

package = "depthvla_evaluation"
nodes = ("episode_recorder_node", "replay_node", "session", "visualisation_node", "viewer_node")

setup(
    name=package,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={f"{package}.report": ["paper/*.yaml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package}"]),
        (f"share/{package}", ["package.xml"]),
        (f"share/{package}/config", glob("config/*.yaml")),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="DepthVLA R1 Lite maintainers",
    maintainer_email="maintainers@depthvla-r1lite.org",
    description="What was recorded and how good it was: bags, sessions, replay, rollouts, reports, viewers.",
    license="Apache-2.0",
    tests_require=["pytest"],
    entry_points={
        "console_scripts": [f"{node} = {package}.nodes.{node}:main" for node in nodes],
        "depthvla.commands": [f"{package} = {package}.commands:COMMANDS"],
    },
)
