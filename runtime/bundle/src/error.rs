//! What can be wrong with a bundle.

use std::io;
use std::path::PathBuf;

use crate::FORMAT_VERSION;

/// A bundle could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is something else.
    #[error("not a bundle: {found}; `dwindle compile` makes bundles (*.dwindle)")]
    WrongFileType {
        /// What it looks like.
        found: String,
    },
    /// The ZIP structure is broken, mostly because the file is incomplete.
    #[error("the bundle is damaged or incomplete ({why}); copy or compile it again")]
    Damaged {
        /// What does not fit.
        why: String,
    },
    /// A newer or older format.
    #[error("the bundle has format version {found}, this program reads version {FORMAT_VERSION}; compile it again")]
    Version {
        /// Version in the file.
        found: u64,
    },
    /// The manifest is not what this program writes.
    #[error("the bundle's manifest is invalid: {why}")]
    Manifest {
        /// Where and what.
        why: String,
    },
    /// An entry's contents are not those that were written.
    #[error(
        "entry `{entry}` of the bundle does not have the hash that its manifest promises: the file was damaged or changed; copy or compile it again"
    )]
    Hash {
        /// The entry.
        entry: String,
    },
    /// An entry is not there.
    #[error("the bundle has no entry `{entry}`")]
    MissingEntry {
        /// The entry.
        entry: String,
    },
    /// A plan refers to something that is not there.
    #[error("the plan of model `{model}` is invalid: {why}")]
    Plan {
        /// The model.
        model: String,
        /// Where and what.
        why: String,
    },
    /// Pictures are to be made into something that the plan does not take, or into far too much.
    #[error("the image input of model `{model}` is invalid: {why}; compile it again")]
    ImageInput {
        /// The model.
        model: String,
        /// What does not fit.
        why: String,
    },
    /// The memory plan contradicts the plans it sums up.
    #[error("the bundle's memory plan is invalid: {why}; compile it again")]
    MemoryPlan {
        /// What does not agree.
        why: String,
    },
    /// The bundle was compiled for other targets.
    #[error(
        "the bundle is compiled for {}, not for {wanted}: compile its models again with `--target {},{wanted}`",
        found.join(" and "), found.join(",")
    )]
    NoTarget {
        /// The target that was asked for.
        wanted: String,
        /// Those that are there.
        found: Vec<String>,
    },
    /// An entry was written twice.
    #[error("entry `{entry}` is written twice")]
    DuplicateEntry {
        /// The entry.
        entry: String,
    },
}
