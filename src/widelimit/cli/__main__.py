"""``python -m widelimit.cli`` is the command ``widelimit``."""

from widelimit.cli import main

if __name__ == "__main__":
    main()
