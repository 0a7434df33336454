//! One mapped file from beginning to end: hashed and worked on window by window, so that each page is read once.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Mutex;

use rayon::prelude::*;

use crate::checkpoint::SourceFile;
use crate::checkpoint::safetensors::SafeTensors;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Bytes of the file that are in work at a time: enough for many blocks, little beside any memory.
const WINDOW: usize = 32 << 20;

/// Bytes that are hashed at a time where a file is not mapped.
const PIECE: usize = 1 << 20;

/// Runs `work` on all blocks, each a part of the mapped `file` with what belongs to it, in parallel; the results in the order
/// of the file. Hashes the file on the way if that is `wanted`.
pub(super) fn stream<B: Send + Sync, R: Send>(
    file: &SafeTensors,
    mut blocks: Vec<(&[u8], B)>,
    wanted: bool,
    progress: &dyn Progress,
    work: &(impl Fn(&[u8], &B) -> Result<R> + Sync),
) -> Result<(Vec<(B, R)>, Option<SourceFile>)> {
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
        let hash = || drop(wanted.then(|| hasher.update_rayon(window)));
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
    let source = hash.map(|blake3| SourceFile { name, bytes: mapping.len() as u64, blake3 });
    Ok((blocks.into_iter().map(|(_, block)| block).zip(results).collect(), source))
}

/// Hashes a file that nobody has mapped.
pub(super) fn hash(path: &Path, progress: &dyn Progress) -> Result<SourceFile> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let (mut hasher, mut bytes, mut piece) = (blake3::Hasher::new(), 0, vec![0; PIECE]);
    loop {
        let length = file.read(&mut piece).map_err(Error::io("read", path))?;
        if length == 0 {
            break;
        }
        hasher.update(&piece[..length]);
        bytes += length as u64;
        progress.advance(length as u64);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(SourceFile { name, bytes, blake3: hasher.finalize().to_hex().to_string() })
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
