//! Progress bars on stderr, where that is a terminal; silence elsewhere.

use std::sync::Mutex;

use dwindle_compiler::progress::Progress;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;

/// One bar for the operation in progress, below those of files that arrive meanwhile.
#[derive(Debug)]
pub struct Bars {
    lines: MultiProgress,
    current: Mutex<Option<ProgressBar>>,
}

impl Default for Bars {
    fn default() -> Self {
        Bars { lines: MultiProgress::with_draw_target(output::bars()), current: Mutex::default() }
    }
}

impl Bars {
    /// Bars of `files` files with `bytes` bytes together that arrive one after another, perhaps beside other work.
    pub fn transfer(&self, files: usize, bytes: u64) -> Transfer {
        let total = (files > 1).then(|| self.lines.add(bar(format!("{files} files"), bytes)));
        Transfer { lines: self.lines.clone(), total }
    }

    fn with_current(&self, use_bar: impl FnOnce(&mut Option<ProgressBar>)) {
        // A panic elsewhere while the bar was held cannot leave it half-changed.
        use_bar(&mut self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    }
}

impl Progress for Bars {
    fn begin(&self, what: &str, total_bytes: u64) {
        let bar = self.lines.add(bar(what.to_owned(), total_bytes));
        self.with_current(|current| *current = Some(bar));
    }

    fn advance(&self, bytes: u64) {
        self.with_current(|current| {
            if let Some(bar) = current {
                bar.inc(bytes);
            }
        });
    }

    fn end(&self) {
        self.with_current(|current| {
            if let Some(bar) = current.take() {
                bar.finish_and_clear();
            }
        });
    }
}

/// The bars of files that arrive one after another: one for the present file, one for all.
#[derive(Debug)]
pub struct Transfer {
    lines: MultiProgress,
    total: Option<ProgressBar>,
}

impl Transfer {
    /// A file of `bytes` bytes begins.
    pub fn file(&self, name: &str, bytes: u64) -> FileTransfer {
        let file = bar(name.to_owned(), bytes);
        let file = match &self.total {
            Some(total) => self.lines.insert_before(total, file),
            None => self.lines.add(file),
        };
        FileTransfer { file, total: self.total.clone() }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some(total) = &self.total {
            total.finish_and_clear();
        }
    }
}

/// The bar of one arriving file; it disappears with this value.
#[derive(Debug)]
pub struct FileTransfer {
    file: ProgressBar,
    total: Option<ProgressBar>,
}

impl FileTransfer {
    /// `bytes` more are there.
    pub fn advance(&self, bytes: u64) {
        self.file.inc(bytes);
        self.total.iter().for_each(|total| total.inc(bytes));
    }

    /// All that was there of this file is worthless.
    pub fn restart(&self) {
        let lost = self.file.position();
        self.file.set_position(0);
        self.total.iter().for_each(|total| total.dec(lost));
    }
}

impl Drop for FileTransfer {
    fn drop(&mut self) {
        self.file.finish_and_clear();
    }
}

/// A bar that is not shown before a [`MultiProgress`] takes it.
fn bar(what: String, total_bytes: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total_bytes), ProgressDrawTarget::hidden())
        .with_message(output::name(&what).into_owned());
    bar.set_style(style());
    bar
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{msg:<32} {bar:32} {bytes:>10} / {total_bytes:<10} {bytes_per_sec:>12} {eta:>4}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸ ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_add_up_and_lost_bytes_are_taken_back() {
        let bars = Bars::default();
        let transfer = bars.transfer(2, 30);
        let total = transfer.total.clone().unwrap();
        let first = transfer.file("first", 10);
        first.advance(10);
        drop(first);
        let second = transfer.file("second", 20);
        second.advance(15);
        assert_eq!(total.position(), 25);
        second.restart();
        assert_eq!(total.position(), 10);
        second.advance(20);
        assert_eq!(total.position(), 30);
        drop((second, transfer));
        assert!(total.is_finished());
        assert!(bars.transfer(1, 5).total.is_none(), "one file needs no second bar");
    }
}
