//! Progress bars on stderr, where that is a terminal; silence elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;

use dwindle_compiler::progress::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// One bar at a time, a line each.
#[derive(Debug, Default)]
pub struct Bars {
    current: Mutex<Option<ProgressBar>>,
}

impl Bars {
    fn with_current(&self, use_bar: impl FnOnce(&mut Option<ProgressBar>)) {
        // A panic elsewhere while the bar was held cannot leave it half-changed.
        use_bar(&mut self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    }
}

impl Progress for Bars {
    fn begin(&self, what: &str, total_bytes: u64) {
        let target = match std::io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(total_bytes), target).with_message(what.to_owned());
        bar.set_style(style());
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

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{msg:<28} {bar:32} {bytes:>10} / {total_bytes:<10} {bytes_per_sec:>12} {eta:>4}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸ ")
}
