"""``python -m samples.ledger``: see ``cli``."""

import sys

try:
    from samples.ledger.cli import main
except ModuleNotFoundError as missing:
    sys.exit(
        f"{missing.name} is not installed here: run 'python3 -m samples' once, then use the python of"
        f" .venv/samples-{sys.version_info.major}{sys.version_info.minor}, or pip install '.[samples]'"
    )

if __name__ == "__main__":
    main(prog_name="python -m samples.ledger")
