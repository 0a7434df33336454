//! The table that explains a choice: what was tried, what it saved, and why.

use std::fmt;

use dwindle_schemes::Role;
use serde::Serialize;

use crate::size::Size;

/// What was tried on the way into a budget.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FitReport {
    /// Bytes that the worst moment may take.
    pub budget: u64,
    /// Bytes that it takes in the end.
    pub peak: u64,
    /// In the order in which they were taken; the first is the beginning.
    pub steps: Vec<FitStep>,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FitStep {
    /// What changed.
    pub what: String,
    /// Bytes of the worst moment afterwards.
    pub peak: u64,
    /// The reason, or the price.
    pub why: String,
}

impl fmt::Display for FitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.steps.iter().map(|step| step.what.chars().count()).max().unwrap_or(0).max("change".len());
        writeln!(f, "budget {}", Size(self.budget))?;
        write!(f, "{:<width$}  {:>12}  {:>10}  why", "change", "worst moment", "saved")?;
        let mut before: Option<u64> = None;
        for FitStep { what, peak, why } in &self.steps {
            let saved = match before {
                None => String::new(),
                Some(before) if before >= *peak => Size(before - peak).to_string(),
                Some(before) => format!("-{}", Size(peak - before)),
            };
            before = Some(*peak);
            write!(f, "\n{what:<width$}  {:>12}  {saved:>10}  {why}", Size(*peak).to_string())?;
        }
        Ok(())
    }
}

/// A class of tensors, for people.
pub(super) fn class(role: Role) -> String {
    match role {
        Role::Embedding => "embedding",
        Role::Head => "head",
        Role::Linear => "linear layers",
        Role::Projector => "projector",
        Role::VisionLinear => "vision layers",
        Role::PatchEmbedding => "patch embedding",
        Role::Vector => "vectors",
    }
    .to_owned()
}
