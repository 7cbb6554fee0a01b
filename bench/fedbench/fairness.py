"""Two uploads through one bottleneck: whether each gets its share."""

from . import flows, linkrun
from .linkreport import at_least, by, markdown, spread, summary
from .linkrun import Transport

RTTS_MS, RATE_MBIT = (20, 50, 100), 50
PAIRS = "quic+quic,quic+tls-cubic,quic+tls-bbr,tls-cubic+tls-cubic,tls-cubic+tls-bbr"
STARTUP_S, WINDOW_S = 5, 30
SLACK_S = 3
GOAL = 0.25


def pair(text):
    """Two transports out of `quic+tls-bbr`. Raises ValueError."""
    both = tuple(Transport.parse(label) for label in text.split("+"))
    if len(both) != 2:
        raise ValueError(f"{text!r} is not two transports with a plus between them")
    for one in both:
        flows.socket_flags(one)
    return both


def measure(programs, both, rtt_ms, seed, profile="wan-20"):
    """One run; with every other seed, the second of the pair starts first."""
    link_flags = ["--rtt-ms", rtt_ms, "--rate-mbit", RATE_MBIT, "--loss-percent", 0, "--queue-bdp", 1]
    seconds = flows.START_APART_S + STARTUP_S + WINDOW_S + SLACK_S
    order = both if seed % 2 else both[::-1]
    sample = linkrun.sound(lambda: flows.transfer(programs, profile, order, seed, seconds, link_flags))
    if not seed % 2:
        sample["flows"].reverse()
    return judge(sample, "+".join(one.label for one in both), 0 if seed % 2 else 1)


def judge(sample, label, first):
    """Adds the figures: each flow's bytes in the common time, over half of what the link carries in it.

    The bytes of each tenth of a second go; nothing needs them any more.
    """
    arrivals = [flow["server"].pop("arrivals") for flow in sample["flows"]]
    begins = [flows.first_arrival(one) for one in arrivals]
    if None in begins:
        raise linkrun.Failed(f"{label}: nothing arrived of a flow")
    begin_s = max(begins) + STARTUP_S
    # A flow that starves to death still had the time of the other.
    end_s = begin_s + WINDOW_S
    half_mbit = sample["asked"]["rate_mbit"] / 2
    for flow, one in zip(sample["flows"], arrivals):
        flow["mbit"] = flows.bytes_between(one, begin_s, end_s) * 8 / WINDOW_S / 1e6
        flow["share"] = flow["mbit"] / half_mbit
    sample.update(pair=label, first=first, rtt_ms=sample["asked"]["rtt_ms"])
    sample["link_share"] = sum(flow["mbit"] for flow in sample["flows"]) / sample["asked"]["rate_mbit"]
    return sample


def table(samples):
    """Markdown."""
    rows = [("RTT ms", "flows", "share of the first", "share of the second", "both / link", "runs")]
    for (rtt_ms, label), many in by(samples, "rtt_ms", "pair").items():
        shares = (spread(summary(shares_of(many, number)), 2) for number in (0, 1))
        both = spread(summary([one["link_share"] for one in many]), 2)
        rows.append((f"{rtt_ms:g}", label.replace("+", " + "), *shares, both, str(len(many))))
    note = f"Of a fair half of {RATE_MBIT} Mbit/s, in {WINDOW_S} s; the queue holds one product of rate and round trip."
    return f"{markdown(rows)}\n\n{note}"


def targets(samples):
    """The least share of any run is held against the goal; pairs without QUIC are yardsticks."""
    rows = []
    for (rtt_ms, label), many in by(samples, "rtt_ms", "pair").items():
        names = label.split("+")
        if not any(name.startswith("quic") for name in names):
            continue
        for number, name in enumerate(names):
            other = names[1 - number]
            if name == other and number:
                continue
            least = min(shares_of(many, number) + (shares_of(many, 1) if name == other else []))
            rows.append(at_least(f"{rtt_ms:g} ms: least share of {name} beside {other}", GOAL, least))
    return rows


def shares_of(many, number):
    """Of the first or the second flow, one for each run."""
    return [sample["flows"][number]["share"] for sample in many]
