"""``python -m joker`` is the same as ``joker``."""

from joker.cli import main

if __name__ == "__main__":
    main()
