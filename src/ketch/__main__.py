"""`python -m ketch` is `ketch`."""

from ketch.cli import main

if __name__ == "__main__":
    main()
