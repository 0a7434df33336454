//! The crate's errors: where, what, and what to do next.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use dwindle_schemes::FloatType;

use crate::arch;
use crate::checkpoint::TensorProblems;
use crate::note::Note;
use crate::size::Size;

/// What can go wrong between a checkpoint and a bundle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory could not be read or written.
    #[error("cannot {action} {}: {source}{}", path.display(), io_hint(source))]
    Io {
        /// A verb: `read`, `write`, `replace`.
        action: &'static str,
        /// Of what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },

    /// A file is something else than its name says.
    #[error("{} is not a safetensors file: it looks like {looks_like}{hint}", path.display())]
    WrongFileType {
        /// Of what.
        path: PathBuf,
        /// What its first bytes say.
        looks_like: &'static str,
        /// What to do, beginning with punctuation; may be empty.
        hint: &'static str,
    },

    /// A safetensors header that contradicts the format or its file.
    #[error("{}: malformed safetensors header: {reason}. Download the file again", path.display())]
    Header {
        /// The safetensors file.
        path: PathBuf,
        /// Which rule was broken, by which tensor.
        reason: String,
    },

    /// A file that another program cut while it was read.
    #[error("{}: shortened by another program while it was read; copy or download it again", path.display())]
    Shortened {
        /// The file.
        path: PathBuf,
    },

    /// A tensor whose element type cannot be used as it should be.
    #[error("tensor `{tensor}` is stored as {dtype}: expected {expected}")]
    UnsupportedDtype {
        /// Name in the file.
        tensor: String,
        /// Element type as the file spells it.
        dtype: String,
        /// What would do.
        expected: &'static str,
    },

    /// A path that is no checkpoint we can read.
    #[error("{} is not a checkpoint: {reason}", path.display())]
    NotCheckpoint {
        /// The directory.
        path: PathBuf,
        /// What it lacks, what is there instead, and what to do.
        reason: String,
    },

    /// The index of a sharded checkpoint names files that are not there.
    #[error("{}: {} of {total} shards are missing; download them too: {}", path.display(), missing.len(), missing.join(", "))]
    MissingShards {
        /// The index.
        path: PathBuf,
        /// All files that are missing.
        missing: Vec<String>,
        /// Shards that the index names.
        total: usize,
    },

    /// The index of a sharded checkpoint contradicts its shards.
    #[error("{} does not fit its shards; download the checkpoint again:{}", path.display(), bullets(problems))]
    ShardIndex {
        /// The index.
        path: PathBuf,
        /// One line for each contradiction.
        problems: Vec<String>,
    },

    /// A GGUF file that is damaged, or holds what is not supported.
    #[error("{}:{}", path.display(), one_or_bullets(reasons))]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong, one sentence each.
        reasons: Vec<String>,
    },

    /// Tensors of a GGUF file whose types are not read.
    #[error("{}: tensors of types that are not read: {}; {read} are: make such a file with `llama-quantize F16.gguf OUT.gguf Q4_K_M`, or convert the Hugging Face checkpoint", path.display(), by_type(tensors))]
    GgufTypes {
        /// The file.
        path: PathBuf,
        /// Name and type of each.
        tensors: Vec<(String, &'static str)>,
        /// The types that are read.
        read: String,
    },

    /// A group of a GGUF file whose scale or minimum f16 cannot hold.
    #[error("{}: tensor `{tensor}` ({kind}): the scale {scale:e} of a group is beyond f16, which no trained weights need; download the file again, or convert the Hugging Face checkpoint", path.display())]
    GgufScale {
        /// The file.
        path: PathBuf,
        /// The tensor, in transformers 4's name.
        tensor: String,
        /// Its type.
        kind: &'static str,
        /// The greatest of them.
        scale: f32,
    },

    /// A configuration beside a GGUF file that tells of another model.
    #[error("{} is not of the GGUF file beside it; put the file in a directory of its own, or its own config.json beside it:{}", path.display(), bullets(problems))]
    Sidecar {
        /// The `config.json`.
        path: PathBuf,
        /// One line for each contradiction.
        problems: Vec<String>,
    },

    /// A JSON file that is not what it should be.
    #[error("{}: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Place and cause.
        reason: String,
    },

    /// A configuration that is contradictory, or uses what is not understood.
    #[error("config key `{key}`: {reason}")]
    Config {
        /// Path of the key, with dots.
        key: String,
        /// What is wrong, and what would do.
        reason: String,
    },

    /// A configuration that no family computes.
    #[error("{}: {source}", path.display())]
    Family {
        /// The checkpoint's or model directory's path.
        path: PathBuf,
        /// Why not.
        source: arch::Error,
    },

    /// The tensors of a checkpoint are not those of its family.
    #[error("{} does not hold the tensors of a `{family}` model:\n{problems}", path.display())]
    Tensors {
        /// The directory.
        path: PathBuf,
        /// `model_type` of the configuration.
        family: String,
        /// All that differs.
        problems: Box<TensorProblems>,
    },

    /// A tied model whose weights, which come one file after another, have a head of their own.
    #[error("{}: {note}; convert the whole checkpoint at once: download it and name its directory", path.display())]
    OwnHead {
        /// The directory.
        path: PathBuf,
        /// What was found.
        note: Note,
    },

    /// Layers of a quantized checkpoint that contradict its configuration or each other.
    #[error("{} is a quantized checkpoint that does not hold what it should; download it again:{}", path.display(), bullets(problems))]
    PackedLayers {
        /// The directory.
        path: PathBuf,
        /// One line for each contradiction.
        problems: Vec<String>,
    },

    /// A directory that `convert` or `quantize` did not write.
    #[error("{} is not a model directory: {reason}", path.display())]
    NotModelDirectory {
        /// The directory.
        path: PathBuf,
        /// What it lacks and what to do.
        reason: String,
    },

    /// A model directory whose `model.json` contradicts its tensors or files.
    #[error("{} is damaged; convert or quantize it again:{}", path.display(), bullets(problems))]
    DamagedModelDirectory {
        /// The directory.
        path: PathBuf,
        /// One line for each contradiction.
        problems: Vec<String>,
    },

    /// The output path holds something that must not be overwritten.
    #[error("{} exists and {reason}; name another output directory, or remove it first", path.display())]
    OutputOccupied {
        /// The output.
        path: PathBuf,
        /// What is there.
        reason: String,
    },

    /// Another process has begun the same output.
    #[error("{} is being written by another process; wait for it, or name another output", path.display())]
    OutputBusy {
        /// The output.
        path: PathBuf,
    },

    /// Not enough room for the output.
    #[error("{}: the output takes {}, the file system has {} left; free some or choose another place", path.display(), Size(*needed), Size(*available))]
    DiskSpace {
        /// Where the output should go.
        path: PathBuf,
        /// Bytes of the output.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },

    /// Not enough memory for a step.
    #[error(
        "{step} needs {} of memory, {} are left; close other programs, raise the limit of the control group, or use fewer threads (RAYON_NUM_THREADS)",
        Size(*needed), Size(*available)
    )]
    Memory {
        /// Of what.
        step: &'static str,
        /// Bytes at the worst moment.
        needed: u64,
        /// Bytes that may still be taken.
        available: u64,
    },

    /// Quantizing twice would add up the errors of both.
    #[error(
        "{} is already quantized as {scheme}; quantize the converted model directory it was made from", path.display()
    )]
    AlreadyQuantized {
        /// The model directory.
        path: PathBuf,
        /// Its scheme.
        scheme: String,
    },

    /// The output is the input, which is still being read.
    #[error("{} is the input itself; name another output directory", path.display())]
    OutputIsInput {
        /// The directory.
        path: PathBuf,
    },

    /// Weights beyond the range of the type they should be stored in.
    #[error(
        "tensor `{tensor}`: {count} values, the largest of magnitude {largest:e}, do not fit {float}; use a scheme that stores it as f32"
    )]
    Overflow {
        /// Logical name.
        tensor: String,
        /// How many values are too large.
        count: u64,
        /// The largest magnitude.
        largest: f32,
        /// Storage that was asked for.
        float: FloatType,
    },

    /// Weights that are not numbers.
    #[error("tensor `{tensor}`: {count} values are infinite or NaN; the checkpoint is damaged, download it again")]
    NotFinite {
        /// Logical name.
        tensor: String,
        /// How many.
        count: u64,
    },

    /// A tensor that the quantizer refused.
    #[error("tensor `{tensor}`: {source}")]
    Quantize {
        /// Logical name.
        tensor: String,
        /// Place and cause.
        source: dwindle_quant::Error,
    },

    /// Only quantized models are compiled.
    #[error("{} is not quantized; run `dwindle quantize` on it first (q0f32 and q0f16 keep the weights as floats)", path.display())]
    NotQuantized {
        /// The model directory.
        path: PathBuf,
    },

    /// A directory whose name cannot name a model.
    #[error("{}: a model is called like its directory; rename it, without control characters, slashes and colons", path.display())]
    ModelName {
        /// The model directory.
        path: PathBuf,
    },

    /// A KV cache longer than the model was made for.
    #[error("a context of {context} is not possible: `{model}` was made for 1 to {most} positions")]
    Context {
        /// Name of the model.
        model: String,
        /// Asked for.
        context: u32,
        /// Possible.
        most: usize,
    },

    /// Models that do not work together.
    #[error("{reason}")]
    Ensemble {
        /// Why, and what would.
        reason: String,
    },

    /// No choice makes a bundle that fits into a budget.
    #[error(
        "nothing fits into {}: it takes at least {}\n{table}\nallow at least that much, a smaller `--context`, or name variants of fewer bits",
        Size(*budget), Size(*needed)
    )]
    Fit {
        /// Bytes that the worst moment may take.
        budget: u64,
        /// Bytes that it takes at the least.
        needed: u64,
        /// What was tried.
        table: String,
    },

    /// A scheme that is not built in.
    #[error(transparent)]
    Scheme(#[from] dwindle_schemes::Error),

    /// A graph that does not verify.
    #[error(transparent)]
    Passes(#[from] crate::passes::Error),

    /// A graph that cannot be lowered, or weights that cannot be packed.
    #[error(transparent)]
    Lower(#[from] crate::lower::LowerError),

    /// A kernel that is not valid on the target.
    #[error(transparent)]
    Kernel(#[from] crate::kernels::Error),

    /// A bundle that could not be written.
    #[error(transparent)]
    Bundle(#[from] dwindle_bundle::Error),
}

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// For `map_err` on operations of the standard library.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { action, path: path.to_owned(), source }
    }

    /// A [`Error::Json`].
    pub(crate) fn json(path: &Path, reason: impl ToString) -> Error {
        Error::Json { path: path.to_owned(), reason: reason.to_string() }
    }
}

fn io_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "; free some space or choose another place",
        _ => "",
    }
}

fn bullets(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  - {line}")).collect()
}

/// One reason in the same line, several below each other.
fn one_or_bullets(reasons: &[String]) -> String {
    match reasons {
        [reason] => format!(" {reason}"),
        _ => bullets(reasons),
    }
}

/// `Q6_K (output.weight)`: types, each with the first tensors that have it.
fn by_type(tensors: &[(String, &'static str)]) -> String {
    let mut types = BTreeMap::<_, Vec<&str>>::new();
    tensors.iter().for_each(|(name, kind)| types.entry(*kind).or_default().push(name));
    let list = |(kind, names): (&&str, &Vec<&str>)| {
        let more = if names.len() > 3 { format!(" and {} more", names.len() - 3) } else { String::new() };
        format!("{kind} ({}{more})", names[..names.len().min(3)].join(", "))
    };
    types.iter().map(list).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn disk_space() {
        let error = Error::DiskSpace { path: "out".into(), needed: 3 << 30, available: 700 << 20 };
        expect!["out: the output takes 3.0 GiB, the file system has 700.0 MiB left; free some or choose another place"]
            .assert_eq(&error.to_string());
    }
}
