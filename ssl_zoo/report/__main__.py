"""`python -m ssl_zoo.report <folders...>`: see `tables`."""

from ssl_zoo.report.tables import main

if __name__ == "__main__":
    main()
