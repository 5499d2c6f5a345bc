"""Boundaries: the only place that commits, rolls back, sets and releases savepoints, closes.

``unit`` opens and ends contexts, ``atomic`` the blocks inside them, ``ending``
carries out what they decided, ``operations`` sends it, ``enlist`` makes
sessions.
"""
