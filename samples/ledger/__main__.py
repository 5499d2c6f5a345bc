"""``python -m samples.ledger``: see ``cli``."""

from samples.ledger.cli import main

if __name__ == "__main__":
    main(prog_name="python -m samples.ledger")
