//! What a repository of the hub holds: names, sizes and hashes, before anything of it is downloaded.

use serde_json::Value;

use super::digest::Digest;

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
pub(super) fn parse(answer: &Value) -> Result<(String, Vec<Entry>), String> {
    let commit = answer.get("sha").and_then(Value::as_str).ok_or("it names no commit (`sha`)")?;
    if !is_commit(commit) {
        return Err(format!("`sha` is {commit:?}, which is no commit"));
    }
    let siblings = answer.get("siblings").and_then(Value::as_array).ok_or("it lists no files (`siblings`)")?;
    let mut entries = siblings.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<String> = entries.iter().map(|entry| entry.name.clone()).collect();
    entries.retain(|entry| is_wanted(&entry.name, &names));
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries.dedup_by(|a, b| a.name == b.name);
    Ok((commit.to_owned(), entries))
}

fn entry(sibling: &Value) -> Result<Entry, String> {
    let name = sibling.get("rfilename").and_then(Value::as_str).ok_or("a file has no name (`rfilename`)")?;
    let hash = |value: Option<&Value>| -> Result<Option<Digest>, String> {
        let Some(text) = value.and_then(Value::as_str) else { return Ok(None) };
        Digest::parse(text).map(Some).ok_or_else(|| format!("the hash of {name} is {text:?}"))
    };
    // Large files are stored beside git, which only knows a pointer; what counts is the hash of what it points to.
    let large = sibling.get("lfs").filter(|lfs| lfs.is_object());
    let (size, digest) = match large {
        Some(lfs) => (
            lfs.get("size").or(sibling.get("size")).and_then(Value::as_u64),
            hash(lfs.get("sha256").or(lfs.get("oid")))?,
        ),
        None => (sibling.get("size").and_then(Value::as_u64), hash(sibling.get("blobId"))?),
    };
    Ok(Entry { name: name.to_owned(), size, digest })
}

/// Whether the text is a full commit hash, which is safe as a folder's name too.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors") || (name.starts_with("params_shard_") && name.ends_with(".bin"))
}

/// What a conversion needs: weights, configuration, tokenizer, template. Nothing in subfolders, no second copy of the weights.
pub(super) fn is_wanted(name: &str, all: &[String]) -> bool {
    if name.contains(['/', '\\', ':', '\0']) || name.starts_with('.') {
        return false;
    }
    let holds = |name: &str| all.iter().any(|n| n == name);
    match name.rsplit_once('.') {
        Some((stem, "safetensors")) => {
            let sharded = holds("model.safetensors.index.json");
            stem == "model" || (sharded && stem.starts_with("model-"))
        }
        Some((_, "bin")) => is_weights(name) && holds("mlc-chat-config.json"),
        Some((_, "json" | "jinja")) => true,
        // What a tokenizer is made of where tokenizer.json is not there.
        _ => !holds("tokenizer.json") && ["merges.txt", "tokenizer.model"].contains(&name),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    fn wanted<'a>(names: &[&'a str]) -> Vec<&'a str> {
        let all: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        names.iter().copied().filter(|name| is_wanted(name, &all)).collect()
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
        assert_eq!(wanted(&single), ["model.safetensors", "config.json"]);
        let sharded = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "chat_template.jinja"];
        assert_eq!(wanted(&sharded), sharded);
        let vocabulary = ["vocab.json", "merges.txt", "tokenizer.model"];
        assert_eq!(wanted(&vocabulary), vocabulary);
        assert_eq!(wanted(&["tokenizer.json", "merges.txt", "notes.txt", "other.model"]), ["tokenizer.json"]);
        let packed = ["mlc-chat-config.json", "ndarray-cache.json", "params_shard_0.bin", "tokenizer.json"];
        assert_eq!(wanted(&packed), packed);
    }

    #[test]
    fn large_files_are_known_by_what_the_pointer_points_to() {
        let (commit, entries) = parse(&json!({
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
    fn answers_that_make_no_sense() {
        let commit = "0".repeat(40);
        let check = |answer: Value, expected: Expect| expected.assert_eq(&parse(&answer).unwrap_err());
        check(json!([]), expect!["it names no commit (`sha`)"]);
        check(json!({ "sha": "../../etc", "siblings": [] }), expect![[r#"`sha` is "../../etc", which is no commit"#]]);
        check(json!({ "sha": commit }), expect!["it lists no files (`siblings`)"]);
        check(json!({ "sha": commit, "siblings": [{}] }), expect!["a file has no name (`rfilename`)"]);
        check(
            json!({ "sha": commit, "siblings": [{ "rfilename": "a.json", "blobId": "../x" }] }),
            expect![[r#"the hash of a.json is "../x""#]],
        );
    }
}
