//! The battery every transport must pass.
