"""``python -m collapse_audit``, for where the script is not on the path."""

import sys

from collapse_audit.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
