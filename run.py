"""`python run.py method=... data=... backbone=...`: see README.md; the code is ssl_zoo/run.py."""

from ssl_zoo.run import main

if __name__ == "__main__":
    main()
