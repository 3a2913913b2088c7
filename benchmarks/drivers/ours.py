"""This checkout."""

import sys

from drivers.twisted_calls import main

if __name__ == "__main__":
    main(sys.argv[1])
