//! What a step will take, told before it begins.

use std::path::Path;

use anyhow::Result;
use dwindle_compiler::work::Work;
use serde_json::json;

use crate::output::{self, note};

/// How a step announces itself.
#[derive(Debug, Clone, clap::Args)]
pub struct Announce {
    /// Only tell what it would take: bytes in and out, disk, memory. Exit code 4 if this machine does not have that
    #[arg(long)]
    pub dry_run: bool,

    /// Print one JSON object on stdout: what it takes, and what came of it
    #[arg(long)]
    pub json: bool,
}

impl Announce {
    /// Tells what the step takes that writes `output`, and whether it is to begin. The step itself checks that this machine has
    /// what it takes, less what an interrupted attempt has taken already; a dry run does so here.
    pub fn begin(&self, work: &Work, output: &Path) -> Result<bool> {
        note!("{work}");
        if self.dry_run && self.json {
            output::json(&format!("{:#}", json!({ "work": work })))?;
        }
        if self.dry_run {
            work.check(output)?;
        }
        Ok(!self.dry_run)
    }
}
