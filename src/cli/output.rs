//! How results reach people and scripts: tables on a terminal, JSON lines on request.

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::fmt::Display;
use std::io::{IsTerminal, Write};

/// Where results, progress and errors go.
pub(super) struct Output {
    /// One JSON object a result on stdout.
    pub json: bool,
    /// No progress.
    pub quiet: bool,
    /// Tell more.
    pub verbose: bool,
    terminal: bool,
}

impl Output {
    pub fn new(json: bool, quiet: bool, verbose: bool) -> Self {
        Output { json, quiet, verbose, terminal: std::io::stderr().is_terminal() }
    }

    /// The same for a part of the work whose results are not asked for: progress and remarks only.
    pub fn progress_only(&self) -> Self {
        Output { verbose: false, ..*self }
    }

    /// A line of result, for people only.
    pub fn line(&self, text: &str) {
        if !self.json {
            write_stdout(text);
        }
    }
    /// An object of result, for scripts only.
    pub fn object(&self, object: &impl Serialize) {
        if self.json {
            write_stdout(&serde_json::to_string(object).expect("an object of words and numbers"));
        }
    }
    /// A remark on stderr.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }
    /// The one line of a failure.
    pub fn error(&self, e: &dyn Display) {
        let text = e.to_string().replace('\n', " ");
        eprintln!("{} {text}", console::style("error:").for_stderr().red().bold());
    }

    /// A bar on stderr with rate and time left; on anything but a terminal it shows nothing.
    pub fn bar(&self, total: u64, unit: &str) -> ProgressBar {
        let shown = self.terminal && !self.quiet;
        let target =
            if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let template = "{prefix} {bar:24.cyan/dim} {percent:>3}%  {per_sec}  {eta} left  {msg}";
        let style = ProgressStyle::with_template(template).expect("a template without faults");
        let unit = unit.to_string();
        let style = style.progress_chars("━╸─").with_key(
            "per_sec",
            move |state: &indicatif::ProgressState, w: &mut dyn std::fmt::Write| {
                let _ = write!(w, "{:.1} {unit}/s", state.per_sec());
            },
        );
        let bar = ProgressBar::with_draw_target(Some(total), target);
        bar.set_style(style);
        bar
    }

    /// Whether a bar would be seen.
    pub fn shows_bar(&self) -> bool {
        self.terminal && !self.quiet
    }
}

/// A reader of stdout that goes away early, such as `head`, is no failure.
fn write_stdout(text: &str) {
    if let Err(e) = writeln!(std::io::stdout(), "{text}") {
        if e.kind() != std::io::ErrorKind::BrokenPipe {
            eprintln!("error: stdout: {e}");
        }
        std::process::exit(i32::from(e.kind() != std::io::ErrorKind::BrokenPipe));
    }
}

/// A table with a head, whose columns after the first `words` are numbers.
pub(super) fn table(
    head: &[&str],
    words: usize,
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if i >= words {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let text = table.to_string();
    let mut lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let rule = "─".repeat(width);
    lines.insert(1.min(lines.len()), &rule);
    lines.join("\n")
}

/// `12,345,678`
pub(super) fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.25 MB`
pub(super) fn bytes(n: usize) -> String {
    let n = n as f64;
    match n {
        n if n < 1e3 => format!("{n} B"),
        n if n < 1e6 => format!("{:.1} kB", n / 1e3),
        n => format!("{:.2} MB", n / 1e6),
    }
}

/// The most memory that the process has held, in MB; 0 where the system does not say.
pub(super) fn peak_rss_mb() -> f64 {
    status_kb("VmHWM:") / 1e3 * 1.024
}

/// The memory that the process holds now, in MB; 0 where the system does not say.
pub(super) fn rss_mb() -> f64 {
    status_kb("VmRSS:") / 1e3 * 1.024
}

fn status_kb(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(thousands(1), "1");
        assert_eq!(thousands(123_456), "123,456");
        assert_eq!(thousands(1_000), "1,000");
        assert_eq!(
            (bytes(999), bytes(1_500), bytes(4_500_000)),
            ("999 B".into(), "1.5 kB".into(), "4.50 MB".into())
        );
    }
}
