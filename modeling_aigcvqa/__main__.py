"""Makes `python -m modeling_aigcvqa` the same as the command `aigcvqa`."""

import sys

from modeling_aigcvqa.cli import main

if __name__ == "__main__":
    sys.exit(main())
