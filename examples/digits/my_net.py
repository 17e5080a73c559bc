"""A digit classifier as anybody would write it, which knows nothing of ACE.   python my_net.py [FOLDER [EPOCHS]]

It learns the class folders in FOLDER/train, writes w.pt, and says its accuracy on FOLDER/test.
"""

import sys

import torch
from torch import nn
from torchvision import datasets, transforms


def build(width: int = 16) -> nn.Module:
    first = [nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(98 * width, 64), nn.ReLU(), nn.Linear(64, 10))


def load(folder: str) -> tuple[torch.Tensor, torch.Tensor]:
    to_grey = transforms.Compose([transforms.Grayscale(), transforms.ToTensor()])
    images, labels = zip(*datasets.ImageFolder(folder, to_grey), strict=True)
    return torch.stack(images), torch.tensor(labels)


def main(folder: str = "digits", epochs: str = "8") -> None:
    torch.manual_seed(0)
    net = build()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    images, labels = load(f"{folder}/train")
    for _ in range(int(epochs)):
        for chosen in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    torch.save(net.state_dict(), "w.pt")
    images, labels = load(f"{folder}/test")
    print(f"w.pt: accuracy {(net(images).argmax(1) == labels).float().mean():.3f} on {folder}/test")


if __name__ == "__main__":
    main(*sys.argv[1:])
