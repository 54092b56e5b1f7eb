"""What every student in every variant must do."""

import pytest
import torch

from recdistill.errors import ConfigError
from recdistill.students import STUDENTS, SequenceModel, Student
from recdistill.students.layers import real_positions
from recdistill.types import PAD, Batch

SIZE, LENGTH = 8, 7
CASES = [(name, variant) for name in STUDENTS for variant in ("paper", "modern")]
every_student = pytest.mark.parametrize(("name", "variant"), CASES)


class Table(torch.nn.Module):
    """The simplest item encoder."""

    warm, formed_by_need = None, False

    def __init__(self, item_count, size):
        super().__init__()
        self.item_count, self.size = item_count, size
        self.weight = torch.nn.Parameter(torch.randn(item_count, size))

    def forward(self, items=None):
        return self.weight if items is None else self.weight[items]


def make(name, variant, **options):
    torch.manual_seed(3)
    options = {"embedding_size": SIZE, "max_length": LENGTH, **options}
    return STUDENTS[name](variant=variant, **options).double().eval()


def histories(lengths, length=LENGTH, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor(lengths)
    embedded = torch.randn(len(lengths), length, SIZE, generator=generator, dtype=torch.float64)
    return embedded * real_positions(lengths, length).unsqueeze(-1), lengths


@every_student
def test_shapes_and_zero_at_the_pads(name, variant):
    student = make(name, variant)
    embedded, lengths = histories([7, 1, 4])
    hidden = student(embedded, lengths)
    assert hidden.shape == (3, LENGTH, student.hidden_size)
    assert student.embedding_size == SIZE
    real = real_positions(lengths, LENGTH)
    assert (hidden[~real] == 0).all()
    assert (hidden[real].abs().sum(-1) > 0).all()


@every_student
@pytest.mark.parametrize("lengths", [[7, 1, 4, 2], [7, 7], [1], [2, 1, 1, 1, 3]])
def test_last_is_the_last_position_of_forward(name, variant, lengths):
    student = make(name, variant)
    embedded, lengths = histories(lengths)
    hidden = student(embedded, lengths)
    expected = torch.stack([row[n - 1] for row, n in zip(hidden, lengths, strict=True)])
    torch.testing.assert_close(student.last(embedded, lengths), expected, rtol=0, atol=1e-12)
    single = student.float()
    torch.testing.assert_close(single.last(embedded.float(), lengths), expected.float(), rtol=0, atol=2e-6)


@every_student
def test_the_future_does_not_change_the_past(name, variant):
    student = make(name, variant)
    embedded, lengths = histories([7, 7])
    changed = embedded.clone()
    changed[:, 4:] = torch.randn(2, 3, SIZE, dtype=torch.float64)
    before, after = student(embedded, lengths), student(changed, lengths)
    torch.testing.assert_close(after[:, :4], before[:, :4], rtol=0, atol=1e-12)
    assert not torch.allclose(after[:, 4:], before[:, 4:])


@every_student
def test_more_pads_change_nothing(name, variant):
    student = make(name, variant)
    embedded, lengths = histories([4, 2], length=4)
    padded = torch.cat([embedded, embedded.new_zeros(2, 3, SIZE)], dim=1)
    torch.testing.assert_close(
        student(padded, lengths)[:, :4], student(embedded, lengths), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(
        student.last(padded, lengths), student.last(embedded, lengths), rtol=0, atol=1e-12
    )


@every_student
def test_rows_do_not_see_each_other(name, variant):
    student = make(name, variant)
    embedded, lengths = histories([7, 1, 4])
    together = student.last(embedded, lengths)
    for row in range(3):
        alone = student.last(embedded[row : row + 1], lengths[row : row + 1])
        assert alone.shape == (1, student.hidden_size)
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-12)


@every_student
@pytest.mark.parametrize("way", ["last", "all"])
def test_gradient_reaches_inputs_and_parameters(name, variant, way):
    student = make(name, variant).train()
    embedded, lengths = histories([7, 5, 6])
    embedded.requires_grad_()
    answer = student.last(embedded, lengths) if way == "last" else student(embedded, lengths)
    (answer * torch.randn_like(answer)).sum().backward()
    assert embedded.grad is not None
    for row, n in enumerate(lengths):
        assert (embedded.grad[row, :n].abs().sum(-1) > 0).all()
        assert (embedded.grad[row, n:] == 0).all()
    for parameter_name, parameter in student.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@every_student
def test_gradients_of_last_and_forward_agree(name, variant):
    student = make(name, variant)
    embedded, lengths = histories([7, 2, 5])
    gradients = []
    for way in ("last", "all"):
        student.zero_grad()
        inputs = embedded.clone().requires_grad_()
        if way == "last":
            answer = student.last(inputs, lengths)
        else:
            answer = student(inputs, lengths)[torch.arange(3), lengths - 1]
        answer.square().sum().backward()
        gradients.append([inputs.grad, *(p.grad for p in student.parameters())])
    for ours, whole in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, whole, rtol=0, atol=1e-10)


