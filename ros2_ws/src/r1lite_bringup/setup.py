from glob import glob

from setuptools import find_packages, setup

package = "r1lite_bringup"

setup(
    name=package,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package}"]),
        (f"share/{package}", ["package.xml"]),
        (f"share/{package}/launch", glob("launch/*.launch.py")),
        (f"share/{package}/rviz", glob("rviz/*.rviz")),
        (f"share/{package}/completion", glob("completion/*")),
        ("bin", ["scripts/depthvla"]),  # on PATH, where a console script would be for `ros2 run` only
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="DepthVLA R1 Lite maintainers",
    maintainer_email="maintainers@depthvla-r1lite.org",
    description="Starts DepthVLA on a Galaxea R1 Lite or its simulation: graph, launch files, preflight, demo.",
    license="Apache-2.0",
    tests_require=["pytest"],
    entry_points={
        "depthvla.commands": [f"{package} = {package}.commands:COMMANDS"],
    },
)
