"""The attack in hand: a run that is killed goes on within its batch, and ends with the bytes of one that was not."""

import json
import os
import signal

import pytest
import safetensors.torch
import torch

from ace_counterfactuals.core.base import signals
from ace_counterfactuals.core.method import attacking
from ace_counterfactuals.core.method.attacks import ATTACKS, Attack, into_ball
from ace_counterfactuals.core.method.checks import NonFiniteError
from ace_counterfactuals.core.runs import keeping, run
from ace_counterfactuals.core.runs.keeping import Kept
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.setup import load_denoiser
from ace_counterfactuals.core.runs.verify import verify
from ace_counterfactuals.models.loading import save_weights
from tests.support.toys import CLASSES, ToyClassifier, Workshop, tree, write_pictures

ITERATIONS = 6
ATTACK = {"attack_iterations": ITERATIONS, "attack_step": 16, "num_samples": 3, "batch_size": 3}
ATTACK |= {"label_query": 0, "label_target": 1}
STEPS = {"PGD": 5, "GD": 30, "C&W": 60}


class Killed(BaseException):
    """What nothing catches, as SIGKILL."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Six pictures of each class."""
    workshop = Workshop(tmp_path_factory.mktemp("keeping"))
    write_pictures(workshop.data, 18)
    return workshop


@pytest.fixture(autouse=True)
def classifier(monkeypatch):
    """One that is unsure, so that pictures may end early."""
    toy = ToyClassifier()
    toy.class_names, toy.num_outputs = CLASSES, len(CLASSES)
    monkeypatch.setattr(run, "load_networks", lambda config, query, device: (toy, load_denoiser(config, device)))


@pytest.fixture
def shop(shared, tmp_path, monkeypatch):
    """A result folder of its own; each iteration's state is written."""
    workshop = Workshop.__new__(Workshop)
    workshop.__dict__.update(shared.__dict__, output=tmp_path / "out")
    monkeypatch.setattr(keeping, "EVERY", 0.0)
    return workshop


@pytest.fixture
def seen(monkeypatch):
    """The iterations that were computed, of all runs; ``seen.kill`` are those, counted from 1, that end in a kill."""

    class Seen(list):
        kill: tuple[int, ...] = ()

    seen, see = Seen(), Kept.see

    def counting(kept, progress):
        seen.append(progress.iteration)
        if len(seen) in seen.kill:
            raise Killed
        see(kept, progress)

    monkeypatch.setattr(Kept, "see", counting)
    return seen


def states(shop, exp_name="exp"):
    return ResultFolder(shop.output, exp_name).states()


def killed(shop, **settings):
    with pytest.raises(Killed):
        shop.run(**{**ATTACK, **settings})


def whole(shop, **settings):
    """What a run leaves that nobody kills."""
    output, shop.output = shop.output, shop.folder / "whole-{}".format("-".join(map(str, settings.values())))
    if not shop.output.exists():
        shop.run(**{**ATTACK, **settings})
    files, shop.output = tree(shop.output), output
    return files


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("confidence", [1.0, 0.3])
@pytest.mark.parametrize("method", ["PGD", "GD", "C&W"])
def test_killed_in_an_iteration_a_run_repeats_that_one_alone_and_ends_with_the_same_bytes(
    shop, seen, method, confidence, batch_size
):
    settings = {"attack_method": method, "attack_stop_confidence": confidence, "batch_size": batch_size}
    settings |= {"attack_step": STEPS[method]}
    expected, alone = whole(shop, **settings), len(seen)
    records = [json.loads(data) for name, data in expected.items() if "/records/" in name]
    assert confidence == 1 or len({record["iterations"] for record in records}) > 1
    for kill in (2, alone - 1):
        del seen[:]
        shop.output, seen.kill = shop.output.with_name(f"out{kill}"), (kill,)
        killed(shop, **settings)
        shop.run(**ATTACK | settings)
        assert tree(shop.output) == expected
        assert len(seen) == alone + 1


