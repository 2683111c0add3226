"""``python -m sagan_bench``: the command line."""

from sagan_bench.cli import main

main()
