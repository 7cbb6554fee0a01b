"""Values of command line flags, for argparse's `type`."""

import argparse


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
