//! State in a database at its boundary: the battery, once over a state that stays open and once
//! over one that is killed before each step.

#![expect(clippy::unwrap_used, reason = "tests")]

mod world;

mod stays_open {
    use crate::world::World;

    flwr_state::conformance!(async || World::new(false));
}

mod is_killed {
    use crate::world::World;

    flwr_state::conformance!(async || World::new(true));
}
