"""``python -m sagan_bench``: the command line."""

if __name__ == "__main__":  # decoding workers import this file too, and need nothing of it
    from sagan_bench.cli import main

    main()
