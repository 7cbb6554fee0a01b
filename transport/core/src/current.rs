//! What is used now, and can be replaced while it is used.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// A value that all its holders replace together. Whoever loads it keeps what was there then.
pub struct Current<T>(Arc<ArcSwap<T>>);

impl<T> Current<T> {
    /// Begins with `value`.
    pub fn new(value: T) -> Self {
        Arc::new(value).into()
    }

    /// What is used now.
    #[must_use]
    pub fn load(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// From now on `value` is used.
    pub fn replace(&self, value: Arc<T>) {
        self.0.store(value);
    }
}

impl<T> From<Arc<T>> for Current<T> {
    fn from(value: Arc<T>) -> Self {
        Self(Arc::new(ArcSwap::new(value)))
    }
}

impl<T: Clone> From<&T> for Current<T> {
    fn from(value: &T) -> Self {
        Self::new(value.clone())
    }
}

impl<T> Clone for Current<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Current<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_holders_see_what_takes_its_place() {
        let one = Current::new(1);
        let other = one.clone();
        let before = one.load();
        other.replace(Arc::new(2));
        assert_eq!((*before, *one.load()), (1, 2));
    }
}
