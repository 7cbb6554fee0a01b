//! Whether two clocks agree well enough. A SuperLink refuses what a node signed more than five seconds from now, or more
//! than five minutes ago (Flower 1.22, `server/superlink/fleet/grpc_rere/server_interceptor.py`).

use super::finding::{Check, Finding};

/// Judges how far this machine is ahead of a server, in seconds, give or take `error`.
pub(super) fn judge(subject: &str, ahead: f64, error: f64) -> Finding {
    let (for_sure, way) = match ahead {
        ahead if ahead >= 0.0 => (ahead - error, "ahead of"),
        ahead => (-ahead - error, "behind"),
    };
    let says = format!(
        "this machine's clock is {:.1} s {way} the SuperLink's",
        ahead.abs()
    );
    let refused_from = if ahead >= 0.0 { AHEAD_MAX } else { BEHIND_MAX };
    if for_sure > refused_from {
        let says = format!("{says}: what nodes on this machine sign is refused");
        return Check::Clock.problem(subject, says).mended_by(SET);
    }
    if for_sure > NOTICEABLE {
        return Check::Clock.warning(subject, says).mended_by(SET);
    }
    Check::Clock.ok(subject, says)
}

const AHEAD_MAX: f64 = 5.0;
const BEHIND_MAX: f64 = 300.0;
const NOTICEABLE: f64 = 2.0;
const SET: &str = "timedatectl set-ntp true, on both machines";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    #[test]
    fn what_counts_is_what_a_superlink_refuses() {
        for (ahead, error, level) in [
            (0.3, 0.1, Level::Ok),
            (2.5, 1.0, Level::Ok),
            (4.0, 0.1, Level::Warning),
            (5.5, 0.1, Level::Problem),
            (5.5, 1.0, Level::Warning),
            (-60.0, 0.1, Level::Warning),
            (-400.0, 0.1, Level::Problem),
        ] {
            assert_eq!(judge("a", ahead, error).level, level, "{ahead} {error}");
        }
    }
}
