"""`depthvla report`: see `build`."""

import sys

from depthvla_evaluation.report.build import main

if __name__ == "__main__":
    sys.exit(main())
