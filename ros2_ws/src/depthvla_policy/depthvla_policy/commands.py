"""The subcommands of `depthvla` that this package brings."""

# name -> module with a `main`, what it does
COMMANDS = {
    "train": ("depthvla_policy.train", "train a network in one of the paper's stages"),
    "convert": ("depthvla_policy.convert", "build a checkpoint from published weights"),
    "statistics": ("depthvla_policy.data.statistics", "normalisation statistics of demonstrations"),
    "serve": ("depthvla_policy.serve", "serve a policy to openpi's websocket clients"),
    "bench": ("depthvla_policy.bench.__main__", "speed, memory and precision of a checkpoint on this machine"),
    "bench-training": ("depthvla_policy.bench.training", "how fast a network trains on this machine"),
    "bench-decoding": ("depthvla_policy.bench.decode", "how fast demonstrations are decoded on one core"),
}
