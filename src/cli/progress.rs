//! Progress on a terminal: what is done, how fast, how long it will take. The only file that names `indicatif`.
//! Nothing is shown when stderr is not a terminal.

use super::text::{self, Voice};
use crate::client::{Phase, Progress};
use crate::model::counters::Counters;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

/// How often it is drawn.
const DRAW: Duration = Duration::from_millis(100);
/// Shorter work is not shown.
const PATIENCE: Duration = Duration::from_millis(400);

/// One line, in the units of all other text.
fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template(
        "{prefix:9} {bar:24} {done:>8} of {all:<8} {rate:>10}  {msg}  {eta} left",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    let write = |out: &mut dyn Write, line: String| {
        // Nobody to tell that a terminal takes no text.
        let _ = out.write_str(&line);
    };
    style
        .with_key("done", move |state: &ProgressState, out: &mut dyn Write| {
            write(out, text::bytes(state.pos()));
        })
        .with_key("all", move |state: &ProgressState, out: &mut dyn Write| {
            write(out, text::bytes(state.len().unwrap_or_default()));
        })
        .with_key("rate", move |state: &ProgressState, out: &mut dyn Write| {
            write(out, format!("{}/s", text::bytes(per_second(state.pos(), state.elapsed()))));
        })
}

/// The rate since the work began.
fn per_second(bytes: u64, time: Duration) -> u64 {
    let ms = time.as_millis().max(1);
    u64::try_from(u128::from(bytes) * 1000 / ms).unwrap_or(u64::MAX)
}

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
            bar.set_style(style());
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
            let mut is_shown = false;
            bar.set_draw_target(ProgressDrawTarget::hidden());
            while !bar.is_finished() {
                tokio::time::sleep(DRAW).await;
                let shown = progress.look();
                if shown.phase != phase {
                    phase = shown.phase;
                    bar.set_draw_target(ProgressDrawTarget::hidden());
                    is_shown = false;
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
                    is_shown = false;
                    continue;
                }
                bar.set_prefix(title);
                bar.set_length(shown.bytes_total.max(shown.bytes));
                bar.set_position(shown.bytes);
                bar.set_message(format!(
                    "{} of {}",
                    shown.files,
                    text::count(shown.files_total, "file", "files")
                ));
                // Not before it has something to show: it draws itself at once.
                if !std::mem::replace(&mut is_shown, true) {
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                }
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
