import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmlt.cli.recipe_sheet import main

if __name__ == '__main__':
    sys.exit(main())
