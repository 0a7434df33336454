//! What a repository of the hub holds: names, sizes and hashes, before anything of it is downloaded.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::error::Category;

use dwindle_compiler::size::Size;

use super::digest::Digest;

/// The most files that one checkpoint needs. The largest that are published have a few hundred shards.
const MAX_FILES: usize = 2048;
/// The most bytes of a file that holds no tensors; the largest tokenizers have 40 MB.
const MAX_COMPANION: u64 = 1 << 30;
/// Longer names cannot be files of a checkpoint; common file systems hold 255 bytes.
const MAX_NAME: usize = 255;

/// The files of a model that a conversion needs, at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// `owner/name`.
    pub id: String,
    /// What the user asked for: a branch, tag or commit.
    pub revision: String,
    /// The commit that this is: 40 hexadecimal digits.
    pub commit: String,
    /// Ordered by name.
    pub files: Vec<RemoteFile>,
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// A plain name, without folders.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// What its bytes must hash to.
    pub digest: Digest,
}

impl RemoteFile {
    /// Whether the file holds tensors: what is large, and can be handled one by one.
    pub fn is_weights(&self) -> bool {
        is_weights(&self.name)
    }
}

impl Listing {
    /// The files with tensors, in order.
    pub fn weights(&self) -> impl Iterator<Item = &RemoteFile> {
        self.files.iter().filter(|file| file.is_weights())
    }

    /// All other files: configuration, tokenizer, index of the tensors, templates.
    pub fn companions(&self) -> impl Iterator<Item = &RemoteFile> {
        self.files.iter().filter(|file| !file.is_weights())
    }
}

/// What the hub's API says about a file. Mirrors may leave out size and hash.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) size: Option<u64>,
    pub(super) digest: Option<Digest>,
}

/// Reads the answer of `/api/models/ID/revision/REVISION?blobs=true`: the commit, and all files that are wanted, ordered by name.
///
/// The answer is read as a stream. Files that no conversion needs are dropped at once, so its memory is bounded by [`MAX_FILES`],
/// whatever the length of the answer.
///
/// # Errors
/// [`Misread`].
pub(super) fn parse(answer: impl Read) -> Result<(String, Vec<Entry>), Misread> {
    let answer: Answer = serde_json::from_reader(answer).map_err(|error| match error.classify() {
        Category::Io => Misread::Broken(error.to_string()),
        Category::Data => Misread::Nonsense(error.to_string()),
        Category::Syntax | Category::Eof => Misread::Nonsense(format!("it is no JSON ({error})")),
    })?;
    let nonsense = |reason: &str| Misread::Nonsense(reason.to_owned());
    let commit = answer.sha.ok_or_else(|| nonsense("it names no commit (`sha`)"))?;
    if !is_commit(&commit) {
        return Err(Misread::Nonsense(format!("`sha` is {commit:?}, which is no commit")));
    }
    let files = answer.siblings.ok_or_else(|| nonsense("it lists no files (`siblings`)"))?.0;
    let bloated = |entry: &&Entry| kind(&entry.name) == Some(Kind::Companion) && entry.size > Some(MAX_COMPANION);
    if let Some(entry) = files.values().find(bloated) {
        let (name, size) = (&entry.name, Size(entry.size.unwrap_or(0)));
        return Err(Misread::Nonsense(format!("{name} would have {size}, which no such file has")));
    }
    let selection = Selection::of(|name| files.contains_key(name));
    Ok((commit, files.into_values().filter(|entry| selection.wants(&entry.name)).collect()))
}

/// Why an answer could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Misread {
    /// The connection failed before its end.
    Broken(String),
    /// It is not what the hub's documentation says.
    Nonsense(String),
}

/// The parts of the hub's answer that matter here.
#[derive(Deserialize)]
#[serde(expecting = "a description of a model")]
struct Answer {
    sha: Option<String>,
    siblings: Option<Siblings>,
}

/// Files that a conversion may need, by name.
struct Siblings(BTreeMap<String, Entry>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a file")]
struct Sibling {
    rfilename: Option<String>,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Pointer>,
}

/// What git knows of a large file, which is stored beside it. What counts is the hash of what it points to.
#[derive(Deserialize)]
struct Pointer {
    size: Option<u64>,
    sha256: Option<String>,
    oid: Option<String>,
}

impl<'de> Deserialize<'de> for Siblings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Files;

        impl<'de> Visitor<'de> for Files {
            type Value = Siblings;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of files (`siblings`)")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut files: A) -> Result<Siblings, A::Error> {
                let mut found = BTreeMap::new();
                while let Some(sibling) = files.next_element::<Sibling>()? {
                    let name = sibling.rfilename.as_deref();
                    let name = name.ok_or_else(|| A::Error::custom("a file has no name (`rfilename`)"))?;
                    if kind(name).is_none() {
                        continue;
                    }
                    if found.len() == MAX_FILES {
                        // What follows is read, so that the message comes instead of one about the connection.
                        while files.next_element::<IgnoredAny>()?.is_some() {}
                        return Err(A::Error::custom(format!(
                            "it lists more than {MAX_FILES} files of one checkpoint"
                        )));
                    }
                    let entry = sibling.into_entry().map_err(A::Error::custom)?;
                    found.insert(entry.name.clone(), entry);
                }
                Ok(Siblings(found))
            }
        }

        deserializer.deserialize_seq(Files)
    }
}

