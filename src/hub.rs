//! Downloads checkpoints from the Hugging Face hub into its usual cache, or finds them there.
//!
//! First ask what there is, then decide, then download:
//!
//! ```text
//! let hub = Hub::from_env()?;
//! let listing = hub.list("google/gemma-2-2b-it", None)?;          // names, sizes, hashes; one request
//! let missing = hub.missing_bytes(&listing, &listing.files, &place);
//! // Either everything, into the cache that other tools share …
//! let directory = hub.fetch(&listing, &bars)?;
//! // … or what is small first, then the shards one by one; the next is downloaded while this one is worked on.
//! let place = Place::Folder(work.join("source"));
//! let companions = listing.companions().cloned().collect();
//! for arrival in hub.arrivals(&listing, companions, &place, &bars)? { let path = arrival?.path; … }
//! let weights = listing.weights().cloned().collect();
//! for arrival in hub.arrivals(&listing, weights, &place, &bars)? {
//!     let arrival = arrival?;                                      // whole, and its hash is right
//!     work_on(&arrival.path)?;
//!     arrival.discard()?;                                          // at most two shards are on disk
//! }
//! ```
//!
//! Every file is checked against the hash that the hub lists before it appears under its name. Interrupted downloads are taken up
//! where they ended, by the next run too. Environment: `HF_HOME` or `HF_HUB_CACHE` (cache), `HF_ENDPOINT` (another server),
//! `HF_TOKEN` (gated models), `HF_HUB_OFFLINE` (cache only).

mod arrivals;
mod cache;
mod client;
mod digest;
mod download;
mod error;
mod listing;
mod origin;
mod pace;
mod settings;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

pub use arrivals::Arrivals;
use cache::{ModelCache, has_size};
use client::{Client, Patience, Subject};
use download::Download;
pub use error::Error;
pub use listing::{Listing, RemoteFile};
use settings::Settings;
pub use settings::cache_location;

use crate::progress::{Bars, Transfer};

/// The hub, as the environment describes it. Nothing is sent before something is asked.
#[derive(Debug, Clone)]
pub struct Hub {
    settings: Settings,
    client: Client,
}

/// Where downloaded files go. What is in the hub's cache already is used from there in both cases.
#[derive(Debug, Clone)]
pub enum Place {
    /// The hub's cache, to stay.
    Cache,
    /// A folder of the caller's; files get the names they have on the hub.
    Folder(PathBuf),
}

/// Whether `text` is written like a hub id: `owner/name`, of letters, digits, `-`, `_` and `.`.
pub fn is_id(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= 96
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    matches!(text.split_once('/'), Some((owner, name)) if part(owner) && part(name))
}

impl Hub {
    /// # Errors
    /// There is no place for a cache.
    pub fn from_env() -> anyhow::Result<Self> {
        let settings = Settings::from_env()?;
        Ok(Hub { client: Client::new(&settings), settings })
    }

    /// What a model holds of what a conversion needs, at a branch, tag or commit [default: `main`]. Offline: what the cache holds.
    pub fn list(&self, id: &str, revision: Option<&str>) -> Result<Listing, Error> {
        let revision = revision.unwrap_or("main");
        let cached = || self.cache_of(id).list(id, revision);
        if self.settings.offline {
            return cached().ok_or_else(|| self.not_cached(id, revision));
        }
        match self.list_remote(id, revision) {
            Err(Error::Network { what, reason, .. }) => {
                Err(Error::Network { what, reason, cached: cached().is_some_and(|l| l.weights().next().is_some()) })
            }
            other => other,
        }
    }

    /// Downloads what of the listing is not in the cache yet, and gives the directory that holds all of it.
    pub fn fetch(&self, listing: &Listing, bars: &Bars) -> Result<PathBuf, Error> {
        if listing.weights().next().is_none() {
            if self.settings.offline {
                return Err(self.not_cached(&format!("the weights of {}", listing.id), &listing.revision));
            }
            return Err(Error::NoWeights { id: listing.id.clone() });
        }
        for arrival in self.arrivals(listing, listing.files.clone(), &Place::Cache, bars)? {
            arrival?;
        }
        let cache = self.cache_of(&listing.id);
        if !self.settings.offline {
            cache.write_reference(&listing.revision, &listing.commit)?;
        }
        Ok(cache.snapshot(&listing.commit))
    }

