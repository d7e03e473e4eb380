//! Progress on a terminal: what is done, how fast, how long it will take. The only file that names `indicatif`.
//! Nothing is shown when stderr is not a terminal.

use super::text::{self, Voice};
use crate::client::{Phase, Progress};
use crate::model::counters::Counters;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

/// How often it is drawn.
const DRAW: Duration = Duration::from_millis(100);
/// Shorter work is not shown.
const PATIENCE: Duration = Duration::from_millis(400);

/// A line at the bottom of the terminal.
#[derive(Clone)]
pub struct Display {
    bar: Option<ProgressBar>,
}

impl Display {
    /// Shows nothing yet.
    pub fn new(voice: Voice) -> Self {
        let shown = !voice.quiet && std::io::stderr().is_terminal();
        let bar = shown.then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template(
                "{prefix:9} {bar:24} {bytes:>10} of {total_bytes:<10} {bytes_per_sec:>12}  {msg}  {eta} left",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar }
    }

    /// Follows the work of a client until [`Display::end`].
    pub fn show(&self, progress: Arc<Progress>, _counters: Arc<Counters>) {
        let Some(bar) = self.bar.clone() else { return };
        tokio::spawn(async move {
            let mut since = tokio::time::Instant::now();
            let mut phase = Phase::Idle;
            while !bar.is_finished() {
                tokio::time::sleep(DRAW).await;
                let shown = progress.look();
                if shown.phase != phase {
                    phase = shown.phase;
                    since = tokio::time::Instant::now();
                    bar.reset();
                }
                let title = match phase {
                    Phase::Sending => "sending",
                    Phase::Receiving => "receiving",
                    Phase::Idle | Phase::Looking => "",
                };
                if title.is_empty() || since.elapsed() < PATIENCE || shown.bytes_total == 0 {
                    bar.set_draw_target(ProgressDrawTarget::hidden());
                    continue;
                }
                bar.set_draw_target(ProgressDrawTarget::stderr());
                bar.set_prefix(title);
                bar.set_length(shown.bytes_total.max(shown.bytes));
                bar.set_position(shown.bytes);
                bar.set_message(format!(
                    "{} of {}",
                    shown.files,
                    text::count(shown.files_total, "file", "files")
                ));
            }
        });
    }

    /// A line of news above the bar.
    pub fn line(&self, voice: Voice, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| voice.say(line)),
            None => voice.say(line),
        }
    }

    /// Clears the line.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
