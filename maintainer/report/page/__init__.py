"""The five answers of a report as plain tables, which every form then formats. Pure."""

import re

_NAMES = (
    "actions|closed_refs|entries|keep_free|maintained|max_index_size|max_merge_size|max_requests|"
    "merged_scope|merged_tag|quota"
)
COMMAND = re.compile(rf"`(maintainer [a-z -]+|--[a-z-]+|{_NAMES}|gh cache delete)`", re.ASCII)
"""What our own sentences have between backticks, shown as code: commands, options and names."""
QUESTIONS = (
    "Is my cache healthy?",
    "What takes the space?",
    "What happened?",
    "What is in each scope?",
    "How is it going?",
)
