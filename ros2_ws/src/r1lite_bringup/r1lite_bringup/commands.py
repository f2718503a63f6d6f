"""The subcommands of `depthvla` that this package brings."""

# name -> module with a `main`, what it does
COMMANDS = {
    "demo": ("r1lite_bringup.demo", "the whole loop against a simulated robot, with a report"),
    "up": ("r1lite_bringup.process_launch", "start the node graph, where there is no ros2 launch"),
    "preflight": (
        "r1lite_bringup.preflight.__main__",
        "check robot, network, cameras and policy before anything moves",
    ),
    "evaluate": ("r1lite_bringup.evaluate", "evaluate a policy in closed loop on simulated tasks"),
    "replay": ("r1lite_bringup.replay", "let a policy answer a recording, and compare"),
    "reference": ("r1lite_bringup.reference", "write docs/reference.md from the code"),
}