def test_what_a_network_spoilt_is_not_kept_and_what_was_before_is_gone_on_with(shop, seen, monkeypatch):
    """Its gradient at iteration 2 is not finite."""
    two = {"num_samples": 2}
    expected, make = whole(shop, **two), attacking.make_grad_fn

    def spoilt(*batch):
        gradient = make(*batch)
        return lambda found, each: gradient(found, each) / float(2 not in each)

    with monkeypatch.context() as patch, pytest.raises(NonFiniteError, match="iteration 2 of the attack"):
        patch.setattr(attacking, "make_grad_fn", spoilt)
        shop.run(**ATTACK | two)
    (path,) = states(shop).values()
    assert safetensors.torch.load_file(path)["iterations"].tolist() == [2, 2]
    shop.run(**ATTACK | two)
    assert tree(shop.output) == expected


def test_killed_with_deterministic_kernels_the_shape_of_a_batch_stays(shop, seen):
    """Of four pictures the last batch is filled up with copies, and of those that end the places are."""
    settings = {"cudnn_deterministic": True, "attack_stop_confidence": 0.3, "num_samples": 4, "attack_step": 5}
    try:
        expected, alone = whole(shop, **settings), len(seen)
        for kill in (3, alone - 1):
            del seen[:]
            shop.output, seen.kill = shop.output.with_name(f"out{kill}"), (kill,)
            killed(shop, **settings)
            shop.run(**ATTACK | settings)
            assert tree(shop.output) == expected and len(seen) == alone + 1
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False


