//! Saved conversations as files: what stands at a sequence's positions, and the states that were computed for it.
//!
//! A file is a header of fixed length, the positions' contents, the answers among them, the states, and the BLAKE3 hash of all that. The
//! header names the model by the hash of its plan and weights, because states mean nothing to any other. Whoever made a file, nothing is allocated
//! before its length is compared with what is there and what the model has room for.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Engine;
use super::talker::Cached;
use crate::chat::Decoder;
use crate::chat::prompt::{Answers, Said};
use crate::chat::slots::Slot;
use crate::image::PictureHash;

const MAGIC: [u8; 8] = *b"DWNDLSEQ";
/// Version of the layout.
const VERSION: u32 = 1;
const HASH_BYTES: u64 = 32;
/// Magic, version, two hashes, positions, positions of the prompt, and the lengths of three parts.
const HEADER_BYTES: usize = 8 + 4 + 2 * 32 + 2 * 4 + 3 * 8;
/// The most bytes of a position's content: tag, picture, row, form.
const SLOT_BYTES: u64 = 1 + 16 + 4 + 1;
/// The most bytes of answers; a real context holds far less text.
const MOST_ANSWER_BYTES: u64 = 64 << 20;

/// A conversation cannot be saved or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read or written.
    #[error("cannot {what} the saved conversation {}: {source}", path.display())]
    Io {
        /// `read` or `write`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is another kind of file.
    #[error("{} is no saved conversation", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// It was written by another version.
    #[error("{} has version {found} of saved conversations, this program reads {VERSION}; start the conversation anew", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It belongs to other weights, or to the same compiled in another way.
    #[error("{} was saved with another model or for another device; open the bundle that it was saved with", path.display())]
    OtherModel {
        /// The file.
        path: PathBuf,
    },
    /// It is not what was written.
    #[error("the saved conversation {} is damaged: {why}; delete it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A place for a conversation that does not exist.
    #[error("there is no saved conversation {slot}: the engine has {slots}, counted from 0")]
    NoSlot {
        /// The number that was asked for.
        slot: usize,
        /// How many there are.
        slots: usize,
    },
}

impl Engine {
    /// Positions of each saved conversation, the least recently used first, with their numbers for [`Engine::save`].
    pub fn saved(&self) -> Vec<(usize, usize)> {
        let mut slots: Vec<usize> = (0..self.talker.cached.len()).collect();
        slots.sort_by_key(|&slot| self.talker.cached[slot].used);
        slots.into_iter().map(|slot| (slot, self.talker.cached[slot].slots.len())).collect()
    }

    /// Writes a saved conversation to a file, which takes the place of another one only once it is whole.
    ///
    /// # Errors
    /// [`Error::NoSlot`], [`Error::Io`]; those of the device.
    pub fn save(&mut self, slot: usize, path: &Path) -> Result<(), crate::Error> {
        self.check_slot(slot)?;
        self.talker.decoder.load()?;
        let failed = |source| Error::Io { what: "write", path: path.to_owned(), source };
        let aside = aside(path);
        let written = self.write(slot, &aside, failed).and_then(|()| {
            fs::rename(&aside, path).map_err(failed)?;
            // The name is in its folder once that is on the disk; not every system lets folders be opened.
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(folder).and_then(|folder| folder.sync_all()).or_else(unsupported).map_err(failed)?;
            Ok(())
        });
        if written.is_err() {
            // What could not be written is of no use; the error is told already.
            let _ = fs::remove_file(&aside);
        }
        written
    }

    /// Puts a saved conversation in the place of another one. If the file is damaged, that one is forgotten.
    ///
    /// # Errors
    /// [`Error`]; those of the device.
    pub fn restore(&mut self, slot: usize, path: &Path) -> Result<(), crate::Error> {
        self.check_slot(slot)?;
        self.talker.decoder.load()?;
        let identity = self.talker.decoder.sequence(slot)?.model().identity()?;
        let mut reader = Reader::open(path)?;
        let header = reader.header(&identity)?;
        let sequence = self.talker.decoder.sequence(slot)?;
        if header.positions > sequence.model().context() {
            return Err(reader.damaged(format!("{} positions are too many", header.positions)).into());
        }
        reader.check_lengths(&header, sequence.state_bytes(header.positions))?;
        let slots = reader.slots(&header)?;
        let answers = reader.answers(&header)?;
        self.talker.cached[slot] = Cached::default();
        let sequence = self.talker.decoder.sequence(slot)?;
        let filled = sequence.write_states(header.positions, |bytes| Ok::<_, crate::Error>(reader.fill(bytes)?));
        let result = filled.and_then(|()| Ok(reader.finish()?));
        if let Err(error) = result {
            self.talker.decoder.sequence(slot)?.reset();
            return Err(error);
        }
        let prompt = (header.prompt as usize).min(slots.len());
        self.talker.cached[slot] = Cached { slots, answers, prompt, went_on: true, ..Cached::default() };
        self.talker.touch(slot);
        Ok(())
    }

