"""`python -m ssl_zoo.report <folders...>`: see `report`."""

import sys

from ssl_zoo.report.report import main

if __name__ == "__main__":
    sys.exit(main())
