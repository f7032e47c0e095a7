"""Policies: the rules by which a run decides, one in each module. Pure.

A policy has a name and one function of marks, rules and time. `plan.py` puts them in order.
"""
