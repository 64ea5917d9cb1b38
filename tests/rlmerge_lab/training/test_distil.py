"""Distillation on a student's own samples: the loss by hand, real samples, and whole students of random experts."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from rlmerge_lab.training.arms import ARMS, STUDENTS
from rlmerge_lab.training.characters import CharacterEnvironment
from rlmerge_lab.training.directory import Lab
from rlmerge_lab.training.distil import LAMBDAS, LOOKS, Samples, distil, divergence, sample, train_student
from rlmerge_lab.training.profiles import Profile

torch = pytest.importorskip("torch")
for name in ("trl", "transformers"):
    pytest.importorskip(name)

TINY = Profile(
    "tiny",
    "random models of one layer",
    seeds=(0,),
    tasks=("brackets", "reverse"),
    arms=("rl",),
    students=tuple(STUDENTS),
    hidden=16,
    layers=1,
    heads=2,
    mlp=32,
    rate=1e-2,
    rl_prompts=8,
    distil_tokens=1500,
    train=40,
    dev=8,
    test=8,
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A laboratory whose base is random and whose experts are the base and some noise."""
    made = Lab.create(tmp_path_factory.mktemp("lab") / "lab", TINY)
    environment = made.environment()
    environment.save_model(environment.new_model(0), made.base(0), {})
    for number, task in enumerate(TINY.tasks):
        torch.manual_seed(number)
        expert = environment.load_model(made.base(0), ARMS["rl"])
        with torch.no_grad():
            for weight in expert.parameters():
                weight += 0.05 * torch.randn_like(weight)
        environment.save_model(expert, made.expert(0, "rl", task), {})
    return made


def saying(logits):
    """A model that gives ``logits`` [n, kept, vocabulary], whatever it is asked."""
    return lambda **asked: SimpleNamespace(logits=torch.tensor(logits)[:, -asked["logits_to_keep"] :])


def test_the_divergence_by_hand():
    half, quarter = math.log(1 / 2), math.log(1 / 4)
    # Positions are those before each token of an answer of two, and one more behind the last, which is not looked at.
    student = saying([[[half, quarter, quarter], [half, quarter, quarter], [9.0, 0.0, 0.0]]] * 2)
    teacher = saying([[[quarter, quarter, half], [half, quarter, quarter], [0.0, 9.0, 0.0]]] * 2)
    ids = torch.zeros(2, 5, dtype=torch.long)
    samples = Samples(ids, torch.ones(2, 5, dtype=torch.long), torch.tensor([[True, True], [False, False]]))
    # ½ ln 2 + ¼ ln 1 + ¼ ln ½ = ¼ ln 2, and 0 between equals; the second answer is over.
    expected = [[0.25 * math.log(2), 0.0], [0.0, 0.0]]
    torch.testing.assert_close(divergence(student, teacher, samples), torch.tensor(expected), atol=1e-6, rtol=0)


def test_samples_end_with_their_first_end(lab):
    environment = lab.environment()
    model = environment.load_model(lab.base(0), ARMS["rl"])
    questions = lab.questions("train")["reverse"]
    torch.manual_seed(0)
    samples = sample(environment, model, questions)
    end, pad = environment.tokens().end, environment.tokens().pad
    lengths = set()
    for row, question in enumerate(questions):
        prompt, answer = samples.ids[row, :12].tolist(), samples.ids[row, 12:].tolist()
        assert prompt == environment.encode(question.prompt)
        length = answer.index(end) + 1 if end in answer else len(answer)
        lengths.add(length)
        assert samples.said[row].tolist() == [place < length for place in range(len(answer))]
        assert samples.seen[row].tolist() == [1] * (12 + length) + [0] * (len(answer) - length)
        assert answer[length:] == [pad] * (len(answer) - length)
    assert len(lengths) > 2


