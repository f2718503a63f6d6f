"""The subcommands of `depthvla` that this package brings."""

# name -> module with a `main`, what it does
COMMANDS = {
    "collect": ("r1lite_sim.collect", "record demonstrations of a task's scripted expert in simulation"),
    "experts": ("r1lite_sim.experts.__main__", "how well the scripted experts do"),
}
