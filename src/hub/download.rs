//! One file from the hub to disk: taken up where an earlier attempt ended, hashed as it arrives, and placed only when it is right.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use ureq::Body;
use ureq::http::Response;

use super::cache::remove_if_there;
use super::client::{Client, Failure, Patience, Subject, header, pieces};
use super::digest::Hasher;
use super::error::Error;
use super::listing::{Listing, RemoteFile};
use super::pace::LEAST;
use crate::progress::FileTransfer;

/// What a download needs to know.
#[derive(Debug)]
pub(super) struct Download<'a> {
    pub(super) client: &'a Client,
    pub(super) listing: &'a Listing,
    pub(super) file: &'a RemoteFile,
    /// Where bytes gather.
    pub(super) partial: &'a Path,
    /// Where the whole file appears.
    pub(super) target: &'a Path,
    pub(super) bar: &'a FileTransfer,
    /// Set by whoever does not want the file any more.
    pub(super) stop: &'a AtomicBool,
}

/// The bytes that arrived so far.
#[derive(Debug)]
struct Arrived {
    output: File,
    hasher: Hasher,
    bytes: u64,
}

impl Download<'_> {
    /// Downloads the file. After an error that time may heal, what arrived stays at `partial`.
    pub(super) fn run(&self) -> Result<(), Error> {
        // Bytes of an earlier run may be of another program, or damaged: they get a second chance, the network's do not.
        let mut taken_up = fs::metadata(self.partial).is_ok_and(|info| info.len() > 0);
        loop {
            match self.receive() {
                Ok(()) => break,
                Err(Error::Hash { .. }) if taken_up => {
                    tracing::warn!("what an earlier run left of {} is damaged; downloading it again", self.file.name);
                    taken_up = false;
                    self.bar.restart();
                    remove_if_there(self.partial)?;
                }
                Err(error @ (Error::Hash { .. } | Error::Length { .. })) => {
                    remove_if_there(self.partial)?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
        fs::rename(self.partial, self.target).map_err(Error::io("make", self.target))
    }

    fn receive(&self) -> Result<(), Error> {
        let mut arrived = self.take_up()?;
        let mut patience = Patience::default();
        while arrived.bytes < self.file.size {
            let before = arrived.bytes;
            let Err(failure) = self.continue_from(&mut arrived) else { continue };
            // A drip is no progress, or it could go on for ever.
            if arrived.bytes.saturating_sub(before) >= LEAST {
                patience.renew();
            }
            patience.endure(failure, self.stop)?;
        }
        arrived.output.sync_all().map_err(Error::io("write", self.partial))?;
        let found = arrived.hasher.finish();
        if found != self.file.digest {
            return Err(Error::Hash { file: self.file.name.clone(), expected: self.file.digest, found });
        }
        Ok(())
    }

    /// Reads what an earlier attempt left.
    fn take_up(&self) -> Result<Arrived, Error> {
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(self.partial);
        let output = open.map_err(Error::io("write", self.partial))?;
        let mut arrived = Arrived { output, hasher: self.file.digest.hasher(self.file.size), bytes: 0 };
        let left = arrived.output.metadata().map_err(Error::io("read", self.partial))?.len();
        if left > self.file.size {
            self.restart(&mut arrived)?;
        } else {
            let mut buffer = vec![0; 1 << 18];
            loop {
                let count = arrived.output.read(&mut buffer).map_err(Error::io("read", self.partial))?;
                if count == 0 {
                    break;
                }
                arrived.hasher.update(&buffer[..count]);
                arrived.bytes += count as u64;
            }
            self.bar.advance(arrived.bytes);
        }
        Ok(arrived)
    }

    fn restart(&self, arrived: &mut Arrived) -> Result<(), Error> {
        let empty = arrived.output.set_len(0).and_then(|()| arrived.output.seek(SeekFrom::Start(0)));
        empty.map_err(Error::io("write", self.partial))?;
        arrived.hasher = self.file.digest.hasher(self.file.size);
        arrived.bytes = 0;
        self.bar.restart();
        Ok(())
    }

    /// One connection: as many bytes as it brings.
    fn continue_from(&self, arrived: &mut Arrived) -> Result<(), Failure> {
        let file = self.file;
        let subject = Subject { id: &self.listing.id, revision: &self.listing.revision, file: Some(&file.name) };
        let response = self.client.file(&self.listing.commit, &file.name, arrived.bytes, subject)?;
        if response.status().as_u16() == 200 && arrived.bytes > 0 {
            // The server knows no ranges.
            self.restart(arrived).map_err(Failure::never)?;
        }
        self.check_length(&response, arrived.bytes).map_err(Failure::never)?;
        pieces(response, self.stop, subject, |piece| {
            let bytes = arrived.bytes + piece.len() as u64;
            if bytes > file.size {
                return Err(self.wrong_length(bytes));
            }
            arrived.output.write_all(piece).map_err(Error::io("write", self.partial))?;
            arrived.hasher.update(piece);
            arrived.bytes = bytes;
            self.bar.advance(piece.len() as u64);
            Ok(())
        })?;
        match arrived.bytes < file.size {
            true => Err(subject.broken(format!("the connection ended after {} of {} bytes", arrived.bytes, file.size))),
            false => Ok(()),
        }
    }

    /// Whether the server speaks of a file of the listed size, as far as it tells, and sends it from byte `from` on.
    fn check_length(&self, response: &Response<Body>, from: u64) -> Result<(), Error> {
        let headers = response.headers();
        let range = header(headers, "content-range").and_then(|range| range.trim().strip_prefix("bytes "));
        let total = match (response.status().as_u16(), range.and_then(|range| range.split_once('/'))) {
            (206, Some((part, total))) => {
                let first = part.split_once('-').and_then(|(first, _)| first.parse::<u64>().ok());
                if first != Some(from) {
                    let reason = format!("byte {from} and what follows was asked for, bytes {part} came");
                    return Err(Error::Answer { what: self.file.name.clone(), reason });
                }
                total
            }
            (206, None) => {
                let reason = "a part of the file came that does not say which (`Content-Range`)".to_owned();
                return Err(Error::Answer { what: self.file.name.clone(), reason });
            }
            // What was asked for lies behind the file's end.
            (416, range) => return Err(self.wrong_length(range.and_then(|(_, n)| n.parse().ok()).unwrap_or(0))),
            _ => header(headers, "content-length").unwrap_or("*"),
        };
        match total.trim().parse() {
            Ok(total) if total != self.file.size => Err(self.wrong_length(total)),
            _ => Ok(()),
        }
    }

    fn wrong_length(&self, found: u64) -> Error {
        Error::Length { file: self.file.name.clone(), expected: self.file.size, found }
    }
}
