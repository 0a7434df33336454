//! Functions bound to memory, for as long as that memory stays where it is.
//!
//! Binding a function costs some hundred times what a look-up costs, and several sequences take turns; so a workspace keeps what it
//! bound for each. A sequence is known by a number that no other ever gets, so nothing that was bound to one can be used for another.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Who a sequence's states are, as long as they are there.
#[derive(Clone, Debug)]
pub(super) struct Identity(Arc<u64>);

impl Identity {
    /// Another one than all before.
    pub(super) fn new() -> Identity {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Identity(Arc::new(NEXT.fetch_add(1, Ordering::Relaxed)))
    }
}

/// Bound functions by name.
#[derive(Debug)]
pub(super) struct Bindings<T>(BTreeMap<String, Vec<Bound<T>>>);

#[derive(Debug)]
struct Bound<T> {
    states: Weak<u64>,
    number: u64,
    /// Which loading of the weights it is bound to.
    loading: u64,
    value: T,
}

impl<T> Bindings<T> {
    pub(super) const fn new() -> Bindings<T> {
        Bindings(BTreeMap::new())
    }

    /// What the function is bound to for these states and this loading of the weights.
    pub(super) fn get(&self, function: &str, states: &Identity, loading: u64) -> Option<&T> {
        let bound = self.0.get(function)?;
        let found = bound.iter().find(|bound| bound.number == *states.0 && bound.loading == loading)?;
        Some(&found.value)
    }

    /// Keeps `value`, and drops what is bound to states that are gone or to an earlier loading.
    pub(super) fn insert(&mut self, function: &str, states: &Identity, loading: u64, value: T) {
        for bound in self.0.values_mut() {
            bound.retain(|bound| bound.states.strong_count() > 0 && bound.loading == loading);
        }
        let bound = Bound { states: Arc::downgrade(&states.0), number: *states.0, loading, value };
        self.0.entry(function.to_owned()).or_default().push(bound);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_bound_is_found_until_its_memory_is_gone() {
        let mut bindings = Bindings::new();
        let (a, b) = (Identity::new(), Identity::new());
        bindings.insert("f", &a, 1, "a");
        bindings.insert("f", &b, 1, "b");
        assert_eq!((bindings.get("f", &a, 1), bindings.get("f", &b, 1)), (Some(&"a"), Some(&"b")));
        assert_eq!((bindings.get("g", &a, 1), bindings.get("f", &a, 2)), (None, None));
        drop(a);
        bindings.insert("g", &b, 1, "c");
        assert_eq!(bindings.0["f"].len(), 1);
        bindings.insert("g", &b, 2, "d");
        assert_eq!((bindings.get("f", &b, 1), bindings.get("g", &b, 2)), (None, Some(&"d")));
    }
}
