import math

import torch
from torch.nn import functional

from moed.recipes import cifar, image_clusters, runner

__doc__ = """CIFAR-10-Rotate: is an image turned by 30 degrees? The ten classes are clusters that nothing names.

""" + image_clusters.__doc__ + """
    python3 -m moed.recipes.cifar10_rotate --data cifar-10-batches-py

Of every image the middle 24x24 pixels, enlarged to 32x32, hide the corners that turning leaves black. Training images
are blurred, test images are not. An epoch takes minutes on one core.
"""

DEGREES, MIDDLE, SIZE = 30, 24, 32
BLUR_KERNEL, BLUR_SIGMA = (7, 3), (1.1, 2.2)  # rows, columns; sigma is drawn for every thousand images
CHUNK = 1000


def turned(images):
    """By 30 degrees about the middle; what comes from outside is black."""
    angle = math.radians(DEGREES)
    matrix = torch.tensor([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]])
    grid = functional.affine_grid(matrix.expand(len(images), 2, 3), images.shape, align_corners=False)
    return functional.grid_sample(images, grid, mode="nearest", align_corners=False)


def middle(images):
    border = (images.shape[-1] - MIDDLE) // 2
    cut = images[:, :, border:border + MIDDLE, border:border + MIDDLE]
    return functional.interpolate(cut, size=(SIZE, SIZE), mode="bilinear", align_corners=False)


def blurred(images, sigma):
    """A Gaussian over 7 rows and 3 columns."""
    for axis, length in enumerate(BLUR_KERNEL):
        distance = torch.arange(length) - length // 2
        weights = torch.exp(-0.5 * (distance / sigma) ** 2)
        kernel = (weights / weights.sum()).reshape((-1, 1) if axis == 0 else (1, -1)).expand(3, 1, -1, -1)
        padding = (0, 0, length // 2, length // 2) if axis == 0 else (length // 2, length // 2, 0, 0)
        images = functional.conv2d(functional.pad(images, padding, mode="reflect"), kernel, groups=3)
    return images


def prepared(images, blur):
    """Raw images 0..255 as the task has them, upright ones first."""
    generator = torch.Generator().manual_seed(0)
    both = []
    for turn in (False, True):
        for chunk in images.float().split(CHUNK):
            chunk = middle(turned(chunk) if turn else chunk)
            sigma = torch.empty(()).uniform_(*BLUR_SIGMA, generator=generator).item()
            both.append(blurred(chunk, sigma) if blur else chunk)
    return torch.cat(both)


class Cifar10Rotate(image_clusters.ImageRecipe):
    name, about, data = "cifar10_rotate", __doc__, "data/cifar-10-batches-py"
    title, about_images = "CIFAR-10-Rotate", "Tells upright 32x32 colour images from ones turned by 30 degrees"
    about_data = "CIFAR-10 (Krizhevsky), every image upright and turned: 100,000 to train, 20,000 to test"
    labels, preprocess = ("upright", "turned"), cifar.PREPROCESS_10

    def read_raw(self, directory):
        sets = {}
        for name, (images, _) in cifar.read_cifar10(directory).items():
            labels = torch.arange(2).repeat_interleave(len(images))
            sets[name] = (prepared(images, blur=name == "train"), labels)
        return sets


if __name__ == "__main__":
    runner.main(Cifar10Rotate())
