"""Programs that use txkit. Start at ``quickstart``, then ``usage``, then ``ledger``.

``python3 -m samples`` in a clone installs what they need and runs the ledger.
Nothing is imported here: that command has only the standard library at first.
"""