impl Sibling {
    fn into_entry(self) -> Result<Entry, String> {
        let name = self.rfilename.unwrap_or_default();
        let hash = |text: Option<String>| match text {
            None => Ok(None),
            Some(text) => Digest::parse(&text).map(Some).ok_or_else(|| format!("the hash of {name} is {text:?}")),
        };
        let (size, digest) = match self.lfs {
            Some(lfs) => (lfs.size.or(self.size), hash(lfs.sha256.or(lfs.oid))?),
            None => (self.size, hash(self.blob_id)?),
        };
        Ok(Entry { name, size, digest })
    }
}

/// Whether the text is a full commit hash, which is safe as a folder's name too.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors") || (name.starts_with("params_shard_") && name.ends_with(".bin"))
}

const SHARD_INDEX: &str = "model.safetensors.index.json";
const TOKENIZER: &str = "tokenizer.json";
const MLC_CONFIG: &str = "mlc-chat-config.json";

/// All files beside the weights that a conversion reads. A repository may hold thousands of others.
const COMPANIONS: [&str; 18] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    MLC_CONFIG,
    SHARD_INDEX,
    "ndarray-cache.json",
    "preprocessor_config.json",
    "processor_config.json",
    "quant_config.json",
    "quantize_config.json",
    "special_tokens_map.json",
    "tensor-cache.json",
    TOKENIZER,
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
];

/// What a file is to a conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// All tensors of a checkpoint.
    Whole,
    /// Some of them, where [`SHARD_INDEX`] is there too.
    Shard,
    /// Some of MLC's tensors, where [`MLC_CONFIG`] is there too.
    Mlc,
    /// Configuration, tokenizer, template, index.
    Companion,
    /// What a tokenizer is made of where [`TOKENIZER`] is not there.
    Vocabulary,
}

/// Which weights count in a repository.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selection {
    sharded: bool,
    mlc: bool,
    tokenizer: bool,
}

impl Selection {
    /// `holds` says whether the repository holds a file of this name.
    pub(super) fn of(holds: impl Fn(&str) -> bool) -> Self {
        Selection { sharded: holds(SHARD_INDEX), mlc: holds(MLC_CONFIG), tokenizer: holds(TOKENIZER) }
    }

    /// Whether a conversion needs the file.
    pub(super) fn wants(self, name: &str) -> bool {
        match kind(name) {
            Some(Kind::Whole | Kind::Companion) => true,
            Some(Kind::Shard) => self.sharded,
            Some(Kind::Mlc) => self.mlc,
            Some(Kind::Vocabulary) => !self.tokenizer,
            None => false,
        }
    }
}