@every_student
def test_dropout_acts_in_training_only(name, variant):
    student = make(name, variant, dropout=0.5)
    embedded, lengths = histories([7, 7])
    assert torch.equal(student.last(embedded, lengths), student.last(embedded, lengths))
    student.train()
    torch.manual_seed(0)
    first = student.last(embedded, lengths)
    assert not torch.allclose(first, student.last(embedded, lengths))
    torch.manual_seed(0)
    assert torch.equal(first, student.last(embedded, lengths))


@every_student
def test_a_history_that_is_too_long_is_refused(name, variant):
    student = make(name, variant)
    embedded, lengths = histories([8, 2], length=8)
    for answer in (student.last, student):
        with pytest.raises(ConfigError, match=r"8 items is too long.*at most 7.*max_length=8"):
            answer(embedded, lengths)


@every_student
def test_an_empty_history_gives_finite_states(name, variant):
    student = make(name, variant)
    embedded, lengths = histories([0, 3])
    assert student.last(embedded, lengths).isfinite().all()
    assert student(embedded, lengths).isfinite().all()


@pytest.mark.parametrize(
    ("name", "variant"),
    [("sasrec", "paper"), ("sasrec", "modern"), ("gru4rec", "modern"), ("caser", "modern")],
)
def test_last_can_be_exported(name, variant):
    student = make(name, variant).float()
    embedded, lengths = histories([7, 1, 4])

    class Last(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.student = student

        def forward(self, embedded, lengths):
            return self.student.last(embedded, lengths)

    arguments = (embedded.float(), lengths)
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = ({0: batch}, {0: batch})
    program = torch.export.export(Last().eval(), arguments, dynamic_shapes=shapes)
    torch.testing.assert_close(program.module()(*arguments), student.last(*arguments), rtol=0, atol=1e-5)


@every_student
def test_an_unknown_variant_is_refused(name, variant):
    with pytest.raises(
        ConfigError, match=f"unknown variant '{variant}s'.*Did you mean.*Allowed: modern, paper"
    ):
        STUDENTS[name](variant=variant + "s")


def test_modern_students_can_share_one_table():
    assert all(STUDENTS[name](variant="modern").hidden_size == 64 for name in STUDENTS)
    assert STUDENTS["caser"](variant="paper").hidden_size == 112


def test_the_base_class_cuts_the_last_position():
    class Running(Student):
        def forward(self, embedded, lengths):
            return embedded.cumsum(1)

    embedded, lengths = histories([3, 7])
    expected = torch.stack([embedded[0, :3].sum(0), embedded[1].sum(0)])
    torch.testing.assert_close(Running().last(embedded, lengths), expected)


def batch_of(history, positions=None):
    history = torch.tensor(history)
    rows = len(history) if positions is None else len(positions)
    targets = torch.zeros(rows, dtype=torch.int64)
    return Batch(
        history=history,
        lengths=(history != PAD).sum(1),
        positions=None if positions is None else torch.tensor(positions),
        targets=targets,
        row_ids=targets,
    )


@every_student
@pytest.mark.parametrize("tied", [True, False])
def test_sequence_model_answers_with_the_right_table(name, variant, tied):
    student = make(name, variant)
    if tied and student.hidden_size != SIZE:
        pytest.skip("this student writes another width than it reads")
    entry = Table(11, SIZE).double()
    output = entry if tied else Table(11, student.hidden_size).double()
    model = SequenceModel(student, entry, output, bias=not tied).eval()
    assert model.tied is tied
    assert (model.item_bias is None) is tied
    if model.item_bias is not None:
        torch.nn.init.normal_(model.item_bias)
    history = [[3, 1, 4], [10, PAD, PAD]]
    answer = model(batch_of(history))
    vectors = torch.stack(
        [entry.weight[[3, 1, 4]], torch.stack([entry.weight[10], *entry.weight.new_zeros(2, SIZE)])]
    )
    hidden = student.last(vectors, torch.tensor([3, 1]))
    expected = hidden @ output.weight.T + (0 if model.item_bias is None else model.item_bias)
    torch.testing.assert_close(answer.logits, expected)
    torch.testing.assert_close(
        answer.scores(torch.tensor([[5, 2], [0, 9]])), expected.gather(1, torch.tensor([[5, 2], [0, 9]]))
    )
    torch.testing.assert_close(model.score(torch.tensor(history)), expected)


@every_student
def test_sequence_model_picks_the_supervised_positions(name, variant):
    student = make(name, variant)
    model = SequenceModel(
        student, Table(11, SIZE).double(), Table(11, student.hidden_size).double(), bias=True
    ).eval()
    history = [[3, 1, 4], [10, 2, PAD]]
    chosen = model(batch_of(history, positions=[1, 2, 4])).hidden
    prefixes = [[3, 1, PAD], [3, 1, 4], [10, 2, PAD]]
    torch.testing.assert_close(chosen, model(batch_of(prefixes)).hidden, rtol=0, atol=1e-12)


def test_sequence_model_reads_pads_as_zero_vectors():
    entry = Table(11, SIZE)
    model = SequenceModel(STUDENTS["gru4rec"](embedding_size=SIZE), entry, entry, bias=False)
    embedded = model.embed(torch.tensor([[3, 0], [10, PAD]]))
    expected = torch.stack([entry.weight[[3, 0]], torch.stack([entry.weight[10], torch.zeros(SIZE)])])
    assert torch.equal(embedded, expected)
