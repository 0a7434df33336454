//! What can go wrong between this machine and the hub, in words that say what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dwindle_compiler::size::Size;

use super::digest::Digest;

/// Why a model did not arrive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model's licence was not accepted by whoever asks, or nobody said who asks.
    #[error(
        "{id} is gated{}: accept its licence at {page}, make an access token, and set HF_TOKEN to it",
        if *with_token { " and the account of the token in use has no access" } else { "" }
    )]
    Gated {
        /// The model.
        id: String,
        /// Where its licence is.
        page: String,
        /// Whether a token was sent.
        with_token: bool,
    },

    /// The hub does not say which of the two.
    #[error(
        "the hub has no model {id} for {}: check the spelling; if it is private, set HF_TOKEN to a token that may read it",
        if *with_token { "the account of the token in use" } else { "visitors without a token" }
    )]
    Unauthorized {
        /// The model.
        id: String,
        /// Whether a token was sent.
        with_token: bool,
    },

    /// There is no such model or revision.
    #[error("the hub has no model {id} with revision {revision}: check the spelling of both")]
    NoSuchModel {
        /// The model.
        id: String,
        /// Branch, tag or commit.
        revision: String,
    },

    /// A file that was listed, or that every checkpoint has, is not there.
    #[error("{id} (revision {revision}) has no file {file}{hint}")]
    NoSuchFile {
        /// The model.
        id: String,
        /// Branch, tag or commit.
        revision: String,
        /// The file.
        file: String,
        /// What to do, after a colon.
        hint: &'static str,
    },

    /// Nothing that could be converted.
    #[error(
        "{id} holds no safetensors files: look on the hub for a repository that does, or convert it there (\"Convert to safetensors\")"
    )]
    NoWeights {
        /// The model.
        id: String,
    },

    /// Too many requests from this address or account.
    #[error("the hub limits the rate of requests{}: try again later; what was downloaded is kept. A token in HF_TOKEN raises the limit",
        wait.map_or(String::new(), |wait| format!(" for another {} s", wait.as_secs())))]
    RateLimited {
        /// How long the hub wants to be left alone.
        wait: Option<Duration>,
    },

    /// The hub has trouble, or does not understand.
    #[error("the hub answered {status} for {what}: try again later; what was downloaded is kept")]
    Status {
        /// HTTP status.
        status: u16,
        /// Model or file.
        what: String,
    },

    /// No answer, or not all of it.
    #[error(
        "cannot download {what}: {reason}. Check the network; what was downloaded is kept and taken up again{}",
        if *cached { ". The model is in the cache: with HF_HUB_OFFLINE=1 it is used from there" } else { "" }
    )]
    Network {
        /// Model or file.
        what: String,
        /// The cause.
        reason: String,
        /// Whether the cache would do.
        cached: bool,
    },

    /// An answer that is not what the hub's documentation says.
    #[error("the hub's answer about {what} makes no sense: {reason}. Is HF_ENDPOINT right?")]
    Answer {
        /// Model or file.
        what: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The server has more or fewer bytes than the hub lists.
    #[error(
        "{file} has {found} bytes where the hub lists {expected}: the file on the server is damaged or just changed; try again later"
    )]
    Length {
        /// The file.
        file: String,
        /// Bytes that are listed.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },

    /// What came is not what the hub lists.
    #[error("{file} arrived damaged and was removed: its {} is {found} where the hub lists {expected}. Try again; if it happens again, a proxy or mirror changes files", expected.name())]
    Hash {
        /// The file.
        file: String,
        /// What the hub lists.
        expected: Digest,
        /// What the bytes have.
        found: Digest,
    },

    /// The server gives no hash that could be checked.
    #[error(
        "the server tells no hash of {file}, so what arrives could not be checked: use the hub itself (unset HF_ENDPOINT), or a mirror that tells them"
    )]
    NoHash {
        /// The file.
        file: String,
    },

    /// The network must not be used, and the cache does not have it.
    #[error("{what} (revision {revision}): not in the cache {} and HF_HUB_OFFLINE is set: unset it to download, or name a local directory", cache.display())]
    NotCached {
        /// Model or files.
        what: String,
        /// Branch, tag or commit.
        revision: String,
        /// Where it was looked for.
        cache: PathBuf,
    },

    /// Not enough room.
    #[error("{}: the download takes {}, the file system has {} left; free some, or set HF_HOME to another place", path.display(), Size(*needed), Size(*available))]
    DiskSpace {
        /// Where the files should go.
        path: PathBuf,
        /// Bytes of the files.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },

    /// A local file could not be written or read.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },

    /// Nobody waits for the file any more.
    #[error("the download was given up")]
    Abandoned,
}

impl Error {
    /// For `map_err`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }
}
