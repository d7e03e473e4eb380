//! Text for people: lines on stderr, sizes, rates and times. Where nobody can read them, on a full disk or a closed pipe,
//! the work goes on.

use super::Failure;
use std::io::Write;
use std::time::Duration;

/// How much is said.
#[derive(Debug, Clone, Copy)]
pub struct Voice {
    /// Errors only.
    pub quiet: bool,
}

impl Voice {
    /// One line of news.
    pub fn say(self, line: &str) {
        if !self.quiet {
            tell(line);
        }
    }
}

/// A line on stderr.
fn tell(line: &str) {
    // In one write, so that lines of several threads stay whole.
    let _ = std::io::stderr().write_all(format!("dropblock: {line}\n").as_bytes());
}

/// A line that quiet does not leave out.
pub fn warn(line: &str) {
    tell(line);
}

/// The one line of an error.
pub fn error(failure: &Failure) {
    tell(&failure.line.replace('\n', " "));
}

/// A line of data on stdout. A reader that has gone is no error.
pub fn data(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// `512 B`, `3.4 KB`, `1.2 GB`: powers of 1000.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KB", "MB", "GB", "TB", "PB", "EB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let mut tenths = n / 100;
    let mut unit = "KB";
    for next in UNITS {
        unit = next;
        if tenths < 10_000 {
            break;
        }
        tenths /= 1000;
    }
    if tenths >= 1000 {
        format!("{} {unit}", tenths / 10)
    } else {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

/// `12 ms`, `3.4 s`, `5 min 10 s`.
pub fn duration(time: Duration) -> String {
    let ms = time.as_millis();
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..120_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
    }
}

/// A keep time in the largest units that say it: `30 days`, `1 hour`, `1 day 12 hours`, `0 seconds`.
pub fn keep_time(ms: u64) -> String {
    let mut seconds = ms / 1000;
    let mut parts = Vec::new();
    for (unit, one, many) in [
        (86_400, "day", "days"),
        (3600, "hour", "hours"),
        (60, "minute", "minutes"),
        (1, "second", "seconds"),
    ] {
        if seconds >= unit {
            parts.push(count(seconds / unit, one, many));
            seconds %= unit;
        }
    }
    if parts.is_empty() { "0 seconds".to_owned() } else { parts.join(" ") }
}

/// `1 file`, `2 files`.
pub fn count(n: u64, one: &str, many: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {many}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_times_have_their_own_units() {
        let hour = 3_600_000;
        let shown = [0, 90_000, hour, 36 * hour, 720 * hour].map(keep_time);
        assert_eq!(shown, ["0 seconds", "1 minute 30 seconds", "1 hour", "1 day 12 hours", "30 days"]);
    }

    #[test]
    fn sizes_read_well() {
        let shown: Vec<String> =
            [0, 999, 1000, 1234, 99_950, 123_456, 4_294_967_296, u64::MAX].into_iter().map(bytes).collect();
        assert_eq!(shown, ["0 B", "999 B", "1.0 KB", "1.2 KB", "99.9 KB", "123 KB", "4.2 GB", "18.4 EB"]);
    }

    #[test]
    fn times_read_well() {
        let shown = [7, 1234, 310_000].map(|ms| duration(Duration::from_millis(ms)));
        assert_eq!(shown, ["7 ms", "1.2 s", "5 min 10 s"]);
    }
}
