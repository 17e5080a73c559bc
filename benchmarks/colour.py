"""Networks of one channel for an attack on three, as the demo's preset made it when its networks took three."""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from ace_counterfactuals.core.method.task import Batch
from ace_counterfactuals.models.classifiers import Classifier
from ace_counterfactuals.models.denoisers import DiffusionModel
from benchmarks.trial import Bench


@dataclass(frozen=True)
class ThreeChannels:
    """A diffusion model of one channel that denoises each of three as a picture of its own."""

    model: DiffusionModel
    channels: int = 3

    def __call__(self, x_t: Tensor, steps: Tensor, classes: Tensor | None = None) -> Tensor:
        """x_t (N, 3, H, W) -> (N, 6, H, W): the noise, then the variance, of each channel."""
        output = self.model(x_t.flatten(0, 1)[:, None], steps.repeat_interleave(3))
        return output.unflatten(0, (len(x_t), 3)).transpose(1, 2).flatten(1, 2)


class Mean(nn.Module):
    """Of the channels: (N, 3, H, W) -> (N, 1, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)


def of_three_channels(classifier: Classifier) -> Classifier:
    """The classifier for pictures in colour, of which one of one channel sees the mean."""
    if classifier.channels == 3:
        return classifier
    normalisation = [values.flatten().tolist() * 3 for values in (classifier.mean, classifier.std)]
    network = nn.Sequential(Mean(), *classifier.network)
    names = classifier.class_names
    return Classifier(network, normalisation, num_outputs=classifier.num_outputs, class_names=names).eval()


def in_colour(batch: Batch, bench: Bench) -> tuple[Batch, Bench]:
    """The same photographs with three channels, and networks and judges that take these."""
    task, image = batch.task, batch.image.expand(-1, 3, -1, -1).contiguous()
    networks = {"classifier": of_three_channels(task.classifier), "denoiser": ThreeChannels(task.denoiser)}
    judges = {name: of_three_channels(network) for name, network in bench.unseen.items()}
    return replace(batch, image=image, task=replace(task, **networks)), replace(bench, unseen=judges)