    /// Downloads the configuration of the model and that of its image processor alone, and gives the directory.
    ///
    /// # Errors
    /// [`Error::NoSuchFile`] where the model has no `config.json`.
    pub fn fetch_configuration(&self, listing: &Listing, bars: &Bars) -> Result<PathBuf, Error> {
        const CONFIGURATION: [&str; 2] = ["config.json", "preprocessor_config.json"];
        let is_wanted = |file: &&RemoteFile| CONFIGURATION.contains(&file.name.as_str());
        let files: Vec<RemoteFile> = listing.files.iter().filter(is_wanted).cloned().collect();
        if !files.iter().any(|file| file.name == CONFIGURATION[0]) {
            let (id, revision) = (listing.id.clone(), listing.revision.clone());
            let (file, hint) =
                (CONFIGURATION[0].to_owned(), ": only checkpoints of transformers can be used by hub id");
            return Err(Error::NoSuchFile { id, revision, file, hint });
        }
        for arrival in self.arrivals(listing, files, &Place::Cache, bars)? {
            arrival?;
        }
        let cache = self.cache_of(&listing.id);
        // An older commit that is here in full stays what the revision means without a network.
        if cache.list(&listing.id, &listing.revision).is_none() {
            cache.write_reference(&listing.revision, &listing.commit)?;
        }
        Ok(cache.snapshot(&listing.commit))
    }

    /// Downloads these files of the listing in the background, in this order; see [`Arrivals`].
    ///
    /// # Errors
    /// There is no room: for all that is missing in the cache, or for the two largest neighbours in a folder.
    pub fn arrivals(
        &self,
        listing: &Listing,
        files: Vec<RemoteFile>,
        place: &Place,
        bars: &Bars,
    ) -> Result<Arrivals, Error> {
        self.check_space(listing, &files, place)?;
        let transfer = bars.transfer(files.len(), total(&files));
        Arrivals::start(self.clone(), listing.clone(), files, place.clone(), transfer)
    }

    /// Bytes of these files that are neither in the cache nor at `place` yet.
    pub fn missing_bytes(&self, listing: &Listing, files: &[RemoteFile], place: &Place) -> u64 {
        files.iter().map(|file| self.missing(listing, file, place)).fold(0, u64::saturating_add)
    }

    /// The file, downloaded if it is not there.
    fn obtain(
        &self,
        listing: &Listing,
        file: &RemoteFile,
        place: &Place,
        transfer: &Transfer,
        stop: &AtomicBool,
    ) -> Result<PathBuf, Error> {
        let bar = transfer.file(&file.name, file.size);
        let cache = self.cache_of(&listing.id);
        if let Some(path) = self.find(listing, file, place) {
            bar.advance(file.size);
            return Ok(path);
        }
        if self.settings.offline {
            return Err(self.not_cached(&format!("{} of {}", file.name, listing.id), &listing.revision));
        }
        let download = |partial: &Path, target: &Path| {
            Download { client: &self.client, listing, file, partial, target, bar: &bar, stop }.run()
        };
        match place {
            Place::Cache => {
                cache.create()?;
                let _lock = cache.lock(file)?;
                let blob = cache.blob(file.digest);
                // Another revision may have it, or another program may have brought it meanwhile.
                match has_size(&blob, file.size) {
                    true => bar.advance(file.size),
                    false => download(&cache.partial(file.digest), &blob)?,
                }
                cache.link(&listing.commit, file)
            }
            Place::Folder(folder) => {
                fs::create_dir_all(folder).map_err(Error::io("make the folder", folder))?;
                let target = folder.join(&file.name);
                download(&partial_in(folder, file), &target)?;
                Ok(target)
            }
        }
    }

    /// The whole file, in the cache or at `place`.
    fn find(&self, listing: &Listing, file: &RemoteFile, place: &Place) -> Option<PathBuf> {
        self.cache_of(&listing.id).find(&listing.commit, file).or_else(|| match place {
            Place::Cache => None,
            Place::Folder(folder) => Some(folder.join(&file.name)).filter(|path| has_size(path, file.size)),
        })
    }

    fn missing(&self, listing: &Listing, file: &RemoteFile, place: &Place) -> u64 {
        let cache = self.cache_of(&listing.id);
        let partial = match place {
            Place::Cache if has_size(&cache.blob(file.digest), file.size) => return 0,
            Place::Cache => cache.partial(file.digest),
            Place::Folder(folder) => partial_in(folder, file),
        };
        match self.find(listing, file, place) {
            Some(_) => 0,
            None => file.size.saturating_sub(fs::metadata(partial).map_or(0, |info| info.len())),
        }
    }

