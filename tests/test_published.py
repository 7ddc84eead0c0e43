import pytest
from helpers import CLASS_COUNTS

from labkit.core.config import Config
from labkit.judge.original import EXCERPTS, SECTIONS, section_of

TABLES = [
    (section.number, split, getattr(section, split))
    for section in SECTIONS
    for split in ("train", "test")
    if getattr(section, split)
]


def test_all_curves_and_tables_are_there():
    assert [s.number for s in SECTIONS] == ["1", "2.1", "2.2", "3.1", "3.2"]
    assert all(len(s.epoch_loss) == 10 for s in SECTIONS)
    assert [len(e.losses) for e in EXCERPTS] == [28, 3]
    assert len(TABLES) == 6


@pytest.mark.parametrize(("number", "split", "table"), TABLES)
def test_each_tables_percentages_give_its_total(number, split, table):
    counts = CLASS_COUNTS[split]
    assert sum(counts) == table.total
    right = [round(p / 100 * n) for p, n in zip(table.percent, counts, strict=True)]
    assert sum(right) == table.correct
    shown = [round(100 * k / n, 2) for k, n in zip(right, counts, strict=True)]
    assert shown == list(table.percent)  # and each percentage is one of a whole number of images


def test_a_section_is_found_by_what_the_original_varied():
    assert section_of(Config(seed=3, epochs=2)).name == "baseline"
    assert section_of(Config(activation="tanh")).number == "2.2"
    assert section_of(Config(batch_size=1000, dataset="mnist")).number == "3.2"
    assert section_of(Config(activation="gelu")) is None
    assert section_of(Config(dataset="kmnist")) is None
