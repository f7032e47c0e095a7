"""Policies: the rules by which a run decides, one in each module. Pure.

A policy has a name and one function of marks, rules and time. `plan.py` puts in order those that
decide about indexes and entries. The others decide before there is a plan: whether a cache is
plausible (`loss.py`), and what leaves a full one (`headroom.py`, `protected.py`, `room.py`).
`retention.py` is a part of others.
"""
