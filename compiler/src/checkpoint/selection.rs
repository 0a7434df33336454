//! Which tensors of a checkpoint become those of its family, or everything that is wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use dwindle_schemes::Role;
use serde_json::{Map, Value};

use super::names;
use super::problems::TensorProblems;
use super::safetensors::SafeTensors;
use super::source::Outline;
use crate::arch;
use crate::error::{Error, Result};
use crate::note::Note;
use crate::transcribe::Given;

/// What a family says about the tensors of its checkpoints, in transformers 4's names.
pub(crate) struct Needs {
    /// Shape and role of every tensor that must be there.
    pub tensors: BTreeMap<String, (Vec<usize>, Role)>,
    /// Whether a tensor that may be there is of no use.
    pub ignored: Box<dyn Fn(&str) -> bool + Send + Sync>,
    /// What is worth a line about the configuration.
    pub notes: Vec<Note>,
}

impl Needs {
    /// Of the family of a configuration in the spelling of transformers 4.
    pub fn of(
        model_type: &str,
        config: &Map<String, Value>,
        preprocessor: Option<&Value>,
    ) -> Result<Self, arch::Error> {
        let family = arch::parse(model_type, config, preprocessor)?;
        let tensors = family.tensors().into_iter().map(|spec| (spec.name, (spec.shape, spec.role))).collect();
        let unknown = family.unknown_keys().to_vec();
        let notes = if unknown.is_empty() { Vec::new() } else { vec![Note::UnknownKeys { keys: unknown }] };
        Ok(Needs { tensors, ignored: Box::new(move |name| family.ignored(name)), notes })
    }
}

impl fmt::Debug for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Needs").field("tensors", &self.tensors).finish_non_exhaustive()
    }
}

/// The comparison of what is needed with what the files of a checkpoint hold, one file after another.
#[derive(Debug)]
pub(crate) struct Selection<'n> {
    needs: &'n Needs,
    multimodal: bool,
    problems: TensorProblems,
    found: BTreeSet<String>,
    /// Tensors of no use, in transformers 4's names.
    pub ignored: Vec<String>,
}

impl<'n> Selection<'n> {
    /// Nothing was looked at yet.
    pub fn new(needs: &'n Needs, outline: &Outline) -> Self {
        Selection {
            needs,
            multimodal: outline.is_multimodal(),
            problems: TensorProblems::default(),
            found: BTreeSet::new(),
            ignored: Vec::new(),
        }
    }

    /// Notes tensors that were selected before, and those found to be of no use.
    pub fn take_over<'t>(&mut self, found: impl IntoIterator<Item = &'t String>, ignored: &[String]) {
        self.found.extend(found.into_iter().cloned());
        self.ignored.extend_from_slice(ignored);
    }

    /// Notes a tensor of which only the name is known; names in an index that are not needed say nothing.
    pub fn assume(&mut self, name: &str) {
        let name = names::canonical(name, self.multimodal).into_owned();
        if !self.needs.tensors.contains_key(&name) {
            self.ignored.push(name);
        } else if let Some(twice) = self.found.replace(name) {
            self.problems.duplicate.push(twice);
        }
    }

    /// The tensors of a file that are needed.
    pub fn file<'f>(&mut self, file: &'f SafeTensors) -> Vec<Given<'f>> {
        let mut given = Vec::new();
        for view in file.tensors() {
            let name = names::canonical(view.name, self.multimodal).into_owned();
            match self.needs.tensors.get(&name) {
                None if (self.needs.ignored)(&name) => self.ignored.push(name),
                None => self.problems.extra.push((name, view.shape.to_vec())),
                Some((shape, _)) => {
                    if view.shape != shape.as_slice() {
                        self.problems.misshapen.push((name.clone(), shape.clone(), view.shape.to_vec()));
                    }
                    if view.dtype.float().is_none() {
                        self.problems.unsupported.push((name.clone(), view.dtype_name.to_owned()));
                    }
                    if !self.found.insert(name.clone()) {
                        self.problems.duplicate.push(name.clone());
                    }
                    given.push(Given { name, view });
                }
            }
        }
        given
    }

    /// Checks that nothing is wrong with the files so far.
    pub fn check(&mut self, outline: &Outline) -> Result<()> {
        if self.problems.is_empty() {
            return Ok(());
        }
        let mut problems = std::mem::take(&mut self.problems);
        problems.sort();
        Err(Error::Tensors {
            path: outline.path().to_owned(),
            family: outline.model_type().to_owned(),
            problems: Box::new(problems),
        })
    }

    /// Checks that nothing is missing either; what is of no use.
    pub fn finish(mut self, outline: &Outline) -> Result<Vec<String>> {
        let missing = self.needs.tensors.iter().filter(|(name, _)| !self.found.contains(*name));
        self.problems.missing.extend(missing.map(|(name, (shape, _))| (name.clone(), shape.clone())));
        self.check(outline)?;
        self.ignored.sort();
        Ok(self.ignored)
    }
}
