//! Pictures that go with a message: those that options and commands name, and those that the message itself names.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use dwindle_runtime::image::Picture;

use super::mentions::{self, Mentions};
use super::pictures;
use crate::output::note;

/// What a message without words asks about its pictures.
pub const DEFAULT_QUESTION: &str = "What do you see?";

/// Pictures and, in the same order, the paths they came from.
#[derive(Debug, Default)]
pub struct Attached {
    paths: Vec<PathBuf>,
    pictures: Vec<Picture>,
}

impl Attached {
    /// Reads these pictures.
    ///
    /// # Errors
    /// The first that cannot be read.
    pub fn load(paths: &[PathBuf]) -> Result<Self> {
        let mut attached = Attached::default();
        paths.iter().try_for_each(|path| attached.add(path))?;
        Ok(attached)
    }

    /// Reads one more.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn add(&mut self, path: &Path) -> Result<()> {
        self.pictures.push(pictures::load(path)?);
        self.paths.push(path.to_owned());
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pictures.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.pictures.len()
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        *self = Attached::default();
    }

    /// The pictures alone.
    pub fn pictures(&self) -> &[Picture] {
        &self.pictures
    }

    /// Reads the pictures that a message names, each once, and gives the message without their paths. A path that is attached
    /// already is not read again.
    ///
    /// # Errors
    /// All names of pictures that are not there, or the first picture that cannot be read; nothing is attached then.
    pub fn take_from(&mut self, message: &str) -> Result<String> {
        let Mentions { message, found, missing, addresses } =
            mentions::find(message, pictures::home().as_deref(), pictures::exists);
        let is_attached = |name: &String| {
            // Its name without the folder: the same picture is meant.
            self.paths.iter().any(|path| path.file_name().is_some_and(|file| file == name.as_str()))
        };
        let missing: Vec<String> = missing.into_iter().filter(|name| !is_attached(name)).collect();
        if !missing.is_empty() {
            let (names, s) = (missing.join(", "), if missing.len() == 1 { "" } else { "s" });
            bail!("cannot find the picture{s} {names}; relative paths start at {}", pictures::current_directory());
        }
        let mut new = Attached::default();
        for path in found {
            if !self.paths.iter().chain(&new.paths).any(|attached| pictures::is_same(attached, &path)) {
                new.add(&path)?;
            }
        }
        for address in addresses {
            note!(
                "Pictures on the web are not fetched: {address} is only text for the model. Download it and name the file."
            );
        }
        self.paths.append(&mut new.paths);
        self.pictures.append(&mut new.pictures);
        match message.trim() {
            "" => Ok(DEFAULT_QUESTION.to_owned()),
            _ => Ok(message),
        }
    }
}