/// What a file may be by its name; `None` for files in folders, second copies of the weights, and whatever no conversion reads.
fn kind(name: &str) -> Option<Kind> {
    if name.len() > MAX_NAME || name.contains(['/', '\\', ':', '\0']) {
        return None;
    }
    match name.rsplit_once('.') {
        Some(("model", "safetensors")) => Some(Kind::Whole),
        Some((stem, "safetensors")) if stem.starts_with("model-") => Some(Kind::Shard),
        Some((_, "bin")) if is_weights(name) => Some(Kind::Mlc),
        _ if ["merges.txt", "tokenizer.model"].contains(&name) => Some(Kind::Vocabulary),
        _ => COMPANIONS.contains(&name).then_some(Kind::Companion),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn parse_value(answer: &Value) -> Result<(String, Vec<Entry>), Misread> {
        parse(answer.to_string().as_bytes())
    }

    fn wanted(names: &[&str]) -> Vec<String> {
        let siblings: Vec<_> = names.iter().map(|name| json!({ "rfilename": name })).collect();
        let (_, entries) = parse_value(&json!({ "sha": "0".repeat(40), "siblings": siblings })).unwrap();
        entries.into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn only_what_a_checkpoint_needs_is_downloaded() {
        let single = [
            "model.safetensors",
            "config.json",
            "pytorch_model.bin",
            "onnx/model.onnx",
            "README.md",
            "../evil.json",
            "C:evil.json",
            ".hidden.json",
            "params_shard_0.bin",
            "consolidated.safetensors",
        ];
        assert_eq!(wanted(&single), ["config.json", "model.safetensors"]);
        let sharded = ["chat_template.jinja", "model-00001-of-00002.safetensors", "model.safetensors.index.json"];
        assert_eq!(wanted(&sharded[..2]), ["chat_template.jinja"], "without an index");
        assert_eq!(wanted(&sharded), sharded);
        let vocabulary = ["merges.txt", "tokenizer.model", "vocab.json"];
        assert_eq!(wanted(&vocabulary), vocabulary);
        assert_eq!(wanted(&["tokenizer.json", "merges.txt", "notes.txt", "other.model"]), ["tokenizer.json"]);
        let packed = ["mlc-chat-config.json", "ndarray-cache.json", "params_shard_0.bin", "tokenizer.json"];
        assert_eq!(wanted(&packed), packed);
    }

    #[test]
    fn large_files_are_known_by_what_the_pointer_points_to() {
        let (commit, entries) = parse_value(&json!({
            "sha": "0123456789abcdef0123456789abcdef01234567",
            "siblings": [
                { "rfilename": "model.safetensors", "size": 99, "blobId": "1".repeat(40),
                  "lfs": { "sha256": "ab".repeat(32), "size": 99, "pointerSize": 134 } },
                { "rfilename": "README.md" },
                { "rfilename": "config.json", "size": 7, "blobId": "cd".repeat(20) },
                { "rfilename": "tokenizer.json" },
            ],
        }))
        .unwrap();
        assert_eq!(commit, "0123456789abcdef0123456789abcdef01234567");
        expect![[r#"
            [("config.json", Some(7), Some(git blob hash cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd)), ("model.safetensors", Some(99), Some(sha256 abababababababababababababababababababababababababababababababab)), ("tokenizer.json", None, None)]"#]]
        .assert_eq(&format!("{:?}", entries.iter().map(|e| (&*e.name, e.size, e.digest)).collect::<Vec<_>>()));
    }

    #[test]
    fn files_that_no_conversion_reads_are_dropped_whatever_their_number_and_hashes() {
        let mut siblings: Vec<_> =
            (0..5000).map(|i| json!({ "rfilename": format!("f{i}.json"), "blobId": "x" })).collect();
        siblings.push(json!({ "rfilename": "config.json", "gguf": { "more": [1, 2] } }));
        siblings.push(json!({ "rfilename": "x".repeat(1000) + ".json" }));
        let (_, entries) = parse_value(&json!({ "siblings": siblings, "sha": "0".repeat(40), "tags": ["x"] })).unwrap();
        assert_eq!(entries, [Entry { name: "config.json".into(), size: None, digest: None }]);
    }

    #[test]
    fn a_broken_connection_is_not_nonsense() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::ConnectionReset.into())
            }
        }
        let begun = br#"{"sha": "0", "siblings": ["#;
        assert!(matches!(parse(begun.chain(Broken)), Err(Misread::Broken(_))));
        assert!(matches!(parse(&begun[..]), Err(Misread::Nonsense(_))));
    }

    #[test]
    fn answers_that_make_no_sense() {
        let commit = "0".repeat(40);
        let check = |answer: Value, expected: Expect| match parse_value(&answer).unwrap_err() {
            Misread::Nonsense(reason) => expected.assert_eq(&reason),
            Misread::Broken(reason) => panic!("{reason}"),
        };
        let huge = json!([{ "rfilename": "tokenizer.json", "size": 1u64 << 40 }]);
        check(
            json!({ "sha": commit, "siblings": huge }),
            expect!["tokenizer.json would have 1024.0 GiB, which no such file has"],
        );
        check(json!({}), expect!["it names no commit (`sha`)"]);
        check(json!([]), expect!["invalid length 0, expected a description of a model at line 1 column 2"]);
        check(
            json!({ "sha": commit, "siblings": [0, 0] }),
            expect!["invalid type: integer `0`, expected a file at line 1 column 64"],
        );
        check(
            json!({ "sha": commit, "siblings": { "rfilename": "config.json" } }),
            expect!["invalid type: map, expected a list of files (`siblings`) at line 1 column 62"],
        );
        let shards: Vec<_> = (0..3000).map(|i| json!({ "rfilename": format!("model-{i}.safetensors") })).collect();
        check(
            json!({ "sha": commit, "siblings": shards }),
            expect!["it lists more than 2048 files of one checkpoint at line 1 column 115952"],
        );
        check(json!({ "sha": "../../etc", "siblings": [] }), expect![[r#"`sha` is "../../etc", which is no commit"#]]);
        check(json!({ "sha": commit }), expect!["it lists no files (`siblings`)"]);
        check(
            json!({ "sha": commit, "siblings": [{}] }),
            expect!["a file has no name (`rfilename`) at line 1 column 65"],
        );
        check(
            json!({ "sha": commit, "siblings": [{ "rfilename": "vocab.json", "blobId": "../x" }] }),
            expect![[r#"the hash of vocab.json is "../x" at line 1 column 105"#]],
        );
    }
}
