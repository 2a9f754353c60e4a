"""`python -m geomix` is the command `geomix`."""

from geomix.cli import main

if __name__ == "__main__":
    main(prog_name="geomix")
