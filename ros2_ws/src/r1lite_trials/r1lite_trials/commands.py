"""The subcommands of `depthvla` that this package brings."""

# name -> module with a `main`, what it does
COMMANDS = {
    "faults": ("r1lite_trials.faults", "break every part of the running graph and measure what the arms do"),
    "soak": ("r1lite_trials.soak", "rate, punctuality and memory of the graph over a long time"),
    "latency": ("r1lite_trials.latency", "times of the policy and the executor while all nodes run"),
    "handover": ("r1lite_trials.handover", "hand over from teleoperation to the policy and back, again and again"),
    "network": ("r1lite_trials.network", "robot and policy host on a bad network"),
    "network-fragments": ("r1lite_trials.network_fragments", "images over a lossy cable"),
    "recorder-load": ("r1lite_trials.recorder_load", "what the recorder loses at full load and when it is killed"),
    "chunk-boundaries": ("r1lite_trials.chunk_boundaries", "how smoothly chunks are joined"),
    "depth-comparison": (
        "r1lite_trials.depth_comparison",
        "does a depth expert help? the paper's question in miniature",
    ),
}
