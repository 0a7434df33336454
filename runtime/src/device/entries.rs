//! Where kernels and weights come from: a bundle, or a map in memory.

use std::collections::BTreeMap;

use dwindle_bundle::{Bundle, SharedEntry};

use crate::Error;

/// What takes one chunk of an entry, with its offset.
pub type Take<'a> = dyn FnMut(u64, &[u8]) -> Result<(), Error> + 'a;

/// A source of a plan's entries, by name.
pub trait Entries {
    /// A whole entry that is text.
    ///
    /// # Errors
    /// The entry is missing, damaged or not UTF-8.
    fn text(&self, name: &str) -> Result<&str, Error>;

    /// Hands an entry to `take` in chunks of `chunk` bytes, in order; the last may be shorter.
    ///
    /// # Errors
    /// The entry is missing, or `take` fails, or the contents are found damaged (then all that was taken is void).
    fn stream(&self, name: &str, chunk: usize, take: &mut Take<'_>) -> Result<(), Error>;

    /// A whole entry where it lies, checked, for as long as the caller keeps it; `None` where this source cannot lend.
    ///
    /// # Errors
    /// The entry is missing or damaged.
    fn share(&self, name: &str) -> Result<Option<SharedEntry>, Error>;
}

impl Entries for Bundle {
    fn share(&self, name: &str) -> Result<Option<SharedEntry>, Error> {
        Ok(Some(Bundle::share(self, name)?))
    }

    fn text(&self, name: &str) -> Result<&str, Error> {
        Ok(Bundle::text(self, name)?)
    }

    fn stream(&self, name: &str, chunk: usize, take: &mut Take<'_>) -> Result<(), Error> {
        Bundle::stream(self, name, chunk, take)
    }
}

impl Entries for BTreeMap<String, Vec<u8>> {
    fn share(&self, _: &str) -> Result<Option<SharedEntry>, Error> {
        Ok(None)
    }

    fn text(&self, name: &str) -> Result<&str, Error> {
        std::str::from_utf8(entry(self, name)?)
            .map_err(|_| Error::Plan { why: format!("entry `{name}` is no UTF-8 text") })
    }

    fn stream(&self, name: &str, chunk: usize, take: &mut Take<'_>) -> Result<(), Error> {
        let chunk = chunk.max(1);
        entry(self, name)?.chunks(chunk).enumerate().try_for_each(|(i, part)| take((i * chunk) as u64, part))
    }
}

fn entry<'a>(entries: &'a BTreeMap<String, Vec<u8>>, name: &str) -> Result<&'a [u8], Error> {
    entries.get(name).map(Vec::as_slice).ok_or_else(|| Error::Plan { why: format!("there is no entry `{name}`") })
}
