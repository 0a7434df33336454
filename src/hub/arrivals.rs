//! Files one by one: the next is downloaded while the caller works on the present one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use super::cache::remove_if_there;
use super::error::Error;
use super::listing::{Listing, RemoteFile};
use super::{Hub, Place};
use crate::progress::Transfer;

/// The files of a download in their order. At most one file is there that the caller has not taken yet, or is on its way.
///
/// Dropping it ends the download; what arrived of the file on its way is kept, and taken up next time.
#[derive(Debug)]
pub struct Arrivals {
    receiver: Option<Receiver<Result<Arrival, Error>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A file that is there, whole and with the right hash.
#[derive(Debug)]
pub struct Arrival {
    /// What the hub says of it.
    pub file: RemoteFile,
    /// Where it is.
    pub path: PathBuf,
    /// Whether it lies in the folder of [`Place::Folder`], not in the hub's cache.
    is_ours: bool,
}

impl Arrival {
    /// Removes the file where it was only brought for this caller. One in the hub's cache stays, whoever put it there.
    pub fn discard(self) -> Result<(), Error> {
        if self.is_ours { remove_if_there(&self.path) } else { Ok(()) }
    }
}

impl Arrivals {
    pub(super) fn start(
        hub: Hub,
        listing: Listing,
        files: Vec<RemoteFile>,
        place: Place,
        transfer: Transfer,
    ) -> Result<Self, Error> {
        // Without room in the channel the thread waits until a file is taken before it begins the one after.
        let (sender, receiver) = sync_channel(0);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let bring = move || {
            for file in files {
                let obtained = hub.obtain(&listing, &file, &place, &transfer, &stopped);
                let arrival = obtained.map(|path| {
                    let is_ours = matches!(&place, Place::Folder(folder) if path.starts_with(folder));
                    Arrival { file, path, is_ours }
                });
                let failed = arrival.is_err();
                if sender.send(arrival).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("download".to_owned()).spawn(bring);
        let thread = thread.map_err(Error::io("start a thread for", Path::new("downloads")))?;
        Ok(Arrivals { receiver: Some(receiver), stop, thread: Some(thread) })
    }
}

impl Iterator for Arrivals {
    type Item = Result<Arrival, Error>;

    /// Waits for the next file. After an error there are no more.
    fn next(&mut self) -> Option<Self::Item> {
        self.receiver.as_ref()?.recv().ok()
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The thread may wait for somebody to take a file.
        drop(self.receiver.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing left to tell, not even a panic: its files are on disk or they are not.
            thread.join().unwrap_or_default();
        }
    }
}
