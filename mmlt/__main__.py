"""``python -m mmlt``, the same as the command ``mmlt``."""

import sys

from mmlt.cli import main

if __name__ == '__main__':
    sys.exit(main())
