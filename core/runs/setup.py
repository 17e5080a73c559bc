"""From flags to what a run needs: contradictions refused, pictures selected, networks loaded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ace_counterfactuals.core.base.runtime import choose_device, make_deterministic, notice
from ace_counterfactuals.core.base.settings import AUTO, FlagError, blaming, flag_items, from_dict, to_dict
from ace_counterfactuals.core.data.datasets import spec_of
from ace_counterfactuals.core.data.imageset import (
    ImageSet,
    Sample,
    open_files,
    open_pictures,
    prefetch,
    resolve_label,
    select,
    wanted_label,
    with_channels,
)
from ace_counterfactuals.core.data.labels import resolve_name
from ace_counterfactuals.core.data.regions import open_region
from ace_counterfactuals.core.data.specs import UNKNOWN
from ace_counterfactuals.core.method.attacks import find_attack
from ace_counterfactuals.core.method.config import AttackConfig
from ace_counterfactuals.core.method.objectives import predict
from ace_counterfactuals.core.method.task import Batch, Task, chain_of, judge
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.described import CONFIG, read_config
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.records import KINDS
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from ace_counterfactuals.guided_diffusion.lean import laid_out
from ace_counterfactuals.guided_diffusion.unet import UNetModel
from ace_counterfactuals.models import denoisers
from ace_counterfactuals.models.classifiers import Classifier, load_classifier
from ace_counterfactuals.models.compiled import compile_calls
from ace_counterfactuals.models.denoisers import DiffusionModel
from ace_counterfactuals.models.specs import said_of
from ace_counterfactuals.models.student import load_student
from ace_counterfactuals.models.told import TRAINED

RESERVED = {*KINDS, "CC", "IC", "records", "log", "evaluation"}  # folders of an experiment


def check(config: MainConfig, *, automatic: bool = False) -> None:
    """Refuse flags that contradict each other, before anything is loaded.  Raises FlagError.

    automatic: auto is decided later, see ``plan.decide``.
    """
    run, attack, data, dilation = config.run, config.attack, config.data, config.sampling.sampling_dilation
    segment = attack.attack_checkpoint_backward_steps
    name, untargeted = config.output.exp_name, data.label_target == -1 and not spec_of(data.dataset).binary
    parts = Path(name).parts
    plain = name.strip("/.") and ".." not in parts and not Path(name).is_absolute()
    outputs, number = config.output, "auto: only a run of main.py decides that; give a number"
    otherwise = "True rounds otherwise from batch to batch; give it alone"
    refusals = [
        (not automatic and run.batch_size == AUTO, "batch_size", number),
        (not automatic and segment == AUTO, "attack_checkpoint_backward_steps", number),
        (run.chunk >= run.chunks, "chunk", f"{run.chunk}: wanted 0 to {run.chunks - 1}, since chunks is {run.chunks}"),
        (run.overwrite and run.merge_chunks, "overwrite", "True forgets what merge_chunks gathers; give one of them"),
        (run.compile and run.cudnn_deterministic, "compile", otherwise),
        (dilation % 2 == 0, "sampling_dilation", f"{dilation} is even; choose an odd size"),
        *contradictions(attack, config),
        (outputs.save_float and not outputs.save_images, "save_float", "True keeps pictures that save_images does not"),
        (untargeted and config.model.class_cond, "class_cond", "True denoises towards a target; give a label_target"),
        (not plain, "exp_name", f"'{name}': wanted the name of a folder in OUTPUT_PATH/Results"),
        (RESERVED & {*parts}, "exp_name", f"{name}: has the name of a folder within experiments; choose another"),
    ]
    for refused, field, reason in refusals:
        if refused:
            raise FlagError(field, reason)
    find_attack(attack.attack_method, targeted=not untargeted)
    for refining in (False, True):
        chain_of(config.sampling, diffusion_of(config), refining=refining)
    if not run.merge_chunks:  # which opens no region
        open_region(config.region.region, invert=config.region.region_invert)


def contradictions(attack: AttackConfig, config: MainConfig) -> Iterator[tuple[Any, str, str]]:
    """Of the attack: whether there is one, the flag, and what is wrong with it."""
    aside = "True goes through the diffusion model, which attack_joint False leaves out"
    yield attack.attack_joint_shortcut and not attack.attack_joint, "attack_joint_shortcut", aside
    yield attack.attack_joint_checkpoint and not attack.attack_joint, "attack_joint_checkpoint", aside
    one, other = attack.attack_filter == "one-step", attack.attack_joint_shortcut or attack.attack_joint_checkpoint
    alone = "one-step excludes attack_joint_shortcut, attack_joint_checkpoint and attack_joint False: leave these out"
    yield one and (other or not attack.attack_joint), "attack_filter", alone
    if attack.attack_student:
        yield not one, "attack_student", "stands for a single call of the model: give attack_filter one-step, too"
        yield config.model.class_cond, "attack_student", "knows no classes: leave class_cond out"
        ends = attack.attack_stop_confidence < 1
        mixed = "with attack_stop_confidence takes parts of a batch, whose bytes go by their size; give one of these"
        yield ends and config.run.cudnn_deterministic, "attack_student", mixed
    if attack.attack_deep_every > 1:
        whole = "is of a chain's whole graph: leave out attack_joint_shortcut, attack_joint_checkpoint and one-step"
        yield one or other or not attack.attack_joint, "attack_deep_every", whole
        yield config.run.compile, "attack_deep_every", "keeps features, which a compiled network does not: give one"
    still = "0 changes nothing, and the whole picture would come out filtered; attack_method None filters alone"
    yield attack.attack_method != "None" and attack.attack_step == 0, "attack_step", still
    yield attack.attack_method not in ("None", "C&W") and attack.attack_epsilon == 0, "attack_epsilon", still
    ends_at_once = "0: wanted more than 0; 1 never ends an attack"
    yield attack.attack_stop_confidence == 0, "attack_stop_confidence", ends_at_once


def task_of(config: MainConfig, classifier: Callable[[Tensor], Tensor], denoiser: DiffusionModel) -> Task:
    """What the flags ask of these networks."""
    sampling = config.sampling
    return Task(
        classifier=classifier,
        denoiser=denoiser,
        diffusion=denoiser.process.respaced(sampling.timestep_respacing, clip_denoised=sampling.clip_denoised),
        attack=config.attack,
        sampling=sampling,
        label_target=config.data.label_target,
        class_cond=config.model.class_cond,
        seed=config.run.seed,
    )


def judged(samples: Sequence[Sample], task: Task, device: torch.device) -> Batch:
    """The pictures as a batch with their predictions and targets, which may change everywhere."""
    image = torch.stack([sample.image for sample in samples]).to(device)
    label = torch.tensor([sample.label for sample in samples], device=device)
    return judge(image, task, [sample.index for sample in samples]).aimed(label)


def prepare_device(config: MainConfig) -> torch.device:
    """The device of the flags, with deterministic kernels where they ask for these."""
    if config.run.cudnn_deterministic:
        make_deterministic()
    return choose_device(config.run.device, config.run.gpu)


def load_networks(config: MainConfig, query: int, device: torch.device) -> tuple[Classifier, DiffusionModel]:
    """The networks that the flags name, frozen, on the device and in their precision."""
    denoiser = equipped(load_denoiser(config, device), config)
    return load_explained(config, query, device), denoiser


def compile_networks(config: MainConfig, networks: Mapping[str, nn.Module]) -> None:
    """Compile the calls of these, by what they are called, if the flags ask for that."""
    for name, network in networks.items() if config.run.compile else ():
        compile_calls(network, name)


def load_explained(config: MainConfig, query: int, device: torch.device) -> Classifier:
    """The classifier that is explained."""
    weights, spec = config.weights, spec_of(config.data.dataset)
    with blaming("classifier_path"):
        about = said_of(weights, config.data.image_size)
        if not weights.classifier_path and not about and not spec.arch:
            raise FlagError("classifier_path", f"not given; dataset {config.data.dataset} needs the file to explain")
        classifier = load_classifier(weights.classifier_path, query=query, **spec.classifier(about)).to(device)
        check_channels(config, classifier.channels, weights.classifier_path or weights.classifier)
        return classifier


def check_channels(config: MainConfig, channels: int, path: str) -> None:
    """Refuse a network of one channel for pictures in colour.  Raises ValueError."""
    if channels == 1 != config.data.image_channels:
        advice = "but image_channels is 3: these are in colour; choose another"
        raise ValueError(f"{path} takes grey pictures, of 1 channel, {advice}")


def load_denoiser(config: MainConfig, device: torch.device) -> DiffusionModel:
    """The diffusion model of the flags.  Raises ValueError with the flags to set where they do not fit the file."""
    path = config.weights.model_path
    if not path:
        raise FlagError("model_path", "'': give the weights of the diffusion model")
    with blaming("model_path"):
        model = denoisers.load_settled(path, **of_denoiser(config)).to(device)
        check_channels(config, model.channels, path)
        return model


def equipped(model: DiffusionModel, config: MainConfig) -> DiffusionModel:
    """The model with the student that the attack names, if it names one.

    Raises FlagError for no file of one, and for features to be kept of a network that has none that are known.
    """
    path, every = config.attack.attack_student, config.attack.attack_deep_every
    if every > 1 and not isinstance(model.network, UNetModel):
        raise FlagError("attack_deep_every", f"{every}: model_path is no U-Net of guided-diffusion's kind")
    if not path:
        return model
    with blaming("attack_student"):
        student = load_student(path)
        if student.config.in_channels != model.channels:
            raise ValueError(f"{path} is of pictures of {student.config.in_channels} channels, not {model.channels}")
    beside = next(model.network.parameters(), student.signal)
    return replace(model, student=laid_out(student.to(beside.device)))


def settle_model(config: MainConfig, typed: Mapping[str, Any], others: Mapping[str, Any]) -> MainConfig:
    """With the flags of the diffusion model that nobody typed: those that the experiment began with, or else those that
    the model's files say.

    typed, others: flags by who gave them, see ``told.Given``.  Raises FlagError.
    """
    known, path = flag_items(MainConfig), config.weights.model_path
    typed, others = ({name: one[name] for name in one if known[name].told} for one in (typed, others))
    root = ResultFolder(Path(config.output.output_path), config.output.exp_name).root
    with blaming("model_path"):
        if (root / CONFIG).exists() and not config.run.overwrite:
            made = read_config(root)["flags"]
            found = {name: made[name] for name in made if name in known and known[name].told} | typed
            before = Path(made["model_path"])
            found["model_path"] = (
                str(before) if before.parent == Path(path) and TRAINED.fullmatch(before.name) else path
            )
        else:
            found = {"model_path": denoisers.newest(path)}
            own = spec_of(config.data.dataset).any_channels  # the paper's data sets are as its command lines say
            given = denoisers.Given(typed, others, asked=own)
            found |= denoisers.settle(found["model_path"], given) if path else {}
    return from_dict(MainConfig, to_dict(config) | found)


def of_denoiser(config: MainConfig) -> dict[str, Any]:
    """What the flags say of the diffusion model."""
    return {**asdict(config.model), **asdict(config.diffusion), "image_size": config.data.image_size}


def diffusion_of(config: MainConfig) -> GaussianDiffusion:
    """The respaced chain of the flags; no weights are read."""
    sampling = config.sampling
    with blaming("model_path"):
        process = denoisers.load_process(config.weights.model_path, **of_denoiser(config))
    return process.respaced(sampling.timestep_respacing, clip_denoised=sampling.clip_denoised)


def open_images(config: MainConfig, *, quiet: bool = False) -> ImageSet:
    """The whole data set of the flags.  quiet: its notices are left to the caller."""
    data = config.data
    images = open_files(data) if data.image else open_pictures(data, label_query=data.label_query)
    for message in () if quiet else images.notices:
        notice(message)
    return images


def with_predictions(
    config: MainConfig, images: ImageSet, classifier: Callable[[Tensor], Tensor] | None = None, most: int = 10**12
) -> ImageSet:
    """Where no picture has a label and they are selected by it: what the classifier predicts of the first ``most``.

    classifier: loaded here if not given.  What cannot be read is left out, with a notice.
    """
    wanted = wanted_label(images, config.data.label_target, config.data.label_query)
    if wanted == UNKNOWN or any(record.label != UNKNOWN for record in images.records):
        return images
    device = prepare_device(config)
    classifier = classifier or load_explained(config, images.query, device)
    samples, predicted = prefetch(images, range(min(len(images), most)), config.run.num_workers), dict[int, int]()
    size = 1 if config.run.batch_size == AUTO else config.run.batch_size
    while batch := list(islice(samples, size)):
        for error in (sample for sample in batch if not isinstance(sample, Sample)):
            notice(f"left out: {error}")
        if readable := [sample for sample in batch if isinstance(sample, Sample)]:
            with torch.no_grad():
                logits = classifier(torch.stack([sample.image for sample in readable]).to(device))
            predicted |= zip((sample.index for sample in readable), predict(logits).tolist(), strict=True)
    return replace(images, predicted=predicted)


def settle_channels(config: MainConfig, images: ImageSet, root: Path) -> tuple[MainConfig, ImageSet]:
    """Decide what ``image_channels`` auto is: what the experiment in ``root`` began with, or else by the pictures."""
    channels = config.data.image_channels
    if channels == "auto" and (root / CONFIG).exists() and not config.run.overwrite:
        channels = read_config(root)["flags"]["image_channels"]
    images = with_channels(images, channels)
    return replace(config, data=replace(config.data, image_channels=images.channels)), images


def select_images(images: ImageSet, config: MainConfig, *, all_chunks: bool = False) -> ImageSet:
    """The pictures that the flags choose, of this chunk or of all."""
    part = {} if all_chunks else {"chunk": config.run.chunk, "chunks": config.run.chunks}
    which = {name: getattr(config.data, name) for name in ("label_target", "label_query", "num_samples")}
    return select(images, **which, **part)


def align_classes(config: MainConfig, images: ImageSet, names: tuple[str, ...] | None) -> tuple[MainConfig, ImageSet]:
    """Number labels, query and target as the classifier numbers its outputs: by name where it has ``names``.

    Raises FlagError for a name that it does not have.
    """
    data, known = config.data, images.class_names
    owner = f"the classifier {config.weights.classifier_path}"
    if images.binary or names is None or names == known:  # names may repeat: two of ImageNet's do
        query = images.query if images.binary else resolve_label(images, data.label_query, "label_query")
        target = resolve_label(images, data.label_target, "label_target")
    else:
        query = resolve_name(names, data.label_query, "label_query", owner)
        target = resolve_name(names, data.label_target, "label_target", owner)
        if missing := sorted({*(known or ())} - {*names}):
            reason = f"has classes that {owner} does not know: {', '.join(missing[:5])}"
            raise FlagError("data_dir", f"{data.data_dir} {reason}; it knows {', '.join(names[:20])}")
        if known:
            place = [names.index(name) for name in known] + [-1]  # the last: a label of -1 is unknown
            records = [replace(record, label=place[record.label]) for record in images.records]
            images = replace(images, records=records, class_names=names)
    return replace(config, data=replace(data, label_query=query, label_target=target)), images


def check_labels(config: MainConfig, images: ImageSet, outputs: int) -> None:
    """Refuse labels that the classifier has no output for, and a target that is the query.  Raises FlagError."""
    if images.binary:
        return
    target, largest = config.data.label_target, max(record.label for record in images.records)
    if largest >= outputs:
        there = f"{outputs} outputs, but data_dir {config.data.data_dir} has labels up to {largest}; choose another"
        raise FlagError("classifier_path", f"{config.weights.classifier_path} has {there}")
    if target != -1 and config.data.label_query == target:
        name = images.class_names[target] if images.class_names else target
        raise FlagError("label_target", f"{name} is label_query itself; choose another class")
