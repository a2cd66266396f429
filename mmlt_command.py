"""The command ``mmlt``, which reads its command line before anything is imported that takes long.

Whatever is imported of a package, Python runs the package's ``__init__`` first, and that of ``mmlt`` imports torch and
MMPretrain to register everything. So this module stands beside the package and enters it without its ``__init__``; a
verb has that made up for once its command line is read (``mmlt.cli.common.load_package``). Help and mistakes come at
once. Everybody else who imports ``mmlt`` is not affected.
"""

from __future__ import annotations

import importlib.util
import sys


def main() -> int | None:
    """Run the verb on the command line.

    Returns:
        int | None: The exit code.
    """
    if 'mmlt' not in sys.modules and (spec := importlib.util.find_spec('mmlt')) is not None:
        sys.modules['mmlt'] = importlib.util.module_from_spec(spec)
    from mmlt import cli

    return cli.main()


if __name__ == '__main__':
    sys.exit(main())
