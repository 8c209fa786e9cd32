"""llama.cpp's convert_hf_to_gguf.py for models with the tokenizer of deploy/models/tiny-lm.

    python3 lm_convert.py LLAMA_SOURCE [OPTION OF THE CONVERTER]... DIRECTORY

The converter knows the pre-tokenizers of published models by a hash of what they make of one text, and refuses others.
This tokenizer cuts text as Qwen2's does.
"""

import os
import runpy
import sys

source = sys.argv.pop(1)
sys.path[1:1] = [source, os.path.join(source, "gguf-py")]
from conversion import base  # noqa: E402

base.TextModel.get_vocab_base_pre = lambda *_: "qwen2"
runpy.run_path(os.path.join(source, "convert_hf_to_gguf.py"), run_name="__main__")
