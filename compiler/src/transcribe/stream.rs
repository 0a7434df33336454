//! One mapped file from beginning to end: hashed and worked on window by window, so that each page is read once.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Mutex;

use md5::{Digest, Md5};
use rayon::prelude::*;

use crate::checkpoint::SourceFile;
use crate::checkpoint::safetensors::SafeTensors;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Bytes of the file that are in work at a time: enough for many blocks, little beside any memory.
const WINDOW: usize = 32 << 20;

/// Bytes that are hashed at a time where a file is not mapped.
const PIECE: usize = 1 << 20;

/// What came of a file.
#[derive(Debug)]
pub(super) struct Streamed<B, R> {
    /// What belonged to each block, and what its work gave, in the order of the file.
    pub results: Vec<(B, R)>,
    /// The file's hash, if it was wanted.
    pub hashed: Option<SourceFile>,
}

/// Runs `work` on all blocks, each a part of the mapped `file` with what belongs to it, in parallel. Hashes the file on the way if that is `wanted`.
pub(super) fn stream<B: Send + Sync, R: Send>(
    file: &SafeTensors,
    mut blocks: Vec<(&[u8], B)>,
    wanted: bool,
    progress: &dyn Progress,
    work: &(impl Fn(&[u8], &B) -> Result<R> + Sync),
) -> Result<Streamed<B, R>> {
    let mapping = file.mapping();
    mapping.will_read();
    let start = |bytes: &[u8]| bytes.as_ptr().addr() - mapping.as_ptr().addr();
    blocks.sort_by_key(|(bytes, _)| start(bytes));
    let (mut hasher, mut results) = (blake3::Hasher::new(), Vec::with_capacity(blocks.len()));
    let mut next = 0;
    for (index, window) in mapping.chunks(WINDOW).enumerate() {
        let end = index * WINDOW + window.len();
        let count = blocks[next..].iter().take_while(|(bytes, _)| start(bytes) < end).count();
        let in_window = &blocks[next..next + count];
        let hash = || {
            if wanted {
                hasher.update_rayon(window);
            }
        };
        let run = || in_window.par_iter().map(|(bytes, block)| work(bytes, block)).collect::<Result<Vec<_>>>();
        let ((), done) = rayon::join(hash, run);
        results.extend(done?);
        // A block may go on beyond the window; it is read again then, from the page cache.
        file.release(window);
        next += count;
        progress.advance(window.len() as u64);
    }
    let name = file.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let hash = wanted.then(|| hasher.finalize().to_hex().to_string());
    let hashed = hash.map(|blake3| SourceFile { name, bytes: mapping.len() as u64, blake3 });
    Ok(Streamed { results: blocks.into_iter().map(|(_, block)| block).zip(results).collect(), hashed })
}

/// Hashes a file that nobody has mapped; tells if its MD5 sum is not the one that was published.
pub(super) fn hash(path: &Path, md5: Option<&str>, progress: &dyn Progress) -> Result<(SourceFile, Option<String>)> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let (mut hasher, mut bytes, mut piece) = (blake3::Hasher::new(), 0, vec![0; PIECE]);
    let mut sum = md5.map(|_| Md5::new());
    loop {
        let length = file.read(&mut piece).map_err(Error::io("read", path))?;
        if length == 0 {
            break;
        }
        hasher.update(&piece[..length]);
        if let Some(sum) = &mut sum {
            sum.update(&piece[..length]);
        }
        bytes += length as u64;
        progress.advance(length as u64);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let found = sum.map(|sum| sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let wrong = md5.zip(found).filter(|(published, found)| !published.eq_ignore_ascii_case(found));
    let wrong = wrong.map(|(published, found)| format!("{name} has the MD5 sum {found}, not {published}"));
    Ok((SourceFile { name, bytes, blake3: hasher.finalize().to_hex().to_string() }, wrong))
}

/// Things that workers take for a while: as many are made as are ever in use at once.
#[derive(Debug, Default)]
pub(super) struct Pool<T>(Mutex<Vec<T>>);

impl<T: Default> Pool<T> {
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        // A panic elsewhere cannot leave the list half-changed.
        let lock = || self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut thing = lock().pop().unwrap_or_default();
        let result = work(&mut thing);
        lock().push(thing);
        result
    }
}
