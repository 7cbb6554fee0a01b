//! State in a database at its boundary: the battery, once over a state that stays open and once
//! over one that is killed before each of the first steps.

#![expect(clippy::unwrap_used, reason = "tests")]

mod away;
mod compared;
mod damage;
mod filled;
mod opening;
mod upkeep;
mod world;

mod stays_open {
    use crate::world::World;

    flwr_state::conformance!(async || World::new(0));
}

mod is_killed {
    use crate::world::World;

    flwr_state::conformance!(across_processes async || World::new(100));
}
