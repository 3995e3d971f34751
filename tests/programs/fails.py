"""A program that never gets as far as training; it needs none of the heavy imports for that.

Usage: fails.py --out DIR --how crash|import [OPTIONS THAT ARGPARSE DOES NOT KNOW]
"""

from __future__ import annotations

import argparse


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out")
    parser.add_argument("--how", choices=["crash", "import"], default="crash")
    if parser.parse_args().how == "import":
        import a_module_that_nobody_has  # type: ignore[import-not-found]  # noqa: F401
    raise RuntimeError("it never works")


if __name__ == "__main__":
    main()
