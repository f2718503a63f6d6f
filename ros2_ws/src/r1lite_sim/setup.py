from glob import glob

from setuptools import find_packages, setup

package = "r1lite_sim"
nodes = ("simulator_node", "leader_node")

setup(
    name=package,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package}"]),
        (f"share/{package}", ["package.xml"]),
        (f"share/{package}/config", glob("config/*.yaml")),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="DepthVLA R1 Lite maintainers",
    maintainer_email="maintainers@depthvla-r1lite.org",
    description="A MuJoCo Galaxea R1 Lite that speaks the robot's topics; environments and scripted experts.",
    license="Apache-2.0",
    tests_require=["pytest"],
    entry_points={
        "console_scripts": [f"{node} = {package}.nodes.{node}:main" for node in nodes],
        "depthvla.commands": [f"{package} = {package}.commands:COMMANDS"],
    },
)
