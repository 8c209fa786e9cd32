from moed.recipes import cifar, image_clusters, runner

__doc__ = """CIFAR-10: """ + image_clusters.__doc__.replace("One network", "one network", 1) + """
    python3 -m moed.recipes.cifar10 --data cifar-10-batches-py

An epoch takes minutes on one core.
"""


class Cifar10(image_clusters.ImageRecipe):
    name, about, data = "cifar10", __doc__, "data/cifar-10-batches-py"
    title, about_images = "CIFAR-10", "Classifies 32x32 colour images"
    about_data = "CIFAR-10 (Krizhevsky): 50,000 images to train, 10,000 to test"
    labels, preprocess = cifar.NAMES, cifar.PREPROCESS_10

    def read_raw(self, directory):
        return {name: (images.float(), labels) for name, (images, labels) in cifar.read_cifar10(directory).items()}


if __name__ == "__main__":
    runner.main(Cifar10())
