//! Rules every back end must keep.
