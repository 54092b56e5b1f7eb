"""The students against independent naive versions with the same weights, and against the authors' sizes."""

import pytest
import torch

from recdistill.errors import ConfigError
from recdistill.students import Caser, GRU4Rec, SASRec
from references.students import caser_paper, gru4rec_paper, sasrec_modern, sasrec_paper

LENGTHS = [5, 1, 3]


def inputs(size=6):
    torch.manual_seed(1)
    embedded = torch.randn(3, 5, size, dtype=torch.float64)
    for row, n in enumerate(LENGTHS):
        embedded[row, n:] = 0
    return embedded, torch.tensor(LENGTHS)


def scrambled(student):
    """Random weights everywhere: fresh layer norms and zero biases hide mistakes."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.normal_(std=0.5)
    return student.double().eval()


@pytest.mark.parametrize(
    ("make", "reference"),
    [
        (lambda: SASRec(embedding_size=6, max_length=5), sasrec_paper),
        (lambda: SASRec(embedding_size=6, max_length=5, heads=2, blocks=2), sasrec_paper),
        (lambda: SASRec(embedding_size=6, max_length=5, variant="modern"), sasrec_modern),
        (lambda: SASRec(embedding_size=6, max_length=5, variant="modern", heads=3, blocks=1), sasrec_modern),
        (lambda: GRU4Rec(embedding_size=6, max_length=5), gru4rec_paper),
        (lambda: GRU4Rec(embedding_size=6, max_length=5, layers=2), gru4rec_paper),
    ],
    ids=[
        "sasrec",
        "sasrec-2-heads-2-blocks",
        "sasrec-modern",
        "sasrec-modern-3-heads",
        "gru4rec",
        "gru4rec-2-layers",
    ],
)
def test_states_match_the_naive_version(make, reference):
    student = scrambled(make())
    embedded, lengths = inputs()
    hidden, last = student(embedded, lengths), student.last(embedded, lengths)
    for row, n in enumerate(LENGTHS):
        expected = reference(student, embedded[row, :n])
        torch.testing.assert_close(hidden[row, :n], expected, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(last[row], expected[-1], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("windows", [(2, 3, 4), (1, 5)])
def test_caser_matches_the_naive_version(windows):
    student = scrambled(Caser(embedding_size=6, max_length=5, windows=windows, filters=3))
    embedded, lengths = inputs()
    last = student.last(embedded, lengths)
    for row, n in enumerate(LENGTHS):
        torch.testing.assert_close(last[row], caser_paper(student, embedded[row, :n]))


def test_caser_with_a_window_as_long_as_the_history_and_one_row():
    student = Caser(embedding_size=6, max_length=4, windows=[4]).eval()
    assert student.last(torch.randn(1, 4, 6), torch.tensor([4])).shape == (1, 22)


def test_caser_refuses_a_window_longer_than_the_history():
    with pytest.raises(ConfigError, match="window of 4 items is longer than max_length=3"):
        Caser(max_length=3)


def test_parameter_counts_are_those_of_the_authors():
    def count(student):
        return sum(p.numel() for p in student.parameters())

    d, L = 64, 10
    attention, feed_forward, norms = 3 * (d * d + d), 2 * (d * d + d), 4 * 2 * d
    assert count(SASRec()) == L * d + attention + feed_forward + norms
    assert count(GRU4Rec()) == 3 * (2 * d * d + 2 * d)
    assert count(Caser()) == sum(16 * h * d + 16 for h in (2, 3, 4)) + L + 1


def test_filters_start_as_the_authors_do():
    torch.manual_seed(0)
    student = Caser(filters=256)
    for height, convolution in zip((2, 3, 4), student.horizontal, strict=True):
        theirs = torch.nn.Conv2d(1, 256, (height, 64))
        torch.nn.init.xavier_normal_(theirs.weight)
        assert convolution.weight.std().item() == pytest.approx(theirs.weight.std().item(), rel=0.02)
        assert (convolution.bias == 0.1).all()
    assert (student.vertical.bias == 0.1).all()


def test_positions_start_as_the_variant_says():
    torch.manual_seed(0)
    assert SASRec(max_length=200).positions.std().item() == pytest.approx(1, rel=0.05)
    assert SASRec(max_length=200, variant="modern").positions.std().item() == pytest.approx(0.02, rel=0.05)
