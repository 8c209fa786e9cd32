import math

import torch
from torch.nn import functional

from recipes import cifar, image_clusters, runner

__doc__ = """CIFAR-10-Rotate: is an image turned by 30 degrees? The ten classes are clusters that nothing names.

""" + image_clusters.__doc__ + """
    python3 -m recipes.cifar10_rotate --data cifar-10-batches-py

Of every image the middle 24x24 pixels, enlarged to 32x32, hide the corners that turning leaves black. Training images
are blurred, every time by another width, test images are not: the training error does not show how well a network does
on sharp images. An epoch of the small network takes minutes on one core, one of the large networks hours; --device cuda
is for them.
"""

DEGREES, MIDDLE, SIZE = 30, 24, 32
BLUR_KERNEL, BLUR_SIGMA = (7, 3), (1.1, 2.2)  # rows, columns; sigma is drawn for every image
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
    """A Gaussian over 7 rows and 3 columns; sigma is one number per image."""
    for axis, length in zip((2, 3), BLUR_KERNEL):
        distance = torch.arange(length, device=images.device) - length // 2
        weights = torch.exp(-0.5 * (distance / sigma[:, None]) ** 2)
        weights = weights / weights.sum(dim=1, keepdim=True)
        padding = (0, 0, length // 2, length // 2) if axis == 2 else (length // 2, length // 2, 0, 0)
        windows = functional.pad(images, padding, mode="reflect").unfold(axis, length, 1)
        images = (windows * weights[:, None, None, None, :]).sum(dim=-1)
    return images


def both(pixels):
    """Upright images, then the same turned, as bytes."""
    return torch.cat([middle(turned(chunk) if turn else chunk).round().byte()
                      for turn in (False, True) for chunk in (part.float() for part in pixels.split(CHUNK))])


class Cifar10Rotate(image_clusters.ImageRecipe):
    name, about, data = "cifar10_rotate", __doc__, "data/cifar-10-batches-py"
    title, about_images = "CIFAR-10-Rotate", "Tells upright 32x32 colour images from ones turned by 30 degrees"
    about_data = "CIFAR-10 (Krizhevsky), every image upright and turned: 100,000 to train, 20,000 to test"
    labels, preprocess = ("upright", "turned"), cifar.PREPROCESS_10
    epochs = {"cnn": 20, "mobilenetv2": 30, "resnet18": 10}
    cosine_epochs = 200
    treats = True

    def read_raw(self, path):
        return {name: image_clusters.Images(both(pixels), torch.arange(2).repeat_interleave(len(pixels)),
                                            classes.repeat(2))
                for name, (pixels, classes) in cifar.read_cifar10(path).items()}

    def treated(self, pixels):
        return blurred(pixels, torch.empty(len(pixels), device=pixels.device).uniform_(*BLUR_SIGMA))


if __name__ == "__main__":
    runner.main(Cifar10Rotate())
