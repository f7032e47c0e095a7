"""What the pages of a service show first, of thousands of targets."""

import msgspec

from maintainer.graph.summaries import Overview, Summary
from maintainer.serve.web.pages import render_index
from maintainer.serve.web.selection import PAGE, Query, Selection, choose
from tests.pages import NOW, status_of

FULL = Summary(1, "attention", "It is 97 % full.", 97, 100, results=5)
ONLY_LISTED = msgspec.structs.replace(FULL, message="It listed entries.", results=None)


def _choose(*summaries: Summary) -> Selection:
    targets = [Overview(status_of(f"app-{n}", ran=2), one) for n, one in enumerate(summaries)]
    return choose(targets, Query(), NOW)


def _page(selection: Selection) -> str:
    return render_index(selection, {}, [], NOW)


def test_targets_that_can_only_be_listed_hide_none_that_has_a_problem() -> None:
    selection = _choose(*[ONLY_LISTED] * PAGE, FULL)

    assert [one.status.name for _, one in selection.shown] == [f"app-{PAGE}"]
    assert f"51 targets: 1 needs attention, {PAGE} only listed." in _page(selection)


def test_of_several_targets_the_page_says_how_many_need_attention() -> None:
    assert "2 targets: 2 need attention." in _page(_choose(FULL, FULL))


def test_the_page_leads_to_all_caches_together_however_few_there_are() -> None:
    assert _page(_choose(FULL)).count('href="/fleet"') == 1


def test_where_all_targets_can_only_be_listed_nobody_is_alarmed() -> None:
    selection = _choose(ONLY_LISTED)
    page = _page(selection)

    assert selection.counts == {"listed": 1}
    assert "Only listed" in page
    assert "It listed entries." in page
