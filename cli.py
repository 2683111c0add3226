"""The command line from a checkout: ``python cli.py train --variant sagan``."""

if __name__ == "__main__":  # decoding workers import this file too, and need nothing of it
    from sagan_bench.cli import main

    main()