@pytest.mark.parametrize("deterministic", [False, True])
def test_killed_in_a_refilled_batch_each_picture_goes_on_from_its_own_iteration(shop, seen, deterministic):
    """Of six pictures two at a time; a kill loses one iteration, whoever is in hand."""
    settings = {"num_samples": 6, "batch_size": 2, "attack_stop_confidence": 0.3, "attack_step": 5}
    settings |= {"attack_iterations": 12, "cudnn_deterministic": deterministic}
    try:
        expected, alone = whole(shop, **settings), len(seen)
        del seen[:]
        seen.kill = tuple(range(3, alone + alone // 3, 4))
        for _ in seen.kill:
            killed(shop, **settings)
        shop.run(**ATTACK | settings)
        assert tree(shop.output) == expected and len(seen) == alone + len(seen.kill)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False


def test_killed_again_and_again_a_run_ends_nevertheless(shop, seen, capsys):
    expected, alone = whole(shop), len(seen)
    del seen[:]
    seen.kill = (2, 4, 5, 7)
    for _ in seen.kill:
        killed(shop)
    shop.run(**ATTACK)
    assert tree(shop.output) == expected and len(seen) == alone + len(seen.kill)
    told = f"continuing the attack of 3 pictures after 3 of {ITERATIONS} iterations"
    assert told in capsys.readouterr().err


def test_a_momentum_is_part_of_what_an_attack_moves(shop, seen, monkeypatch):
    """Its variable is (N, 2, 3, H, W): the picture, and the velocity."""

    def step(variable, gradient, size):
        velocity = 0.9 * variable[:, 1] + gradient.sign()
        return torch.stack([variable[:, 0] - size * velocity, velocity], 1)

    def project(variable, image, epsilon):
        return torch.stack([into_ball(variable[:, 0], image, epsilon), variable[:, 1]], 1)

    entry = Attack(
        step=step,
        project=project,
        encode=lambda image: torch.stack([image, torch.zeros_like(image)], 1),
        decode=lambda variable: variable[:, 0],
    )
    monkeypatch.setitem(ATTACKS, "momentum", entry)
    expected = whole(shop, attack_method="momentum")
    del seen[:]
    seen.kill = (4,)
    killed(shop, attack_method="momentum")
    shop.run(**ATTACK, attack_method="momentum")
    assert tree(shop.output) == expected and len(seen) == ITERATIONS + 1


def test_a_chunk_goes_on_with_its_own_batch_and_leaves_that_of_another(shop, seen):
    settings = {"num_samples": 6, "batch_size": 2}
    expected = whole(shop, **settings)
    del seen[:]
    seen.kill = (3, 6)
    for chunk in (0, 1):
        killed(shop, chunks=2, chunk=chunk, **settings)
    assert [*states(shop)] == [0, 1] and seen == [1, 2, 3, 1, 2, 3]
    shop.run(**ATTACK | settings, chunks=2, chunk=1)
    assert [*states(shop)] == [0] and seen[6] == 3
    shop.run(**ATTACK | settings, chunks=2, chunk=0)
    assert not states(shop) and len(seen) == 2 + 4 * ITERATIONS
    assert {name for name in tree(shop.output) if "/c-" not in name} | {
        f"Results/exp/{name}" for name in ("summary.yaml", "results.csv", "sheet.png")
    } == expected.keys()


def test_a_batch_of_a_chunk_is_gone_on_with_by_a_run_of_all_pictures(shop, seen):
    seen.kill = (4,)
    killed(shop, num_samples=6, batch_size=2, chunks=2, chunk=1)
    shop.run(**ATTACK | {"num_samples": 6, "batch_size": 2})
    assert seen[:6] == [1, 2, 3, 4, 4, 5] and not states(shop)


def test_a_batch_that_another_split_divides_begins_anew_with_a_notice(shop, seen, capsys):
    seen.kill = (4,)
    killed(shop, num_samples=6, batch_size=2, chunks=2, chunk=0)
    shop.run(**ATTACK | {"num_samples": 6, "batch_size": 2}, chunks=3, chunk=0)
    assert "not explained together now; the attack of its batch begins anew" in capsys.readouterr().err
    assert seen[4:] == [*range(1, ITERATIONS + 1)] and not states(shop)


def test_killed_between_two_records_no_iteration_is_lost_and_the_batch_stays_together(shop, seen, monkeypatch):
    expected, write, written = whole(shop), ResultFolder.write, []

    def writing(results, record, pictures):
        written.append(record.index)
        if len(written) == 2:
            raise Killed
        write(results, record, pictures)

    monkeypatch.setattr(ResultFolder, "write", writing)
    del seen[:]
    killed(shop)
    assert [*states(shop)] == [0]
    shop.run(**ATTACK)
    assert tree(shop.output) == expected and len(seen) == ITERATIONS and written == [0, 1, 1, 2]


def test_killed_before_its_state_is_removed_a_finished_batch_is_not_done_again(shop, seen, monkeypatch):
    expected = whole(shop)
    del seen[:]
    with monkeypatch.context() as patch:
        patch.setattr(Kept, "done", lambda *_: (_ for _ in ()).throw(Killed))
        killed(shop)
    assert [*states(shop)] == [0]
    shop.run(**ATTACK)
    assert tree(shop.output) == expected and len(seen) == ITERATIONS


def damage(path, how):
    data = path.read_bytes()
    if how == "flipped":
        data = data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]
    kinds = {"flipped": data, "truncated": data[:-9], "text": b"[" * 9000}
    path.unlink()
    if how == "fifo":
        os.mkfifo(path)
    else:
        path.write_bytes(kinds[how])


@pytest.mark.parametrize("how", ["flipped", "truncated", "text", "fifo"])
def test_from_a_damaged_state_the_batch_begins_anew_with_a_notice(shop, seen, capsys, how):
    expected = whole(shop)
    seen.kill = (len(seen) + 3,)
    killed(shop)
    path = states(shop)[0]
    damage(path, how)
    shop.run(**ATTACK)
    printed = capsys.readouterr().err
    assert str(path) in printed and printed.count("the attack of its batch begins anew") == 1
    assert tree(shop.output) == expected and seen[-ITERATIONS:] == [*range(1, ITERATIONS + 1)]


def test_a_link_in_the_place_of_a_state_is_refused_as_everywhere(shop, seen, tmp_path):
    seen.kill = (3,)
    killed(shop)
    path = states(shop)[0]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is a link to"):
        shop.run(**ATTACK)
    assert (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "indices", [[], [0, 0], [0, 1, 2, 3, 4, 5], [0, 9], "012", 5, {"0": 1}, [[0]], None, torch.tensor(0)]
)
def test_a_state_that_names_no_batch_of_the_run_is_removed_with_a_notice(tmp_path, notes, indices):
    kept = Kept.__new__(Kept)
    kept.results, kept.size, kept.largest, kept.left = ResultFolder(tmp_path, "exp"), 3, 10**6, {}
    path = kept.results.state(0)
    path.parent.mkdir(parents=True)
    save_weights(path, {"found": torch.zeros(1), "indices": indices})
    assert not list(kept.batches(range(6), range(6)))
    assert f"{path}: " in notes.text and "begins anew" in notes.text and not path.exists()


def test_a_state_of_another_experiment_or_version_is_foreign(shop, seen, capsys, monkeypatch):
    killing = {"attack_step": 8, "exp_name": "other"}
    seen.kill = (3,)
    killed(shop, **killing)
    other = states(shop, "other")[0].read_bytes()
    seen.kill = (6,)
    killed(shop)
    states(shop)[0].write_bytes(other)
    shop.run(**ATTACK)
    assert "of other pictures or settings; the attack of its batch begins anew" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(keeping, "VERSION", 99)
        shop.run(**ATTACK | killing)
    assert "of other pictures or settings; the attack of its batch begins anew" in capsys.readouterr().err


def test_a_state_of_a_picture_that_cannot_be_read_any_more_is_dropped(tmp_path, monkeypatch, seen, capsys):
    shop = Workshop(tmp_path)
    monkeypatch.setattr(keeping, "EVERY", 0.0)
    seen.kill = (3,)
    killed(shop)
    (shop.data / "boot/000.png").write_bytes(b"torn")
    shop.run(**ATTACK)
    printed = capsys.readouterr().err
    assert "is of a picture that cannot be read now; the attack of its batch begins anew" in printed
    assert not states(shop) and seen[3:] == [*range(1, ITERATIONS + 1)]


def test_a_file_that_is_too_large_for_a_state_is_not_read(shop, seen, monkeypatch, capsys):
    seen.kill = (3,)
    killed(shop)
    with open(states(shop)[0], "r+b") as file:
        file.truncate(10**12)  # it takes no room
    monkeypatch.setattr(keeping, "load_weights", None)
    shop.run(**ATTACK)
    assert "wanted a file of at most" in capsys.readouterr().err and not states(shop)


def test_fewer_pictures_at_once_than_a_state_has_begin_anew(shop, seen, capsys):
    seen.kill = (3,)
    killed(shop)
    shop.run(**ATTACK | {"batch_size": 1})
    assert "not explained together now" in capsys.readouterr().err and len(seen) == 3 + 3 * ITERATIONS


@pytest.mark.parametrize("chunks", [1, 2])
def test_overwriting_forgets_the_state_too(shop, seen, chunks):
    settings = {"num_samples": 6, "batch_size": 2, "chunks": chunks}
    seen.kill = (3,)
    killed(shop, **settings)
    shop.run(**ATTACK | settings, overwrite=True)
    assert seen[3:5] == [1, 2] and not states(shop)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_at_a_signal_the_last_iteration_is_kept(shop, seen, monkeypatch, number):
    """The pictures in hand take longer than a signal waits for."""
    monkeypatch.setattr(keeping, "EVERY", 1000.0)
    monkeypatch.setattr(signals, "GRACE", 0.01)
    see = Kept.see

    def signalled(kept, progress):
        see(kept, progress)
        if progress.iteration == 4 and len(seen) == 4:
            os.kill(os.getpid(), number)
            signal.sigtimedwait([], 10)

    with monkeypatch.context() as patch:
        patch.setattr(Kept, "see", signalled)
        assert shop.exit_code(**ATTACK) == signals.CODES[number]
    assert [*states(shop)] == [0]
    shop.run(**ATTACK)
    assert seen == [1, 2, 3, 4, 5, 6]
    expected = whole(shop)
    assert tree(shop.output) == expected


def test_at_a_signal_what_is_done_next_is_written_and_the_others_in_hand_are_kept(shop, seen, monkeypatch):
    """In a refilled batch there is always somebody in hand."""
    settings = {"num_samples": 6, "batch_size": 2, "attack_stop_confidence": 0.3, "attack_step": 5}
    settings |= {"attack_iterations": 12}
    expected, alone = whole(shop, **settings), len(seen)
    see, left = Kept.see, []

    def signalled(kept, progress):
        if len(seen) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        see(kept, progress)
        left[:] = progress.batch.indices

    del seen[:]
    with monkeypatch.context() as patch:
        patch.setattr(Kept, "see", signalled)
        assert shop.exit_code(**ATTACK | settings) == signals.CODES[signal.SIGTERM]
    finished = {int(path.stem) for path in (shop.results() / "records").iterdir()}
    assert 0 < len(finished) < 6 and [*states(shop)] == [0] and {*left} - finished
    shop.run(**ATTACK | settings)
    assert tree(shop.output) == expected and len(seen) == alone


@pytest.mark.parametrize(("takes", "lost"), [(1.0, 30), (7.0, 4), (20.0, 1), (100.0, 1)])
def test_at_any_instant_thirty_seconds_or_one_iteration_are_in_memory_alone(monkeypatch, takes, lost):
    clock = iter(range(10**6))
    monkeypatch.setattr(keeping.time, "monotonic", lambda: takes * next(clock))
    kept, written = Kept.__new__(Kept), [0]
    kept.seen = kept.saved = keeping.time.monotonic()

    def write():
        written.append(kept.latest)
        kept.saved = kept.seen

    monkeypatch.setattr(kept, "write", write, raising=False)
    for iteration in range(1, 100):
        kept.see(iteration)
    assert max(b - a for a, b in zip(written, written[1:], strict=False)) == lost and written[-1] > 99 - lost


def test_a_run_that_nobody_kills_writes_no_state_within_its_first_seconds(shop, monkeypatch):
    monkeypatch.setattr(keeping, "EVERY", 30.0)
    monkeypatch.setattr(keeping, "save_weights", None)
    shop.run(**ATTACK)


def test_who_has_lost_the_lock_writes_no_state(shop, seen, monkeypatch):
    lock, root = ResultFolder(shop.output, "exp").log / "chunk-0-of-1.lock", ResultFolder(shop.output, "exp")
    see = Kept.see

    def overtaken(kept, progress):
        lock.unlink()
        see(kept, progress)

    monkeypatch.setattr(Kept, "see", overtaken)
    with pytest.raises(ValueError, match="another process has taken over"):
        shop.run(**ATTACK)
    assert not root.states()


def test_verifying_leaves_a_state_where_it_is(shop, seen):
    seen.kill = (8,)
    killed(shop, batch_size=1)
    path = states(shop)[1]
    before = path.read_bytes()
    assert verify(ResultFolder(shop.output, "exp")) == []
    assert path.read_bytes() == before


def test_a_state_is_tensors_and_says_whose_it_is_in_plain_values(shop, seen):
    seen.kill = (3,)
    killed(shop)
    data = states(shop)[0].read_bytes()
    tensors = safetensors.torch.load(data)
    assert {*tensors} == {"logits", "variable", "found", "iterations", "average", "above"}
    head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert json.loads(head["__metadata__"]["ace"])["indices"] == [0, 1, 2]
