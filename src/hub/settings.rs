//! What the environment says about the hub: the variables that Hugging Face's own tools read.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// Where the hub is, who asks, and where files are kept.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// `https://huggingface.co`, without a slash at the end.
    pub(super) endpoint: String,
    pub(super) token: Option<String>,
    /// The folder with one folder for each model.
    pub(super) cache: PathBuf,
    /// Whether only the cache may be used.
    pub(super) offline: bool,
}

/// The folder with one folder for each model, wherever it is said to be.
pub fn cache_location() -> Option<PathBuf> {
    Settings::from_env().ok().map(|settings| settings.cache)
}

impl Settings {
    /// `HF_ENDPOINT`, `HF_TOKEN` or a file with the token, `HF_HUB_CACHE` or `HF_HOME`, `HF_HUB_OFFLINE`.
    pub(super) fn from_env() -> Result<Self> {
        Self::read(&|name| std::env::var(name).ok().filter(|value| !value.trim().is_empty()))
    }

    fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let home = || -> Result<PathBuf> {
            if let Some(home) = variable("HF_HOME") {
                return Ok(home.into());
            }
            let cache = match variable("XDG_CACHE_HOME") {
                Some(cache) => PathBuf::from(cache),
                None => directories::BaseDirs::new()
                    .context("there is no home directory to keep downloads in; set HF_HOME to a directory")?
                    .home_dir()
                    .join(".cache"),
            };
            Ok(cache.join("huggingface"))
        };
        let cache = match variable("HF_HUB_CACHE") {
            Some(cache) => cache.into(),
            None => home()?.join("hub"),
        };
        let token = variable("HF_TOKEN").or_else(|| {
            let file = variable("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| home().ok().map(|h| h.join("token")));
            std::fs::read_to_string(file?).ok()
        });
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let is_set = |name| variable(name).is_some_and(|v| ["1", "true", "yes", "on"].contains(&&*v.to_lowercase()));
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        Ok(Settings {
            endpoint: endpoint.trim().trim_end_matches('/').to_owned(),
            token,
            cache,
            offline: is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Settings {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Settings::read(&find).unwrap()
    }

    #[test]
    fn the_variables_of_other_tools_are_understood() {
        let plain = read(&[("HF_HOME", "/h")]);
        assert_eq!(
            (plain.endpoint.as_str(), plain.cache, plain.offline),
            ("https://huggingface.co", "/h/hub".into(), false)
        );
        assert_eq!(read(&[("XDG_CACHE_HOME", "/x")]).cache, PathBuf::from("/x/huggingface/hub"));
        assert_eq!(read(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]).cache, PathBuf::from("/c"));
        assert_eq!(read(&[("HF_HOME", "/h"), ("HF_ENDPOINT", "http://mirror/")]).endpoint, "http://mirror");
        assert!(read(&[("HF_HOME", "/h"), ("HF_HUB_OFFLINE", "ON")]).offline);
        assert!(!read(&[("HF_HOME", "/h"), ("HF_HUB_OFFLINE", "0")]).offline);
    }

    #[test]
    fn a_token_comes_from_the_variable_or_a_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().to_str().unwrap();
        assert_eq!(read(&[("HF_HOME", path)]).token, None);
        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        assert_eq!(read(&[("HF_HOME", path)]).token.unwrap(), "hf_file");
        assert_eq!(read(&[("HF_HOME", path), ("HF_TOKEN", " hf_variable ")]).token.unwrap(), "hf_variable");
        let other = home.path().join("other");
        std::fs::write(&other, "hf_other").unwrap();
        assert_eq!(read(&[("HF_HOME", path), ("HF_TOKEN_PATH", other.to_str().unwrap())]).token.unwrap(), "hf_other");
    }
}
