from setuptools import find_packages, setup

package = "depthvla_policy"
commands = (
    "policy_node",
    "chunk_executor_node",
    "episode_recorder_node",
    "operator_node",
    "replay_node",
    "session",
    "visualisation_node",
    "viewer_node",
)

setup(
    name=package,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={f"{package}.evaluation.report": ["paper/*.yaml"], f"{package}.serving": ["robots/*.yaml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package}"]),
        (f"share/{package}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="DepthVLA R1 Lite maintainers",
    maintainer_email="maintainers@depthvla-r1lite.org",
    description="The DepthVLA network, its training, and the nodes that run it on a robot",
    license="Apache-2.0",
    tests_require=["pytest"],
    entry_points={"console_scripts": [f"{name} = {package}.nodes.{name}:main" for name in commands]},
)
