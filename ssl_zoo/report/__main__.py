"""`python -m ssl_zoo.report <folders...>`: see `tables`."""

import sys

from ssl_zoo.report.tables import main

if __name__ == "__main__":
    sys.exit(main())
