"""How many pages a list of GitHub's REST API has."""

import re
from urllib.parse import parse_qs, urlsplit

from maintainer.stores.http.answers import Answer

_NEXT_LINK = re.compile(r'<([^<>]*)>\s*;\s*rel="?(next|last)"?')


def linked_pages(answer: Answer) -> int:
    """Return the highest page number that the header `Link` names; 0 without one."""
    highest = 0
    for url, _ in _NEXT_LINK.findall(answer.headers.get("link", "")[:10_000]):
        for number in parse_qs(urlsplit(url).query).get("page", []):
            if number.isascii() and number.isdigit():
                highest = max(highest, int(number[:9]))
    return highest
