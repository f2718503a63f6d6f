from setuptools import find_packages, setup

package = "r1lite_trials"

setup(
    name=package,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package}"]),
        (f"share/{package}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="DepthVLA R1 Lite maintainers",
    maintainer_email="maintainers@depthvla-r1lite.org",
    description="How the figures in docs/ are made: faults, endurance, latency, hand-over, bad networks.",
    license="Apache-2.0",
    tests_require=["pytest"],
    entry_points={
        "depthvla.commands": [f"{package} = {package}.commands:COMMANDS"],
    },
)
