"""The five answers of a report as plain tables, which every form then formats. Pure."""

import re

COMMAND = re.compile(r"`(maintainer [a-z -]+|--[a-z-]+)`", re.ASCII)
"""Commands between backticks in our own sentences, shown as code."""
QUESTIONS = (
    "Is my cache healthy?",
    "What takes the space?",
    "What happened?",
    "What is in each scope?",
    "How is it going?",
)