    fn check_slot(&self, slot: usize) -> Result<(), Error> {
        let slots = self.talker.cached.len();
        if slot < slots { Ok(()) } else { Err(Error::NoSlot { slot, slots }) }
    }

    fn write(
        &mut self,
        slot: usize,
        path: &Path,
        failed: impl Fn(io::Error) -> Error + Copy,
    ) -> Result<(), crate::Error> {
        let cached = &self.talker.cached[slot];
        let (slots, answers) = (encode_slots(&cached.slots), encode_answers(&cached.answers));
        let (positions, prompt) = (cached.slots.len() as u32, cached.prompt as u32);
        let sequence = self.talker.decoder.sequence(slot)?;
        let file = File::options().write(true).create_new(true).open(path).map_err(failed)?;
        let mut writer = Writer { file: BufWriter::new(file), hasher: blake3::Hasher::new() };
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.extend(sequence.model().identity()?);
        header.extend(blake3::hash(&slots).as_bytes());
        header.extend(positions.to_le_bytes());
        header.extend(prompt.to_le_bytes());
        for bytes in [slots.len() as u64, answers.len() as u64, sequence.state_bytes(positions)] {
            header.extend(bytes.to_le_bytes());
        }
        for part in [&header, &slots, &answers] {
            writer.write(part).map_err(failed)?;
        }
        let mut result = Ok(());
        sequence.read_states(&mut |bytes| {
            if result.is_ok() {
                result = writer.write(bytes);
            }
        })?;
        result.map_err(failed)?;
        writer.finish().map_err(failed)?;
        Ok(())
    }
}

/// Where a file is written before it has its name.
fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

fn unsupported(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported | io::ErrorKind::IsADirectory => Ok(()),
        _ => Err(error),
    }
}

struct Writer {
    file: BufWriter<File>,
    hasher: blake3::Hasher,
}

impl Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }

    fn finish(mut self) -> io::Result<()> {
        self.file.write_all(self.hasher.finalize().as_bytes())?;
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }
}

/// What a file says of itself.
struct Header {
    contents: [u8; 32],
    positions: u32,
    prompt: u32,
    slot_bytes: u64,
    answer_bytes: u64,
    state_bytes: u64,
}

struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl Reader {
    fn open(path: &Path) -> Result<Reader, Error> {
        let failed = |source| Error::Io { what: "read", path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(Error::Kind { path: path.to_owned() });
        }
        let (file, hasher) = (BufReader::new(file), blake3::Hasher::new());
        Ok(Reader { path: path.to_owned(), file, bytes: metadata.len(), hasher })
    }

    fn damaged(&self, why: impl Into<String>) -> Error {
        Error::Damaged { path: self.path.clone(), why: why.into() }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.file.read_exact(bytes).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it ends too early"),
            _ => Error::Io { what: "read", path: self.path.clone(), source },
        })?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// A part whose length was compared with the file's.
    fn part(&mut self, bytes: u64) -> Result<Vec<u8>, Error> {
        let mut part = vec![0; bytes as usize];
        self.fill(&mut part)?;
        Ok(part)
    }

    fn header(&mut self, identity: &[u8; 32]) -> Result<Header, Error> {
        if self.bytes < HEADER_BYTES as u64 {
            return Err(Error::Kind { path: self.path.clone() });
        }
        let header = self.part(HEADER_BYTES as u64)?;
        let mut at = 0;
        let mut take = |bytes: usize| {
            at += bytes;
            &header[at - bytes..at]
        };
        if take(MAGIC.len()) != MAGIC {
            return Err(Error::Kind { path: self.path.clone() });
        }
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |word, &byte| word << 8 | u64::from(byte));
        let found = word(take(4)) as u32;
        if found != VERSION {
            return Err(Error::Version { path: self.path.clone(), found });
        }
        if take(32) != identity {
            return Err(Error::OtherModel { path: self.path.clone() });
        }
        let mut contents = [0; 32];
        contents.copy_from_slice(take(32));
        let (positions, prompt) = (word(take(4)) as u32, word(take(4)) as u32);
        let [slot_bytes, answer_bytes, state_bytes] = [(); 3].map(|()| word(take(8)));
        Ok(Header { contents, positions, prompt, slot_bytes, answer_bytes, state_bytes })
    }

    /// Compares the lengths of all parts with the file and with what the model has for so many positions.
    fn check_lengths(&self, header: &Header, state_bytes: u64) -> Result<(), Error> {
        if header.state_bytes != state_bytes {
            let (found, positions) = (header.state_bytes, header.positions);
            return Err(self.damaged(format!("{positions} positions have {state_bytes} bytes of states, not {found}")));
        }
        if header.slot_bytes > u64::from(header.positions) * SLOT_BYTES || header.answer_bytes > MOST_ANSWER_BYTES {
            return Err(self.damaged("its parts are too long"));
        }
        let parts = [HEADER_BYTES as u64, header.slot_bytes, header.answer_bytes, state_bytes, HASH_BYTES];
        let expected = parts.into_iter().fold(0, u64::saturating_add);
        match self.bytes == expected {
            true => Ok(()),
            false => Err(self.damaged(format!("it has {} bytes, its parts have {expected}", self.bytes))),
        }
    }

    fn slots(&mut self, header: &Header) -> Result<Vec<Slot>, Error> {
        let bytes = self.part(header.slot_bytes)?;
        if *blake3::hash(&bytes).as_bytes() != header.contents {
            return Err(self.damaged("its positions do not have the hash that they had"));
        }
        let slots = decode_slots(&bytes).filter(|slots| slots.len() == header.positions as usize);
        slots.ok_or_else(|| self.damaged("its positions cannot be read"))
    }

    fn answers(&mut self, header: &Header) -> Result<Answers, Error> {
        let bytes = self.part(header.answer_bytes)?;
        decode_answers(&bytes).ok_or_else(|| self.damaged("its answers cannot be read"))
    }

    fn finish(mut self) -> Result<(), Error> {
        let expected = self.hasher.finalize();
        let mut hash = [0; HASH_BYTES as usize];
        self.fill(&mut hash)?;
        match hash == *expected.as_bytes() {
            true => Ok(()),
            false => Err(self.damaged("it does not have the hash that it had")),
        }
    }
}

fn encode_slots(slots: &[Slot]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(slots.len() * 5);
    for slot in slots {
        match slot {
            Slot::Token(token) => {
                bytes.push(0);
                bytes.extend(token.to_le_bytes());
            }
            Slot::Picture { picture, row, is_among_others } => {
                bytes.push(1 + u8::from(*is_among_others));
                bytes.extend(picture.0.to_le_bytes());
                bytes.extend(row.to_le_bytes());
            }
        }
    }
    bytes
}

fn decode_slots(mut bytes: &[u8]) -> Option<Vec<Slot>> {
    let mut slots = Vec::new();
    while let Some((tag, rest)) = bytes.split_first() {
        let slot = match tag {
            0 => {
                let (token, rest) = rest.split_first_chunk()?;
                bytes = rest;
                Slot::Token(u32::from_le_bytes(*token))
            }
            1 | 2 => {
                let (picture, rest) = rest.split_first_chunk()?;
                let (row, rest) = rest.split_first_chunk()?;
                bytes = rest;
                let (picture, row) = (PictureHash(u128::from_le_bytes(*picture)), u32::from_le_bytes(*row));
                Slot::Picture { picture, row, is_among_others: *tag == 2 }
            }
            _ => return None,
        };
        slots.push(slot);
    }
    Some(slots)
}

fn encode_answers(answers: &Answers) -> Vec<u8> {
    let answers = answers.iter().map(|(number, said)| json!([number, said.text, said.tokens, said.before]));
    answers.collect::<Value>().to_string().into_bytes()
}

fn decode_answers(bytes: &[u8]) -> Option<Answers> {
    let all: Vec<(usize, String, Vec<u32>, String)> = serde_json::from_slice(bytes).ok()?;
    let said = |(number, text, tokens, before)| (number, Said { text, tokens, before });
    Some(all.into_iter().map(said).collect())
}
