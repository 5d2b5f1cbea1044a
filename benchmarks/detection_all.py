"""Print all tables of the anomaly detector: synthetic sensors, buildings, real series, NAB, and its parts.

    python benchmarks/detection_all.py [--real REAL.parquet] [--nab NAB] [--seeds N]

The files' forms are described in detection_real.py and detection_nab.py; without them their tables are left
out. About ten minutes on two cores.
"""

import argparse
from pathlib import Path

import detection
import detection_ablation
import detection_buildings
import detection_nab
import detection_real


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", type=Path, help="real series, see detection_real.py")
    parser.add_argument("--nab", type=Path, help="the Numenta Anomaly Benchmark's repository")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of each kind (default: 1)")
    options = parser.parse_args()
    print("# Synthetic sensors\n")
    detection.print_table(options.seeds)
    print("\n# Buildings\n")
    detection_buildings.print_table(3 * options.seeds)
    print("\n# Real series\n")
    if options.real:
        detection_real.print_tables(options.real, 3 * options.seeds)
    else:
        print("Left out: give a file with --real, as detection_real.py describes it.")
    print("\n# Numenta Anomaly Benchmark\n")
    if options.nab:
        detection_nab.print_tables(options.nab)
    else:
        print("Left out: git clone https://github.com/numenta/NAB, and give its directory with --nab.")
    print("\n# Without one part\n")
    detection_ablation.print_table(options.real)


if __name__ == "__main__":
    main()
