"""`python -m depthvla_policy.evaluation.report`: see `build`."""

import sys

from depthvla_policy.evaluation.report.build import main

if __name__ == "__main__":
    sys.exit(main())
