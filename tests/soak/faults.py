"""What clients, disks, clocks, operators and memory do to a server, and what it loses.

    python3 tests/soak/faults.py [--only WORD] [--allocations 60] [--json FILE]

Each fault has a server of its own and a good client that asks for two models and for health all the while; its answers
must stay the same bit for bit. A line of the table says what was injected, how many of the good client's requests were
lost and the slowest of them, the resident memory and by how much it grew, and how soon new connections were answered.
Exit status 1 if any fault did more than its line allows. With MOED_BINARY=build/asan/moed failing allocations are tried
under AddressSanitizer. As root it also fills a disk and makes one read-only.
"""

import argparse
import json
import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))

import faults_clients
import faults_memory
import faults_process
from site_of_fault import Row, write_repository


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="faults whose names contain this")
    parser.add_argument("--allocations", type=int, default=60,
                        help="how many allocations fail, each in a server of its own if that ends it; 0: all of some 7,000")
    parser.add_argument("--json", help="also write the table there")
    options = parser.parse_args()
    began, rows = time.monotonic(), []
    print("| fault | injected | good requests lost | memory | recovery | |\n|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        models = os.path.join(directory, "models")
        write_repository(models)
        for name, fault in (*faults_clients.faults(models), *faults_process.faults(models, directory),
                            *faults_memory.faults(models, directory, options.allocations)):
            if options.only not in name:
                continue
            try:
                row = fault()
            except Exception as failure:  # the other faults are still worth knowing
                row = Row(name, "", wrong=f"{type(failure).__name__}: {failure}")
            row.fault = name
            rows.append(row)
            print(row.markdown(), flush=True)
    wrong = [row.fault for row in rows if row.wrong]
    print(f"\n{len(rows)} faults in {time.monotonic() - began:.0f} s; did more than they may: {', '.join(wrong) or 'none'}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump([vars(row) for row in rows], file, indent=1)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
