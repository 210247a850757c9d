"""The pages that the demonstration is about."""

from itertools import islice
from pathlib import Path

from app.demo.dataset import TRAINING_PAGES, load
from app.demo.pages import Page, passes, read, write


def test_live_pages_were_never_trained_on() -> None:
    """The two parts are the whole data set, and each row is in one of them."""
    split = load(seed=1)
    assert (len(split.training), len(split.live)) == (TRAINING_PAGES, 1250 - TRAINING_PAGES)
    assert not {id(page) for page in split.training} & {id(page) for page in split.live}


def test_the_seed_draws_the_split() -> None:
    """One seed always divides the pages alike, and another divides them otherwise."""
    assert load(seed=1) == load(seed=1)
    assert load(seed=1).live != load(seed=2).live


def test_both_parts_hold_both_truths() -> None:
    """Phishing is about as frequent among what is trained on as among what is sent live."""
    for part in (load(seed=3).training, load(seed=3).live):
        assert 0.35 < sum(page.phishing for page in part) / len(part) < 0.52


def test_every_pass_sends_every_page_once() -> None:
    """Pages come again only when all have been sent, and then in another order."""
    pages = [Page({"https": float(number)}, phishing=False) for number in range(20)]
    sent = list(islice(passes(pages, seed=1), 40))
    first, second = sent[:20], sent[20:]
    assert {page.features["https"] for page in first} == {page.features["https"] for page in second}
    assert first != second


def test_no_pages_make_no_passes() -> None:
    """Without pages there is nothing to send, and nobody waits for it."""
    assert list(passes([], seed=1)) == []


def test_pages_survive_the_way_through_a_file(tmp_path: Path) -> None:
    """An endpoint trains on exactly the pages that were written down for it."""
    pages = load(seed=1).training[:50]
    write(pages, tmp_path / "pages.json")
    assert read(tmp_path / "pages.json") == pages
