"""``python cli.py VERB``: the same program as the installed ``sagan-bench``."""

from sagan_bench.cli import main

if __name__ == "__main__":
    main()
