//! Downloads checkpoints from the Hugging Face hub into its usual cache, or finds them there.
//!
//! Environment: `HF_HOME` (cache), `HF_ENDPOINT` (another server), `HF_TOKEN` (gated models), `HF_HUB_OFFLINE` (cache only).

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use dwindle_compiler::progress::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

/// How often a broken connection is taken up again before giving up.
const RETRIES: usize = 5;

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

/// The directory with a checkpoint's files, downloaded where they are not in the cache yet.
pub fn fetch(id: &str, revision: Option<&str>, progress: &dyn Progress) -> Result<PathBuf> {
    let revision = revision.unwrap_or("main").to_owned();
    let repo = Repo::with_revision(id.to_owned(), RepoType::Model, revision.clone());
    if offline() {
        return cached(&repo).with_context(|| {
            format!("{id} (revision {revision}) is not in the cache and HF_HUB_OFFLINE is set: unset it to download, or name a local directory")
        });
    }
    let token = std::env::var("HF_TOKEN").ok().filter(|t| !t.trim().is_empty());
    let mut builder = ApiBuilder::from_env().with_progress(false).with_retries(RETRIES);
    if token.is_some() {
        builder = builder.with_token(token);
    }
    let api = builder.build().context("cannot start the hub client")?.repo(repo);
    let info = api.info().map_err(|e| explain(e, id, &revision))?;
    let names: Vec<String> = info.siblings.into_iter().map(|s| s.rfilename).collect();
    let wanted: Vec<&String> = names.iter().filter(|name| is_wanted(name, &names)).collect();
    if !wanted.iter().any(|name| name.ends_with(".safetensors")) {
        bail!(
            "{id} holds no safetensors files: look on the hub for a repository that does, or convert it there (\"Convert to safetensors\")"
        );
    }
    let mut directory = None;
    for name in wanted {
        let bar = FileProgress { progress, last: 0 };
        let path = match api.download_with_progress(name, bar) {
            Ok(path) => path,
            Err(error) => return Err(explain(error, id, &revision).context(format!("while downloading {name}"))),
        };
        directory = path.parent().map(PathBuf::from);
    }
    directory.ok_or_else(|| anyhow!("{id} holds no files"))
}

fn offline() -> bool {
    let set = |name| {
        std::env::var(name).is_ok_and(|v| matches!(v.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"))
    };
    set("HF_HUB_OFFLINE") || set("TRANSFORMERS_OFFLINE")
}

fn cached(repo: &Repo) -> Option<PathBuf> {
    let config = Cache::from_env().repo(repo.clone()).get("config.json")?;
    Some(config.parent()?.to_owned())
}

/// What a checkpoint needs: weights, configuration, tokenizer, template. Nothing in subfolders, no second copy of the weights.
fn is_wanted(name: &str, all: &[String]) -> bool {
    if name.contains(['/', '\\']) || name.starts_with('.') {
        return false;
    }
    match name.rsplit_once('.') {
        Some((stem, "safetensors")) => {
            let sharded = all.iter().any(|n| n == "model.safetensors.index.json");
            stem == "model" || (sharded && stem.starts_with("model-"))
        }
        Some((_, "json" | "jinja")) => true,
        _ => false,
    }
}

/// A hub error in words that say what to do.
fn explain(error: ApiError, id: &str, revision: &str) -> anyhow::Error {
    let error = match error {
        ApiError::TooManyRetries(inner) => *inner,
        other => other,
    };
    let status = match &error {
        ApiError::RequestError(request) => match request.as_ref() {
            ureq::Error::Status(code, _) => Some(*code),
            ureq::Error::Transport(_) => None,
        },
        _ => None,
    };
    match status {
        Some(401 | 403) => anyhow!(
            "the hub refuses access to {id}: it may be gated or private. Accept its licence on its page, make an access token, \
             and set HF_TOKEN to it"
        ),
        Some(404) => anyhow!("the hub has no model {id} with revision {revision}: check the spelling of both"),
        Some(code) => anyhow!("the hub answered {code} for {id}: try again later"),
        None => anyhow::Error::new(error).context(format!(
            "cannot download {id}: check the network; what was downloaded is kept and taken up again"
        )),
    }
}

struct FileProgress<'a> {
    progress: &'a dyn Progress,
    last: usize,
}

impl hf_hub::api::Progress for FileProgress<'_> {
    fn init(&mut self, size: usize, filename: &str) {
        self.progress.end();
        self.progress.begin(filename, size as u64);
        self.last = 0;
    }

    fn update(&mut self, size: usize) {
        self.last += size;
        self.progress.advance(size as u64);
    }

    fn finish(&mut self) {
        self.progress.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for id in ["google/gemma-2-2b-it", "llava-hf/llava-onevision-qwen2-0.5b-ov-hf", "a/b.c_d"] {
            assert!(is_id(id), "{id}");
        }
        for path in ["gemma", "./gemma", "../a", "/a/b", "a/b/c", "~/a", "a/", "/b", "a b/c"] {
            assert!(!is_id(path), "{path}");
        }
    }

    #[test]
    fn only_what_a_checkpoint_needs_is_downloaded() {
        let single: Vec<String> = [
            "model.safetensors",
            "config.json",
            "pytorch_model.bin",
            "onnx/model.onnx",
            "README.md",
            "../evil.json",
            "consolidated.safetensors",
        ]
        .map(String::from)
        .into();
        let wanted: Vec<_> = single.iter().filter(|n| is_wanted(n, &single)).collect();
        assert_eq!(wanted, ["model.safetensors", "config.json"]);
        let sharded: Vec<String> =
            ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "chat_template.jinja"]
                .map(String::from)
                .into();
        assert!(sharded.iter().all(|n| is_wanted(n, &sharded)));
    }
}
