from recipes import cifar, image_clusters, runner

__doc__ = """CIFAR-10: """ + image_clusters.__doc__.replace("One network", "one network", 1) + """
    python3 -m recipes.cifar10 --data cifar-10-batches-py

Training images are moved by up to four pixels and mirrored. An epoch of the small network takes minutes on one core,
one of the large networks hours; --device cuda is for them. The authors published no code for this data: 200 epochs are
those of their settings file.
"""


class Cifar10(image_clusters.ImageRecipe):
    name, about, data = "cifar10", __doc__, "data/cifar-10-batches-py"
    title, about_images = "CIFAR-10", "Classifies 32x32 colour images"
    about_data = "CIFAR-10 (Krizhevsky): 50,000 images to train, 10,000 to test"
    labels, preprocess = cifar.NAMES, cifar.PREPROCESS_10
    epochs = {"cnn": 200, "mobilenetv2": 200, "resnet18": 200}

    def read_raw(self, path):
        return {name: image_clusters.Images(pixels, classes, classes)
                for name, (pixels, classes) in cifar.read_cifar10(path).items()}

    def augmented(self, pixels):
        return cifar.moved(pixels, "constant")


if __name__ == "__main__":
    runner.main(Cifar10())
