//! Stderr: whether it gets colour and a live line, and what is said on it.

use std::io::{IsTerminal as _, Write as _};

use super::args::{Args, When};

/// Whether stderr gets colour and a live line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terminal {
    pub(super) live: bool,
    color: bool,
    /// Columns, where stderr is a terminal.
    pub(super) width: Option<usize>,
    pub(super) quiet: bool,
    pub(super) verbose: bool,
}

impl Terminal {
    pub(super) fn new(args: &Args) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        Self {
            live: on_terminal && !args.quiet,
            color: match args.color {
                When::Always => true,
                When::Never => false,
                When::Auto => {
                    on_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                }
            },
            width: terminal_size::terminal_size_of(std::io::stderr())
                .map(|(width, _)| width.0.into()),
            quiet: args.quiet,
            verbose: args.verbose,
        }
    }

    pub(super) fn paint(self, code: &str, text: &str) -> String {
        if self.color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// A line for humans, unless they asked for none.
    pub(super) fn say(self, line: impl std::fmt::Display) {
        if !self.quiet {
            complain(line);
        }
    }

    pub(super) fn warn(self, line: impl std::fmt::Display) {
        self.say(format_args!("{} {line}", self.paint("33;1", "warning:")));
    }
}

/// A line on stderr. That nobody reads it, as stderr is closed, is no reason to give up a run, as `eprintln!` does.
pub(super) fn complain(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
