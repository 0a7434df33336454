//! How errors are told, and the exit code of each kind.

use std::io;
use std::process::ExitCode;

use crate::hub;
use crate::output::{self, note};

/// Ctrl-C ended the work.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

const BAD_INPUT: u8 = 3;
const DOES_NOT_FIT: u8 = 4;
const DEVICE: u8 = 5;
/// A file is not what it was when it was written.
pub const DAMAGED: u8 = 6;
const INTERRUPTED: u8 = 130;

/// Prints the error and its causes on stderr, and chooses the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if matches!(error.downcast_ref(), Some(output::Error::Closed)) {
        // Whoever read the output has enough.
        return ExitCode::SUCCESS;
    }
    let code = code(error);
    if code != INTERRUPTED {
        note!("error: {}", told(error));
    }
    ExitCode::from(code)
}

/// The error and its causes. Errors that name their cause themselves do not say it twice.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            text += if text.is_empty() { "" } else { ": " };
            text += &cause;
        }
    }
    text
}

fn code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if cause.is::<Interrupted>() {
            return INTERRUPTED;
        }
        if let Some(error) = cause.downcast_ref::<dwindle_bundle::Error>() {
            return of_bundle(error);
        }
        if let Some(error) = cause.downcast_ref::<dwindle_runtime::Error>() {
            return of_runtime(error);
        }
        match cause.downcast_ref::<hub::Error>() {
            Some(hub::Error::DiskSpace { .. }) => return DOES_NOT_FIT,
            Some(hub::Error::Hash { .. } | hub::Error::Length { .. }) => return DAMAGED,
            _ => {}
        }
        if let Some(error) = cause.downcast_ref::<dwindle_compiler::Error>() {
            use dwindle_compiler::Error;
            if matches!(error, Error::DiskSpace { .. } | Error::Memory { .. } | Error::Fit { .. }) {
                return DOES_NOT_FIT;
            }
            if matches!(error, Error::Shortened { .. }) {
                return DAMAGED;
            }
        }
        if let Some(output::Error::Failed(source)) = cause.downcast_ref() {
            return if source.kind() == io::ErrorKind::StorageFull { DOES_NOT_FIT } else { BAD_INPUT };
        }
        if cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::StorageFull) {
            return DOES_NOT_FIT;
        }
    }
    BAD_INPUT
}

fn of_runtime(error: &dwindle_runtime::Error) -> u8 {
    use dwindle_runtime::Error;
    match error {
        Error::Bundle(error) => of_bundle(error),
        Error::Memory { .. } | Error::OutOfMemory { .. } | Error::ContextFull { .. } => DOES_NOT_FIT,
        Error::Chat(dwindle_runtime::chat::Error::TooLong { .. }) => DOES_NOT_FIT,
        Error::Saved(dwindle_runtime::engine::SavedError::Damaged { .. }) => DAMAGED,
        Error::NoAdapter
        | Error::NoSuchAdapter { .. }
        | Error::Limits { .. }
        | Error::Open { .. }
        | Error::DeviceLost { .. }
        | Error::Refused { .. } => DEVICE,
        _ => BAD_INPUT,
    }
}

fn of_bundle(error: &dwindle_bundle::Error) -> u8 {
    use dwindle_bundle::Error;
    match error {
        Error::Hash { .. } | Error::Damaged { .. } | Error::MissingEntry { .. } => DAMAGED,
        Error::NoTarget { .. } => DEVICE,
        Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => DOES_NOT_FIT,
        _ => BAD_INPUT,
    }
}
