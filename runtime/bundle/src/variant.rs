//! One bundle for several targets: what differs between them, and the manifest as each of them sees it.
//!
//! Models, tokenizers, templates and the ensemble are the same for all targets and stand once in the manifest, together with the
//! plans of the first target. A [`Variant`] holds the plans of another one. Entries are shared by name: plans of different targets
//! that need the same bytes name the same entry.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::manifest::{Manifest, Target};
use crate::memory::{Memory, MemoryPlan};
use crate::plan::Plan;

/// A bundle's models, compiled for another target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// What the plans were compiled for.
    pub target: Target,
    /// What running them takes of memory.
    pub memory: MemoryPlan,
    /// The plans, in the order of [`Manifest::models`].
    pub models: Vec<VariantModel>,
}

/// What differs between the targets of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariantModel {
    /// What [`Plan::memory`] gives.
    pub memory: Memory,
    /// What the runtime executes.
    pub plan: Plan,
}

/// The most targets of a bundle; there are three.
const MAX_TARGETS: usize = 8;

impl Manifest {
    /// All targets, [`Manifest::target`] first.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        std::iter::once(&self.target).chain(self.also.iter().map(|variant| &variant.target))
    }

    /// The manifest with the plans of this target in its models, and all others in [`Manifest::also`]; `None` where it has no
    /// such target.
    pub fn for_target(mut self, name: &str) -> Option<Manifest> {
        if self.target.name == name {
            return Some(self);
        }
        let variant = self.also.iter_mut().find(|variant| variant.target.name == name)?;
        std::mem::swap(&mut self.target, &mut variant.target);
        std::mem::swap(&mut self.memory, &mut variant.memory);
        for (model, other) in self.models.iter_mut().zip(&mut variant.models) {
            std::mem::swap(&mut model.memory, &mut other.memory);
            std::mem::swap(&mut model.plan, &mut other.plan);
        }
        Some(self)
    }

    /// Names of the entries that a target's plans refer to and those of tokenizers and templates.
    pub fn used_entries(&self) -> BTreeSet<&str> {
        let texts = self.models.iter().filter_map(|model| model.text.as_ref());
        let texts = texts.flat_map(|text| [Some(&text.tokenizer), text.chat_template.as_ref()]).flatten();
        texts.chain(self.models.iter().flat_map(|model| model.plan.entries())).map(String::as_str).collect()
    }

    /// Says what is wrong with the list of targets, if anything is.
    pub(crate) fn validate_targets(&self) -> Result<(), String> {
        if self.also.len() >= MAX_TARGETS {
            return Err(format!("it has plans for {} targets", 1 + self.also.len()));
        }
        let mut names = BTreeSet::new();
        for target in self.targets() {
            if !names.insert(&target.name) {
                return Err(format!("target `{}` is there twice", target.name));
            }
        }
        for variant in &self.also {
            let (found, needed) = (variant.models.len(), self.models.len());
            if found != needed {
                return Err(format!("target `{}` has plans for {found} models of {needed}", variant.target.name));
            }
        }
        Ok(())
    }
}