    fn check_space(&self, listing: &Listing, files: &[RemoteFile], place: &Place) -> Result<(), Error> {
        let missing: Vec<u64> = files.iter().map(|file| self.missing(listing, file, place)).collect();
        let (folder, needed) = match place {
            Place::Cache => {
                (self.cache_of(&listing.id).folder().to_owned(), missing.iter().copied().fold(0, u64::saturating_add))
            }
            Place::Folder(folder) => {
                let pairs = missing.windows(2).map(|pair| pair[0].saturating_add(pair[1]));
                (folder.clone(), pairs.chain(missing.first().copied()).max().unwrap_or(0))
            }
        };
        if needed == 0 || self.settings.offline {
            return Ok(());
        }
        match dwindle_compiler::room::disk(&folder) {
            Some(available) if available < needed => Err(Error::DiskSpace { path: folder, needed, available }),
            // Where the file system does not tell, writing will.
            _ => Ok(()),
        }
    }

    fn list_remote(&self, id: &str, revision: &str) -> Result<Listing, Error> {
        let never = AtomicBool::new(false);
        let subject = Subject { id, revision, file: None };
        let (commit, entries) = persistently(&never, || self.client.describe(subject))?;
        let mut files = Vec::with_capacity(entries.len());
        for entry in entries {
            let (size, digest) = match (entry.size, entry.digest) {
                (Some(size), Some(digest)) => (size, digest),
                _ => {
                    let subject = Subject { file: Some(&entry.name), ..subject };
                    persistently(&never, || self.client.measure(&commit, &entry.name, subject))?
                }
            };
            files.push(RemoteFile { name: entry.name, size, digest });
        }
        Ok(Listing { id: id.to_owned(), revision: revision.to_owned(), commit, files })
    }

    fn cache_of(&self, id: &str) -> ModelCache {
        ModelCache::new(&self.settings.cache, id)
    }

    fn not_cached(&self, what: &str, revision: &str) -> Error {
        Error::NotCached { what: what.to_owned(), revision: revision.to_owned(), cache: self.settings.cache.clone() }
    }
}

fn partial_in(folder: &Path, file: &RemoteFile) -> PathBuf {
    folder.join(format!("{}.incomplete", file.name))
}

fn total(files: &[RemoteFile]) -> u64 {
    files.iter().map(|file| file.size).fold(0, u64::saturating_add)
}

/// Asks again after failures that time may heal.
fn persistently<T>(stop: &AtomicBool, mut ask: impl FnMut() -> Result<T, client::Failure>) -> Result<T, Error> {
    let mut patience = Patience::default();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(failure) => patience.endure(failure, stop)?,
        }
    }
}

#[cfg(test)]
#[path = "../tests/hub/server.rs"]
#[allow(dead_code, reason = "the tests of the program ask for more of it")]
mod server;

#[cfg(test)]
mod tests {
    use super::server::{Fault, Hub as Server};
    use super::*;

    fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
    }

    fn hub(server: &Server, cache: &Path) -> Hub {
        let settings =
            Settings { endpoint: server.address.clone(), token: None, cache: cache.to_owned(), offline: false };
        Hub { client: Client::new(&settings), settings }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Waits until the file is there; fails the test if it never comes.
    fn wait_for(path: &Path) {
        for _ in 0..1000 {
            if path.exists() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("{} does not arrive", path.display());
    }

    #[test]
    fn shards_arrive_while_the_caller_works_and_leave_when_discarded() {
        let source = golden("qwen2_untied_sharded");
        let server = Server::start(source.clone());
        server.fault("model-00002-of-00002.safetensors", Fault::Cut, 1);
        let work = tempfile::tempdir().unwrap();
        let (folder, cache) = (work.path().join("source"), work.path().join("cache"));
        let hub = hub(&server, &cache);
        let (bars, place) = (Bars::default(), Place::Folder(folder.clone()));
        let listing = hub.list("tiny/qwen2", None).unwrap();
        let weights: Vec<_> = listing.weights().cloned().collect();
        assert_eq!(weights.len(), 2);
        let bytes: u64 = weights.iter().map(|file| file.size).sum();
        assert_eq!(hub.missing_bytes(&listing, &weights, &place), bytes);
        let companions: Vec<_> = listing.companions().cloned().collect();
        for arrival in hub.arrivals(&listing, companions, &place, &bars).unwrap() {
            let arrival = arrival.unwrap();
            assert_eq!(fs::read(&arrival.path).unwrap(), fs::read(source.join(&arrival.file.name)).unwrap());
        }
        let mut arrivals = hub.arrivals(&listing, weights.clone(), &place, &bars).unwrap();
        let first = arrivals.next().unwrap().unwrap();
        // The second comes although nobody asked for it yet.
        wait_for(&folder.join(&weights[1].name));
        first.discard().unwrap();
        assert!(!folder.join(&weights[0].name).exists());
        assert_eq!(hub.missing_bytes(&listing, &weights, &place), weights[0].size);
        let second = arrivals.next().unwrap().unwrap();
        assert_eq!(fs::read(&second.path).unwrap(), fs::read(source.join(&second.file.name)).unwrap());
        second.discard().unwrap();
        assert!(arrivals.next().is_none());
        assert!(names(&folder).iter().all(|name| !name.contains("safetensors") || name.ends_with(".json")));
        assert!(!cache.exists(), "what goes to a folder leaves the cache alone");
    }

    #[test]
    fn no_more_than_one_file_waits_for_the_caller() {
        let source = tempfile::tempdir().unwrap();
        for index in 1..=4 {
            fs::write(source.path().join(format!("model-{index}.safetensors")), vec![index; 5000]).unwrap();
        }
        fs::write(source.path().join("model.safetensors.index.json"), "{}").unwrap();
        let server = Server::start(source.path().to_owned());
        let work = tempfile::tempdir().unwrap();
        let hub = hub(&server, &work.path().join("cache"));
        let listing = hub.list("tiny/qwen2", None).unwrap();
        let place = Place::Folder(work.path().join("source"));
        let weights = listing.weights().cloned().collect();
        let mut arrivals = hub.arrivals(&listing, weights, &place, &Bars::default()).unwrap();
        arrivals.next().unwrap().unwrap();
        wait_for(&work.path().join("source/model-2.safetensors"));
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(names(&work.path().join("source")), ["model-1.safetensors", "model-2.safetensors"]);
        // Giving up ends the thread, though nobody took the second file.
        drop(arrivals);
    }

    #[test]
    fn what_is_in_the_cache_is_used_and_never_discarded() {
        let server = Server::start(golden("qwen2"));
        let work = tempfile::tempdir().unwrap();
        let hub = hub(&server, &work.path().join("cache"));
        let (bars, place) = (Bars::default(), Place::Folder(work.path().join("source")));
        let listing = hub.list("tiny/qwen2", None).unwrap();
        let directory = hub.fetch(&listing, &bars).unwrap();
        let before = server.requests().len();
        for arrival in hub.arrivals(&listing, listing.files.clone(), &place, &bars).unwrap() {
            let arrival = arrival.unwrap();
            assert_eq!(arrival.path, directory.join(&arrival.file.name));
            arrival.discard().unwrap();
        }
        assert_eq!(server.requests().len(), before);
        assert_eq!(names(&directory).len(), listing.files.len());
        assert!(!work.path().join("source").exists());
    }

    #[test]
    fn after_an_error_nothing_more_arrives() {
        let server = Server::start(golden("qwen2_untied_sharded"));
        server.fault("model-00001-of-00002.safetensors", Fault::Flip, 1);
        let work = tempfile::tempdir().unwrap();
        let hub = hub(&server, &work.path().join("cache"));
        let listing = hub.list("tiny/qwen2", None).unwrap();
        let weights: Vec<_> = listing.weights().cloned().collect();
        let place = Place::Folder(work.path().join("source"));
        let mut arrivals = hub.arrivals(&listing, weights.clone(), &place, &Bars::default()).unwrap();
        let error = arrivals.next().unwrap().unwrap_err();
        assert!(matches!(error, Error::Hash { expected, .. } if expected == weights[0].digest), "{error}");
        assert!(arrivals.next().is_none());
        assert!(names(&work.path().join("source")).is_empty(), "the damaged file is removed");
    }

    #[test]
    fn files_that_cannot_fit_are_not_begun() {
        let server = Server::start(golden("qwen2"));
        let work = tempfile::tempdir().unwrap();
        let hub = hub(&server, &work.path().join("cache"));
        let mut listing = hub.list("tiny/qwen2", None).unwrap();
        let before = server.requests().len();
        listing.files.iter_mut().for_each(|file| file.size += 1 << 60);
        for place in [Place::Cache, Place::Folder(work.path().join("source"))] {
            let error = hub.arrivals(&listing, listing.files.clone(), &place, &Bars::default()).unwrap_err();
            assert!(matches!(error, Error::DiskSpace { needed, .. } if needed > 1 << 60), "{error}");
        }
        assert_eq!(server.requests().len(), before);
    }

    #[test]
    fn ids() {
        for id in ["google/gemma-2-2b-it", "llava-hf/llava-onevision-qwen2-0.5b-ov-hf", "a/b.c_d"] {
            assert!(is_id(id), "{id}");
        }
        for path in ["gemma", "./gemma", "../a", "/a/b", "a/b/c", "~/a", "a/", "/b", "a b/c"] {
            assert!(!is_id(path), "{path}");
        }
    }
}
