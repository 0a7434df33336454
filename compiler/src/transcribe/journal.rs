//! The journal of a transcription whose source's files come one after another and do not stay: which of them are done.
//!
//! A line of JSON each: first what is made of what, then one for each finished file, appended when its part of the output is
//! durable. A line that a crash has torn is ignored.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use dwindle_quant::Method;
use dwindle_schemes::Scheme;
use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::checkpoint::SourceFile;
use crate::error::{Error, Result};

/// Longest journal that is read: thousands of files with hundreds of tensors each.
const MAX_BYTES: u64 = 256 << 20;

/// Everything that decides the bytes of the output. Where it differs, nothing is taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Identity {
    program: &'static str,
    scheme: String,
    method: String,
    config: String,
    files: Vec<(String, u64, String)>,
}

impl Identity {
    /// Of a model quantized by this program: the hash of its configuration; name, length and hash of each file of tensors,
    /// whatever hash the publisher tells.
    pub fn new((scheme, method): &(Scheme, Method), config: String, files: Vec<(String, u64, String)>) -> Self {
        Identity {
            program: env!("CARGO_PKG_VERSION"),
            scheme: format!("{scheme:?}"),
            method: method.to_string(),
            config,
            files,
        }
    }

    /// The journal's first line.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("names and numbers are JSON")
    }
}

/// A finished file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Finished {
    /// The file.
    pub file: SourceFile,
    /// Its tensors that were transcribed.
    pub tensors: BTreeMap<String, Outcome>,
    /// Its tensors of no use.
    pub ignored: Vec<String>,
    /// The hash of what was written for them, in the order of their names.
    pub output: String,
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// What is done.
    pub finished: Vec<Finished>,
}

impl Journal {
    /// Opens the journal at `path`, which begins with the line of `identity`.
    pub fn open(path: PathBuf, identity: &Identity) -> Result<Self> {
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let mut file = opened.map_err(Error::io("open", &path))?;
        let mut text = Vec::new();
        (&mut file).take(MAX_BYTES).read_to_end(&mut text).map_err(Error::io("read", &path))?;
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.split_inclusive('\n');
        let first = lines.next().unwrap_or_default();
        assert_eq!(first.trim_end(), identity.line(), "a workplace is resumed for the same identity only");
        let whole = lines.map_while(|line| serde_json::from_str(line.strip_suffix('\n')?).ok());
        Ok(Journal { path, file, finished: whole.collect() })
    }

    /// Forgets all but the first `count` finished files, and torn lines.
    pub fn truncate(&mut self, count: usize) -> Result<()> {
        self.finished.truncate(count);
        let mut rewind = || -> std::io::Result<()> {
            self.file.seek(SeekFrom::Start(0))?;
            let mut first = Vec::new();
            let mut byte = [0];
            while self.file.read(&mut byte)? == 1 {
                first.push(byte[0]);
                if byte == *b"\n" {
                    break;
                }
            }
            let mut end = first.len() as u64;
            for finished in &self.finished {
                end += line(finished).len() as u64;
            }
            self.file.set_len(end)?;
            self.file.seek(SeekFrom::Start(end))?;
            self.file.sync_all()
        };
        rewind().map_err(Error::io("write", &self.path))
    }

    /// Notes that a file is done, whose part of the output is durable.
    pub fn append(&mut self, finished: Finished) -> Result<()> {
        let written = self.file.write_all(line(&finished).as_bytes()).and_then(|()| self.file.sync_all());
        written.map_err(Error::io("write", &self.path))?;
        self.finished.push(finished);
        Ok(())
    }
}

fn line(finished: &Finished) -> String {
    let mut line = serde_json::to_string(finished).expect("names and numbers are JSON");
    line.push('\n');
    line
}

/// Sums of errors as JSON: numbers, which are read back exactly.
pub(super) mod stats {
    use dwindle_quant::ErrorStats;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(stats: &ErrorStats, serializer: S) -> Result<S::Ok, S::Error> {
        (stats.count, stats.signal.to_bits(), stats.error.to_bits(), stats.max_abs.to_bits()).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ErrorStats, D::Error> {
        let (count, signal, error, max_abs) = <(u64, u64, u64, u32)>::deserialize(deserializer)?;
        let [signal, error] = [signal, error].map(f64::from_bits);
        Ok(ErrorStats { count, signal, error, max_abs: f32::from_bits(max_abs) })
    }
}
