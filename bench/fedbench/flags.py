"""Values of command line flags, for argparse's `type`."""

import argparse
from pathlib import Path


def names(text):
    """The names between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def positive(text):
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def seconds(text):
    """Moments between commas, in seconds."""
    return [float(moment) for moment in names(text)]


def add_results(parser):
    """What becomes of the results."""
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a target is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to FILE")


def add_resume(parser):
    """How a long measurement goes on after an interruption, and its charts."""
    parser.add_argument("--resume", action="store_true", help="go on with the samples in the file of --json")
    parser.add_argument("--charts", type=Path, metavar="DIR", help="draw charts (SVG) into DIR")
