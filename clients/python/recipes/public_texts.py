"""Three kinds of English without copyright, out of Debian packages: {domain: [documents]}, paragraph per line.

The directory holds each package as `dpkg -x` unpacks it, below its name, or its .deb:

    apt-get download bible-kjv-text r-cran-janeaustenr jargon-text

    bible    King James Version, 1611; a document is a chapter, a line is a verse
    austen   the six novels of Jane Austen, 1811 to 1817; a document is a chapter
    jargon   the Jargon File 4.4.7, which its authors placed in the public domain; a document is an entry
"""

import glob
import gzip
import os
import re
import struct
import subprocess
import zlib
from collections import namedtuple

from recipes.idx import DataMissing

PACKAGES = {"bible": "bible-kjv-text", "austen": "r-cran-janeaustenr", "jargon": "jargon-text"}
FILES = {"bible": "usr/lib/bible.data", "austen": "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb",
         "jargon": "usr/share/doc/jargon-text/jargon.txt.gz"}
DOMAINS = tuple(PACKAGES)
BOOKS = """Genesis Exodus Leviticus Numbers Deuteronomy Joshua Judges Ruth 1_Samuel 2_Samuel 1_Kings 2_Kings
1_Chronicles 2_Chronicles Ezra Nehemiah Esther Job Psalms Proverbs Ecclesiastes Song_of_Solomon Isaiah Jeremiah
Lamentations Ezekiel Daniel Hosea Joel Amos Obadiah Jonah Micah Nahum Habakkuk Zephaniah Haggai Zechariah Malachi
Matthew Mark Luke John Acts Romans 1_Corinthians 2_Corinthians Galatians Ephesians Philippians Colossians
1_Thessalonians 2_Thessalonians 1_Timothy 2_Timothy Titus Philemon Hebrews James 1_Peter 2_Peter 1_John 2_John 3_John
Jude Revelation""".split()
# The text of a document and what a person would call it: a book, a novel, a word.
Document = namedtuple("Document", "title text")


def content(directory, domain):
    """The bytes of the package's file."""
    package, name = PACKAGES[domain], FILES[domain]
    path = os.path.join(directory, package, name)
    for deb in glob.glob(os.path.join(directory, package + "_*.deb")):
        if not os.path.exists(path):
            subprocess.run(["dpkg", "-x", deb, os.path.join(directory, package)], check=True)
    if not os.path.exists(path):
        raise DataMissing(f"{path} is missing. Run `apt-get download {' '.join(PACKAGES.values())}` in {directory}.")
    with open(path, "rb") as file:
        return file.read()


# --- the Bible --------------------------------------------------------------------------------------------------

BIBLE_COUNT_AT, BIBLE_OFFSETS_AT = 88, 92
COMPRESS_HEADER = b"\x1f\x9d\x90"  # of compress(1), which the file leaves out


def bible_text(data):
    """bible.data is a table of offsets and then windows, each packed by compress(1)."""
    count, = struct.unpack_from(">I", data, BIBLE_COUNT_AT)
    offsets = struct.unpack_from(f">{count}I", data, BIBLE_OFFSETS_AT) + (len(data),)
    windows = [subprocess.run(["gzip", "-dc"], input=COMPRESS_HEADER + data[begin:end], capture_output=True,
                              check=True).stdout for begin, end in zip(offsets, offsets[1:])]
    return b"".join(windows).decode("latin-1")


def bible(data):
    """Lines are like "Ge1:1 In the beginning"; books follow in the usual order."""
    verses = re.findall(r"^(\d?[A-Za-z]+)(\d+):(\d+) (.*)$", bible_text(data), re.M)
    books = dict(zip(dict.fromkeys(verse[0] for verse in verses), BOOKS))
    chapters = {}
    for short, chapter, verse, text in verses:
        chapters.setdefault((books[short].replace("_", " "), chapter), []).append(f"{verse} {text.strip()}")
    return [Document(book, f"{book} {chapter}\n" + "\n".join(verses)) for (book, chapter), verses in chapters.items()]


# --- the novels -------------------------------------------------------------------------------------------------

R_STRINGS, R_STRING = 0x10, 0x09


def r_strings(data):
    """The strings of a serialised character vector of R (format X, version 3)."""
    encoding_size, = struct.unpack_from(">I", data, 14)
    place = 18 + encoding_size
    kind, count = struct.unpack_from(">II", data, place)
    if kind & 0xFF != R_STRINGS:
        raise ValueError(f"expected a character vector of R, found type {kind & 0xFF}")
    place, result = place + 8, []
    for _ in range(count):
        kind, size = struct.unpack_from(">II", data, place)
        if kind & 0xFF != R_STRING:
            raise ValueError(f"expected a string of R, found type {kind & 0xFF}")
        result.append(data[place + 8:place + 8 + size].decode())
        place += 8 + size
    return result


def r_database(data):
    """The objects of an .rdb file: each its size in four bytes, then zlib's stream."""
    while data:
        stream = zlib.decompressobj()
        yield stream.decompress(data[4:])
        data = stream.unused_data


def paragraphs(lines):
    """Wrapped lines as one line per paragraph."""
    blocks = re.split(r"\n\s*\n", "\n".join(line.strip() for line in lines))
    return [" ".join(block.split()) for block in blocks if block.strip()]


def austen(data):
    result = []
    for novel in map(r_strings, r_database(data)):
        title = novel[0].strip().title().replace(" And ", " and ")
        chapters = re.split(r"^(?=chapter\b)", "\n".join(novel), flags=re.M | re.I)[1:]
        result += [Document(title, "\n".join(paragraphs(chapter.split("\n")))) for chapter in chapters]
    return result


# --- the Jargon File --------------------------------------------------------------------------------------------

ENTRY = re.compile(r"^:([^:]+):")
PART = re.compile(r"^(Chapter \d+|Appendix [A-Z])\. ")
BEGINNING = "Welcome to the Jargon File"  # once in the table of contents, once above the text


def jargon(data):
    """Entries begin ":word:", prose is cut at its chapters. Braces mark references; the text is better without."""
    text = gzip.decompress(data).decode()
    lines = re.sub(r"[{}]|^\s*[═─]+$", "", text[text.index(BEGINNING, text.index(BEGINNING) + 1):], flags=re.M)
    documents = [("", [])]
    for paragraph in paragraphs(lines.split("\n")):
        entry = ENTRY.match(paragraph)
        if entry or PART.match(paragraph):
            documents.append((entry.group(1) if entry else "", []))
        documents[-1][1].append(paragraph)
    return [Document(title, "\n".join(text)) for title, text in documents if len(text) > 1]


READERS = {"bible": bible, "austen": austen, "jargon": jargon}


def read(directory):
    return {domain: READERS[domain](content(directory, domain)) for domain in DOMAINS}
