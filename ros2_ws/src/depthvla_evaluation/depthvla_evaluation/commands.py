"""The subcommands of `depthvla` that this package brings."""

# name -> module with a `main`, what it does
COMMANDS = {
    "session": ("depthvla_evaluation.nodes.session", "record scored episodes of a task, one after another"),
    "report": ("depthvla_evaluation.report.__main__", "pages, figures and videos of recorded episodes or evaluations"),
    "view": ("depthvla_evaluation.viewer.__main__", "show a recording in a browser"),
    "recover": ("depthvla_evaluation.bags.recover", "make a bag readable again after a crash"),
    "from-bags": ("depthvla_evaluation.dataset.from_bags", "turn recorded episodes into demonstrations to train with"),
}
