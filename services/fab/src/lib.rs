//! Flower App Bundles and the configuration of apps: what daemons read of them.
//!
//! [`bundle`] opens a bundle, [`config`] makes an app's configuration of its defaults and of what
//! users give. Nothing here reads files or knows where a bundle came from.

pub mod bundle;
pub mod config;

pub use bundle::{FAB_BYTES_MAX, Refusal, default_config, inspect};
pub use config::{
    InvalidConfig, UnknownKey, fuse, names_file, parse_config_args, parse_config_toml,
};
