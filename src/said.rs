//! Warnings on stderr, each once a run: planning and doing look at the same checkpoint.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

use crate::output::note;

/// What was said already.
static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Says those that were not said yet.
pub fn warnings<W: Display>(warnings: &[W]) {
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    for warning in warnings {
        let text = warning.to_string();
        if said.insert(text.clone()) {
            note!("warning: {text}");
        }
    }
}