def test_padding_on_the_left_changes_nothing(lab):
    environment = lab.environment()
    student, teacher = (environment.load_model(p, ARMS["rl"]) for p in (lab.base(0), lab.expert(0, "rl", "reverse")))
    torch.manual_seed(0)
    samples = sample(environment, student, lab.questions("train")["reverse"][:4])
    ids = torch.cat([torch.full((4, 3), environment.tokens().pad), samples.ids], 1)
    padded = Samples(ids, torch.cat([torch.zeros(4, 3, dtype=torch.long), samples.seen], 1), samples.said)
    found, expected = (divergence(student, teacher, each).detach() for each in (padded, samples))
    # float32 arithmetic in another order.
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_student_comes_closer_to_each_teacher_on_its_task(lab):
    environment = lab.environment()
    questions = lab.questions("train")
    teachers = {task: environment.load_model(lab.expert(0, "rl", task), ARMS["rl"]) for task in lab.tasks}
    student = environment.load_model(lab.base(0), ARMS["rl"])

    def distance(task):
        samples = sample(environment, student, questions[task])
        return float((divergence(student, teachers[task], samples).sum() / samples.said.sum()).detach())

    torch.manual_seed(1)
    before = {task: distance(task) for task in lab.tasks}
    frozen = {task: [p.detach().clone() for p in teacher.parameters()] for task, teacher in teachers.items()}
    training = distil(environment, student, teachers, questions, prompts=8, rate=1e-2, seed=0)
    tokens = [next(training) for _ in range(30)]
    assert all(distance(task) < before[task] / 2 for task in lab.tasks)
    assert tokens == sorted(tokens) and tokens[0] > 0 and tokens[-1] <= 30 * 2 * 8 * 9
    for task, teacher in teachers.items():
        assert all(torch.equal(*pair) for pair in zip(teacher.parameters(), frozen[task], strict=True))


def test_a_student_from_the_base(lab):
    train_student(lab, 0, "distil", "its identity")
    manifest = lab.manifest(lab.student(0, "distil"))
    environment, dev = lab.environment(), lab.questions("dev")
    base = environment.load_model(lab.base(0), ARMS["rl"])
    tokens = [row[0] for row in manifest["curve"]]
    assert manifest["curve"][0] == [0, {task: environment.accuracy(base, dev[task]) for task in dev}]
    assert tokens == sorted(set(tokens)) and len(tokens) <= LOOKS + 1
    assert tokens[-2] < TINY.distil_tokens <= tokens[-1] == manifest["tokens"]
    stored = environment.load_model(lab.student(0, "distil"), ARMS["rl"])
    assert manifest["curve"][-1][1] == manifest["dev"]
    assert manifest["dev"] == {task: environment.accuracy(stored, dev[task]) for task in dev}
    assert (manifest["start"], manifest["lambda"], manifest["trials"]) == ("base", None, [])
    assert manifest["digest"] == "its identity"


@pytest.mark.parametrize("name", ["distil-ta", "distil-own"])
def test_a_student_from_a_merge_starts_at_the_best_of_its_coefficients(lab, name):
    few = replace(lab, profile=replace(lab.profile, distil_tokens=1))
    train_student(few, 0, name, "x")
    manifest = few.manifest(few.student(0, name))
    assert [coefficient for coefficient, _ in manifest["trials"]] == list(LAMBDAS)
    found = dict(manifest["trials"])
    assert manifest["lambda"] == max(found, key=found.get)
    (first, start), (last, _) = manifest["curve"]
    assert first == 0 and last == manifest["tokens"] >= 1 and manifest["steps"] == 1
    assert sum(start.values()) / 2 == found[manifest["lambda"]]
    assert len(set(found.values())) == len(LAMBDAS)
    if name == "distil-ta":
        assert found == pytest.approx(task_arithmetic(lab), rel=1e-6)


def task_arithmetic(lab):
    """Mean accuracy on dev of base + λ Σ (expert - base), by λ, merged here."""
    environment, dev = lab.environment(), lab.questions("dev")
    load = lambda path: environment.load_model(path, ARMS["rl"])  # noqa: E731
    base, experts = load(lab.base(0)).state_dict(), [load(lab.expert(0, "rl", t)).state_dict() for t in lab.tasks]
    found = {}
    for coefficient in LAMBDAS:
        model = load(lab.base(0))
        changes = {name: sum(expert[name] - value for expert in experts) for name, value in base.items()}
        model.load_state_dict({name: value + coefficient * changes[name] for name, value in base.items()})
        found[coefficient] = sum(environment.accuracy(model, dev[task]) for task in lab.tasks) / len(lab.tasks)
    return found


def test_what_a_profile_holds_survives_its_file(tmp_path):
    grown = Lab.create(tmp_path / "lab", replace(TINY, students=()))
    assert grown.students == ()
    grown = Lab.create(tmp_path / "lab", TINY)
    assert grown.students == tuple(STUDENTS) == Lab.open(tmp_path / "lab").students
    assert json.loads((tmp_path / "lab" / "lab.json").read_text())["profile"]["distil_tokens"] == 1500
    assert isinstance(grown.environment(), CharacterEnvironment)
