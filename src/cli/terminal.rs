//! Stderr: whether it gets colour and a live line, and what is said on it.

use std::io::{IsTerminal as _, Write as _};

use swiftprune_wgpu::untrusted::escaped_lines;

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

    fn paint(self, code: &str, text: &str) -> String {
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
        if !self.quiet {
            self.complain_as("33;1", "warning:", line);
        }
    }

    /// A line behind a label in a colour.
    pub(super) fn complain_as(self, code: &str, label: &str, line: impl std::fmt::Display) {
        let line = line.to_string();
        write(&format!(
            "{} {}",
            self.paint(code, label),
            escaped_lines(&line)
        ));
    }
}

/// A line on stderr. Whatever it is made of, nothing in it steers the terminal: an error of a library may quote a stranger's
/// file.
pub(super) fn complain(line: impl std::fmt::Display) {
    let line = line.to_string();
    write(&escaped_lines(&line).to_string());
}

/// A line on stderr as it is, folded where a terminal is too narrow for it. That nobody reads it, as stderr is closed, is no
/// reason to give up a run, as `eprintln!` does.
fn write(line: &str) {
    let line = match terminal_size::terminal_size_of(std::io::stderr()) {
        Some((width, _)) => folded(line, width.0.into()),
        None => line.to_owned(),
    };
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Lines that are too long, broken between words; what follows a label begins where its text does.
fn folded(text: &str, width: usize) -> String {
    let fold = |line: &str| {
        let label = line.find("  ").filter(|&end| end < 10);
        let indent = label.map_or(0, |end| {
            line.len() - line[end..].trim_start_matches(' ').len()
        });
        let indent = " ".repeat(indent.min(width / 2));
        let options = textwrap::Options::new(width)
            .break_words(false)
            .word_separator(textwrap::WordSeparator::AsciiSpace)
            .word_splitter(textwrap::WordSplitter::NoHyphenation)
            .wrap_algorithm(textwrap::WrapAlgorithm::FirstFit)
            .subsequent_indent(&indent);
        if textwrap::core::display_width(line) > width {
            textwrap::fill(line, options)
        } else {
            line.to_owned()
        }
    };
    let lines: Vec<String> = text.split('\n').map(fold).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_under_their_text() {
        assert_eq!(
            folded("norms   built-in text, 4,096 tokens in windows", 24),
            "norms   built-in text,\n        4,096 tokens in\n        windows"
        );
        assert_eq!(folded("two words\nand more", 80), "two words\nand more");
        // A path stays whole, to be copied; so does an option.
        assert_eq!(
            folded("see /a/very/long/path.txt or --no-card", 12),
            "see\n/a/very/long/path.txt\nor --no-card"
        );
        // Colour takes no room.
        assert_eq!(
            folded("\x1b[33;1mwarning:\x1b[0m so", 11),
            "\x1b[33;1mwarning:\x1b[0m so"
        );
    }
}
