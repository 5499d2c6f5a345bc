"""Programs that use txkit. Start at ``quickstart``, then ``usage``, then ``ledger``.

``python3 -m samples`` in a clone installs what they need and runs the ledger;
``python3 -m samples.postgresql PROGRAM`` runs any program on a PostgreSQL of its own.
Nothing is imported here: those commands have only the standard library at first.
"""
