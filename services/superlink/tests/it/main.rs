//! The services in virtual time, called as a transport calls them.

mod holds;
mod launches;
mod nodes;
mod world;
