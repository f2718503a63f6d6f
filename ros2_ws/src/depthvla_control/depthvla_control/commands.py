"""The subcommands of `depthvla` that this package brings."""

# name -> module with a `main`, what it does
COMMANDS = {
    "console": (
        "depthvla_control.nodes.operator_node",
        "hand over between teleoperation and policy, and stop, by keys or a joystick",
    ),
}
