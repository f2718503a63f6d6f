from glob import glob

from setuptools import find_packages, setup

package = "r1lite_description"

setup(
    name=package,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package}"]),
        (f"share/{package}", ["package.xml"]),
        (f"share/{package}/config", glob("config/*.yaml")),
        (f"share/{package}/tasks", glob("tasks/*.yaml")),
        (f"share/{package}/urdf", glob("urdf/*")),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="DepthVLA R1 Lite maintainers",
    maintainer_email="maintainers@depthvla-r1lite.org",
    description="The Galaxea R1 Lite as data (limits, topics, URDF, tasks) and the plain Python that reads it.",
    license="Apache-2.0",
    tests_require=["pytest"],
)
